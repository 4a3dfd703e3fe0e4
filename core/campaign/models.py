"""The models that a campaign kept: opening one, and exporting it to a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import presets
from core.campaign import results_tsv
from core.campaign.campaign import Campaign
from core.data.tokenizer import Tokenizer
from core.records import FACTS, TRAINER, WEIGHTS, Experiment, UserError
from core.store.reader import CampaignReader
from core.system.files import file_sha256, read_text, refuse_occupied
from core.system.text import bpb, one_line
from core.trial.model import Model, open_model
from core.trial.spec import read_facts

OpenModel = AbstractContextManager[Model]
TOKENIZER, PRESET, RESULTS = "tokenizer.json", "preset.toml", "results.tsv"

README = """# {title}

{score} bits per byte on the validation text of `{corpus}` (yardstick `{yardstick}`), after {steps} steps and
{seconds:.0f} s of training with seed {seed} on {device}. Experiment {number}: {hypothesis}
{confirmed}
| file | what it is |
|---|---|
| `weights.safetensors` | the weights, by name |
| `train.py` | the trainer that made them; its `restore(weights, facts)` gives the model |
| `facts.json` | the facts that `restore` gets: vocabulary, context, device |
| `tokenizer.json` | the ids' bytes, in the order of their merges |
| `preset.toml` | the numbers that the campaign was frozen with |
| `results.tsv` | every experiment of the campaign |

Text from it, where autoresearch is installed:

    autoresearch sample --model . --prompt "The"

From Python, in this folder:

    import json
    from safetensors.numpy import load_file
    from core.records import Facts, from_json
    import train

    facts = from_json(Facts, json.load(open("facts.json")))
    logits = train.restore(load_file("weights.safetensors"), facts)  # logits(tokens [B, T]) -> [B, T, vocabulary]
"""


def weights_of(campaign: CampaignReader, experiment: Experiment) -> Path:
    """The trial folder that holds the experiment's weights, which are those that were scored.

    UserError if there are none, because only kept ones have them, or if they are not what the record says.
    """
    for weights in sorted(campaign.folder(experiment.number).glob(f"*/{WEIGHTS}")):
        trial = int(weights.parent.name)
        recorded = experiment.trials[trial].weights_sha256 if trial < len(experiment.trials) else None
        if recorded is not None and file_sha256(weights) != recorded:
            number = experiment.number
            raise UserError(
                f"{weights} is damaged: its SHA-256 is not {recorded[:12]}..., which was recorded; restore it from a "
                f"copy of the campaign's folder, or train it again: autoresearch show {number} train.py > again.py, "
                "then autoresearch train --trainer again.py --out FOLDER"
            )
        return weights.parent
    raise UserError(
        f"experiment {experiment.number} ({experiment.verdict}) has no weights: what is not kept leaves none. "
        "`autoresearch log` shows which are kept"
    )


def open_kept(campaign: CampaignReader, experiment: Experiment) -> OpenModel:
    """The model of a kept experiment, restored in a process of its own. UserError if it has no weights."""
    trial = weights_of(campaign, experiment)
    return open_model(campaign.trainer_text(experiment.commit), trial / WEIGHTS, read_facts(trial), campaign.preset)


def open_exported(folder: Path) -> tuple[Tokenizer, OpenModel]:
    """The tokenizer and the model in a folder that `export` wrote. UserError if there is none."""
    folder = folder.resolve()  # the model's process has a current folder of its own
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    if tokenizer is None:
        raise UserError(f"no model in {folder}: `autoresearch export FOLDER` in a campaign's folder writes one")
    preset = presets.parse(read_text(folder / PRESET))
    return tokenizer, open_model(read_text(folder / TRAINER), folder / WEIGHTS, read_facts(folder), preset)


def export(campaign: Campaign, experiment: Experiment, tokenizer: Tokenizer, into: Path) -> None:
    """Writes the model of a kept experiment to `into`, a new or empty folder. It appears whole or not at all."""
    refuse_occupied(into, "a model")
    trial = weights_of(campaign, experiment)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as temporary:
        aside = Path(temporary) / into.name
        aside.mkdir()
        shutil.copyfile(trial / WEIGHTS, aside / WEIGHTS)
        shutil.copyfile(trial / FACTS, aside / FACTS)
        _write(aside / TRAINER, campaign.trainer_text(experiment.commit))
        tokenizer.save(aside / TOKENIZER)
        _write(aside / PRESET, presets.dump(campaign.preset))
        _write(aside / RESULTS, results_tsv.results(campaign.experiments()))
        _write(aside / "README.md", _readme(campaign, experiment, int(trial.name)))
        if into.exists():
            into.rmdir()
        aside.replace(into)


def _readme(campaign: Campaign, experiment: Experiment, trial: int) -> str:
    record = experiment.trials[trial]
    known = campaign.confirmation()
    return README.format(
        title=f"{campaign.root.name}: experiment {experiment.number}",
        score=bpb(record.val_bpb),
        corpus=campaign.preset.corpus,
        yardstick=record.yardstick[:12],
        steps=record.steps,
        seconds=record.train_seconds,
        seed=record.seed,
        device=record.device,
        number=experiment.number,
        hypothesis=one_line(experiment.hypothesis),
        confirmed=f"\nAgainst the baseline: {known.line}.\n"
        if known is not None and known.champion == experiment.number
        else "",
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
