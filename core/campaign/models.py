"""The models that a campaign kept: opening one, and exporting it to a folder of its own."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

import presets
from core.campaign import model_card, results_tsv
from core.campaign.campaign import Campaign
from core.data.huggingface import BOS, from_huggingface, to_huggingface
from core.data.tokenizer import Tokenizer
from core.records import FACTS, TRAINER, WEIGHTS, Experiment, Trial, UserError
from core.store.reader import CampaignReader
from core.system import scratch
from core.system.files import file_sha256, read_json, read_text, refuse_occupied
from core.system.text import one_line
from core.trainer.standalone import NotStandaloneError, standalone
from core.trial.model import Model, open_model
from core.trial.spec import read_facts

OpenModel = AbstractContextManager[Model]
MODEL_WEIGHTS, MODEL, CARD, REQUIREMENTS = "model.safetensors", "model.py", "README.md", "requirements.txt"
TOKENIZER, TOKENIZER_CONFIG, PRESET, RESULTS = "tokenizer.json", "tokenizer_config.json", "preset.toml", "results.tsv"
LOGITS_TOLERANCE = 1e-2  # between two runs of one model, in nats; bfloat16 on a GPU may add up in another order


def weights_of(campaign: CampaignReader, experiment: Experiment) -> Path:
    """The trial folder that holds the experiment's weights, which are those that were scored.

    UserError if it was not kept, if they were deleted since, or if they are not what the record says.
    """
    number, folder = experiment.number, campaign.folder(experiment.number)
    again = (
        "restore it from a copy of the campaign's folder, or train it again: autoresearch show "
        f"{number} train.py > again.py, then autoresearch train --trainer again.py --out FOLDER"
    )
    for weights in sorted(folder.glob(f"*/{WEIGHTS}")):
        trial = int(weights.parent.name)
        recorded = experiment.trials[trial].weights_sha256 if trial < len(experiment.trials) else None
        if recorded is not None and file_sha256(weights) != recorded:
            raise UserError(f"{weights} is damaged: its SHA-256 is not {recorded[:12]}..., which was recorded; {again}")
        return weights.parent
    if experiment.verdict == "keep":
        raise UserError(f"experiment {number} was kept, and its {folder / '0' / WEIGHTS} was deleted since; {again}")
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
    # The second is how folders were written before they had a model.py.
    tokenizer = from_huggingface(read_json(folder / TOKENIZER) or {}) or Tokenizer.load(folder / TOKENIZER)
    if tokenizer is None:
        raise UserError(f"no model in {folder}: `autoresearch export FOLDER` in a campaign's folder writes one")
    preset = presets.parse(read_text(folder / PRESET))
    weights = folder / MODEL_WEIGHTS
    weights = weights if weights.exists() else folder / WEIGHTS
    return tokenizer, open_model(read_text(folder / TRAINER), weights, read_facts(folder), preset)


def export(campaign: Campaign, experiment: Experiment, tokenizer: Tokenizer, into: Path) -> list[str]:
    """Writes the model of a kept experiment to `into`, a new or empty folder. It appears whole or not at all.

    Returns warnings: what of it may not work where autoresearch is not installed, and why.
    """
    refuse_occupied(into, "a model")
    trial = weights_of(campaign, experiment)
    trainer = campaign.trainer_text(experiment.commit)
    model, warnings = _standalone(campaign, trainer, trial)
    record = experiment.trials[int(trial.name)]
    texts = {
        TRAINER: trainer,
        MODEL: model,
        REQUIREMENTS: "".join(f"{one}\n" for one in model_card.requirements(model, record.backend)),
        TOKENIZER: json.dumps(to_huggingface(tokenizer), indent=1, ensure_ascii=False) + "\n",
        TOKENIZER_CONFIG: json.dumps(_tokenizer_config(record), indent=1) + "\n",
        PRESET: presets.dump(campaign.preset),
        RESULTS: results_tsv.results(map(campaign.ledger.believed, campaign.experiments())),
        CARD: model_card.card(campaign, experiment, record, standalone=bool(model)),
    }
    into.parent.mkdir(parents=True, exist_ok=True)
    for left in scratch.abandoned(into.parent):
        scratch.remove(left)
    with scratch.folder(into.parent) as temporary:
        aside = temporary / into.name
        aside.mkdir()
        shutil.copyfile(trial / WEIGHTS, aside / MODEL_WEIGHTS)
        shutil.copyfile(trial / FACTS, aside / FACTS)
        for name, text in texts.items():
            if text:
                (aside / name).write_text(text, encoding="utf-8", newline="\n")
        if into.exists():
            into.rmdir()
        aside.replace(into)
    return warnings


def _standalone(campaign: Campaign, trainer: str, trial: Path) -> tuple[str, list[str]]:
    """The text of model.py, empty if there can be none, and warnings. Its logits are held against the trainer's."""
    facts = read_facts(trial)
    try:
        text = model_card.HEADER + standalone(model_card.ENTRY.format(backend=facts.backend), trainer)
    except NotStandaloneError as error:
        return "", [f"no {MODEL}: {TRAINER} can't be taken out of autoresearch: {error}"]
    tokens_BT = np.random.default_rng(0).integers(0, facts.vocabulary, (1, facts.sequence_length), np.int32)
    positions_N2 = np.array([[0, 0], [0, facts.sequence_length - 1]], np.int32)

    def logits(text: str) -> np.ndarray:
        with open_model(text, trial / WEIGHTS, facts, campaign.preset) as opened:
            return opened.logits(tokens_BT, positions_N2)

    try:
        expected_NV = logits(trainer)
    except UserError as error:
        return text, [f"{MODEL} was not checked, because the model can't be restored here: {one_line(str(error))}"]
    try:
        difference = float(np.abs(logits(text) - expected_NV).max())
    except UserError as error:
        return "", [f"no {MODEL}: taken out of autoresearch, {TRAINER} fails: {one_line(str(error))}"]
    if difference > LOGITS_TOLERANCE:
        return "", [f"no {MODEL}: taken out of autoresearch, {TRAINER} gives logits that differ by {difference:.2g}"]
    return text, []


def _tokenizer_config(record: Trial) -> dict[str, object]:
    """What transformers needs beside tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "model_max_length": record.sequence_length,
        "clean_up_tokenization_spaces": False,
    }
