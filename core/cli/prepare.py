"""`autoresearch prepare`: fetches and encodes a corpus ahead of time."""

from __future__ import annotations

from core.cli import resolve
from core.cli.options import (
    AsJson,
    CampaignArgument,
    CampaignDir,
    CorpusName,
    PresetName,
    PresetSettings,
    interruptible,
)
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.system.text import count


def prepare(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    preset: PresetName = None,
    settings: PresetSettings = None,
    corpus: CorpusName = None,
    as_json: AsJson = False,
) -> None:
    """Download and tokenize a corpus ahead of time.

    A corpus that is complete is only checked; an interrupted preparation continues. Libraries that were installed
    without Python's bytecode are compiled, because a trial can't do that.
    """
    from core.trial.compile_cache import fetched
    from core.trial.fetch import fetch

    chosen = resolve.preset_here(PresetOptions(preset=preset, settings=settings, corpus=corpus), folder, option)
    with interruptible("the same command continues from here"):
        dataset = resolve.dataset_of(chosen)
        if notice := fetch(chosen, fetched(chosen.backend)):  # kernels that come from the network
            terminal.notice(notice)
    for warning in dataset.warnings(chosen.score_bytes):
        terminal.notice(f"warning: {warning}")
    text = dataset.scored("val", chosen.score_bytes)
    sizes = {split: {"documents": documents, "bytes": size} for split, (documents, size) in dataset.sizes().items()}
    facts = {"corpus": dataset.corpus, "vocabulary": dataset.tokenizer.vocabulary, "splits": sizes}
    if as_json:
        found = {"scored_bytes": text.bytes, "yardstick": text.yardstick, "left_out": dataset.left_out}
        terminal.json_text({**facts, **found})
        return
    if dataset.left_out:
        terminal.say(f"left out: {dataset.left_out}")
    for split, size in sizes.items():
        terminal.say(f"{split:5}  {size['documents']:>9,} documents  {count(size['bytes'])}B")
    terminal.say(f"{dataset.corpus}, vocabulary {facts['vocabulary']}: ready; a score covers {count(text.bytes)}B")
