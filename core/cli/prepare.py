"""`autoresearch prepare`: a corpus, fetched and encoded ahead of time."""

from __future__ import annotations

from core.cli import resolve
from core.cli.options import AsJson, Corpus, Folder, PresetName, Settings, all_of, interruptible
from core.cli.render import terminal
from core.cli.resolve import Asked


def prepare(
    preset: PresetName = None,
    settings: Settings = None,
    corpus: Corpus = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Fetch and encode a corpus ahead of time.

    What is there already is only checked; what was cut off goes on.
    """
    chosen = resolve.preset_here(folder, Asked(preset=preset, settings=all_of(settings), corpus=corpus))
    with interruptible("the same command goes on from here"):
        dataset = resolve.dataset_of(chosen)
        resolve.fetch_kernels(chosen)
    text = dataset.scored("val", chosen.score_bytes)
    sizes = {split: {"documents": documents, "bytes": size} for split, (documents, size) in dataset.sizes().items()}
    facts = {"corpus": dataset.corpus, "vocabulary": dataset.tokenizer.vocabulary, "splits": sizes}
    if as_json:
        terminal.json_text({**facts, "scored_bytes": text.bytes, "yardstick": text.yardstick})
        return
    from core.system.text import count

    for split, size in sizes.items():
        terminal.say(f"{split:5}  {size['documents']:>9,} documents  {count(size['bytes'])}B")
    terminal.say(f"{dataset.corpus}, vocabulary {facts['vocabulary']}: ready; a score covers {count(text.bytes)}B")
