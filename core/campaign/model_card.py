"""What goes with an exported model beside its weights: the frame of model.py, what to install, and the card."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

import yaml

from core.records import Experiment, Trial
from core.system.text import bpb, half_width, one_line

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign

HEADER = '''"""The model that the trainer beside this file made; it needs what requirements.txt lists.

    python model.py --prompt "The"

    from model import load
    model = load()
    print("".join(model.generate("The")))
    model.logits([[1, 2, 3]])  # ids [B, T] -> float32 [B, T, vocabulary]
"""

'''
# The imports say where the parts come from; `core.trainer.standalone` puts the parts in their place.
ENTRY = '''
from pathlib import Path

from backends.{backend}.backend import to_device, to_numpy
from core.campaign.exported_model import ExportedModel
from train import restore


def load(folder: str | Path = Path(__file__).parent, device: str | None = None) -> ExportedModel:
    """The model in `folder`; on the device that it was trained on, or on the CPU if that isn't here."""
    return ExportedModel(restore, to_device, to_numpy, Path(folder), device)


if __name__ == "__main__":
    ExportedModel.command_line(load)
'''
# What reads the weights and the tokenizer, which model.py imports late.
WEIGHTS, TOKENIZER = "safetensors", "tokenizers"
LEAST_TOKENIZERS = ">=0.21"

CARD = """---
{front}---

# {title}

{score} bits per byte on the validation text of `{corpus}` (yardstick `{yardstick}`), after {steps:,} steps and
{seconds:.0f} s of training with seed {seed} on {device}. {parameters}{believed}Experiment {number}: {hypothesis}
{confirmed}
{use}
| file | what it is |
|---|---|
| `model.safetensors` | the weights, by name |
{model}| `train.py` | the trainer that made them, for autoresearch |
| `facts.json` | vocabulary, context and device that `restore` gets |
| `tokenizer.json`, `tokenizer_config.json` | the tokenizer, for `tokenizers` and `transformers` |
| `preset.toml` | the numbers that the campaign was frozen with |
| `results.tsv` | every experiment of the campaign |

It was trained to compare trainers, on little text and for a short time. Where autoresearch is installed:
`autoresearch sample --model . --prompt "The"`.
"""

BELIEVED = """These weights alone score {score}: the number before is what their trainer is believed to reach
with any seed, and its 95 % interval. """
USE = """Install what it needs, and let it write:

    pip install -r requirements.txt
    python model.py --prompt "The"

From Python, in this folder:

    from model import load

    model = load()  # on the device that it was trained on, or the CPU; load(device=...) names one
    print("".join(model.generate("The", length=100, temperature=0.8, seed=0)))
    model.logits([[model.facts.bos, 1, 2]])  # ids [B, T] -> float32 logits [B, T, {vocabulary}]
"""
NO_USE = """`train.py` can't be taken out of autoresearch, so this model needs it: see the last line below.
"""
MODEL_ROWS = """| `model.py` | the model alone, as one file |
| `requirements.txt` | the packages that it needs |
"""


def requirements(model: str, backend: str) -> list[str]:
    """The packages that the text of a model.py imports, as lines for pip; none for an empty text."""
    if not model:
        return []
    known = {**_of_autoresearch(""), **_of_autoresearch(backend), TOKENIZER: [TOKENIZER + LEAST_TOKENIZERS]}
    return [line for name in sorted({*_imported(model), WEIGHTS, TOKENIZER}) for line in known.get(name, [name])]


def card(campaign: Campaign, experiment: Experiment, record: Trial, *, standalone: bool) -> str:
    """The model's README.md, with front matter as model hubs read it. The experiment's score is that believed now."""
    known = campaign.confirmation()
    confirmed = known is not None and known.champion == experiment.number
    return CARD.format(
        front=yaml.safe_dump(_front_matter(campaign, experiment, record), sort_keys=False, allow_unicode=True),
        title=f"{campaign.name}: experiment {experiment.number}",
        score=bpb(experiment.val_bpb, experiment.deviation),
        corpus=campaign.preset.corpus,
        yardstick=record.yardstick[:12],
        steps=record.steps,
        seconds=record.train_seconds,
        seed=record.seed,
        device=f"`{record.device}` ({record.backend})",
        believed="" if experiment.deviation is None else BELIEVED.format(score=bpb(record.val_bpb)),
        parameters="" if record.parameters is None else f"{record.parameters:,} parameters. ",
        number=experiment.number,
        hypothesis=one_line(experiment.hypothesis),
        confirmed=f"\nAgainst the baseline: {known.line}.\n" if known is not None and confirmed else "",
        use=USE.format(vocabulary=record.vocabulary) if standalone else NO_USE,
        model=MODEL_ROWS if standalone else "",
    )


def _front_matter(campaign: Campaign, experiment: Experiment, record: Trial) -> dict[str, Any]:
    """Its metric is the belief, where there is one; what these weights alone score stands behind it."""
    metrics = [{"type": "bits_per_byte", "name": "bits per byte", "value": record.val_bpb}]
    if (half := half_width(experiment.deviation)) is not None:
        name = f"bits per byte of the trainer, +- {half:.4f} (95 %)"
        metrics[0]["name"] = f"bits per byte of these weights, seed {record.seed}"
        metrics.insert(0, {"type": "bits_per_byte", "name": name, "value": experiment.val_bpb})
    result = {
        "task": {"type": "text-generation"},
        "dataset": {"type": campaign.preset.corpus.partition(":")[0], "name": campaign.preset.corpus},
        "metrics": metrics,
    }
    return {
        "tags": ["autoresearch", record.backend],
        "pipeline_tag": "text-generation",
        "model-index": [{"name": campaign.name, "results": [result]}],
    }


def _imported(model: str) -> Iterator[str]:
    """Packages outside the standard library that it imports at its top level."""
    for node in ast.parse(model).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module]
        for top in (name.partition(".")[0] for name in names):
            if top not in sys.stdlib_module_names:
                yield top


def _of_autoresearch(extra: str) -> dict[str, list[str]]:
    """What autoresearch itself, or one of its extras, requires: lines for pip by package."""
    found: dict[str, list[str]] = {}
    try:
        lines = metadata.requires("autoresearch") or ()
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        lines = ()
    for line in lines:
        requirement, _, marker = line.partition("; ")
        own = re.search(r"extra == ['\"](.*?)['\"]", marker)
        if (own.group(1) if own else "") != extra:
            continue
        marker = re.sub(r"( and )?extra == ['\"].*?['\"]", "", marker).strip()
        package = re.match(r"[\w.-]+", requirement)
        assert package is not None
        found.setdefault(package.group(), []).append(f"{requirement}; {marker}" if marker else requirement)
    return found
