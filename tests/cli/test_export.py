"""`autoresearch export`: a folder that works where autoresearch is not installed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import isolated
import numpy as np
import pytest
import yaml
from campaigns import ScriptedAgent, Steps
from command import call
from support import PRESET

from core.campaign import models
from core.campaign.campaign import Campaign
from core.data import prepare
from core.trainer.reference import reference_trainer
from core.trial.sampling import SamplingParams, generate

hf = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers is not installed: make setup")
FILES = """README.md facts.json model.py model.safetensors preset.toml requirements.txt results.tsv tokenizer.json
    tokenizer_config.json train.py""".split()
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Made:
    """Makes a campaign whose baseline is the numpy trainer with `old` replaced, and returns its folder."""
    preset = dataclasses.replace(PRESET, corpus=f"folder:{corpus_folder}", vocabulary=300, seeds=(1,))

    def make(text: str = "") -> Path:
        root = tmp_path_factory.mktemp("campaign") / "night"
        with Campaign.create(root, preset, trainer=text or reference_trainer(preset), engine=Steps()) as campaign:
            campaign.run(ScriptedAgent([]), experiments=0)
        return root

    return make


@pytest.fixture(scope="module")
def night(made: Made) -> Path:
    return made("")


@pytest.fixture(scope="module")
def model(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    told = call("export", folder, "--dir", night, "--json").json
    assert (told["files"], told["warnings"], told["experiment"]) == (FILES, [], 0)
    status = call("status", night, "--json").json
    assert (told["val_bpb"], told["deviation"]) == (status["champion_bpb"], status["champion_deviation"])
    assert told["deviation"] > 0
    return folder


def test_the_folder_holds_what_its_card_says(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == FILES
    card = (model / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["tags"] == ["autoresearch", "numpy"] and facts["pipeline_tag"] == "text-generation"
    believed, own = facts["model-index"][0]["results"][0]["metrics"]
    score, _, half = body.split(" bits per byte")[0].split()[-3:]
    assert believed["value"] == pytest.approx(float(score), abs=1e-4)
    assert believed["name"] == f"bits per byte of the trainer, +- {half} (95 %)"
    assert own["name"] == "bits per byte of these weights, seed 1"
    assert f"These weights alone score {own['value']:.4f}" in body
    assert (model / "results.tsv").read_text(encoding="utf-8").splitlines()[0].endswith("\tval_bpb_95")
    assert all(f"`{name}`" in body for name in FILES if name != "README.md")
    assert "pip install -r requirements.txt" in body and "python model.py" in body
    lines = (model / "requirements.txt").read_text(encoding="utf-8").split()
    assert [line.partition(">=")[0] for line in lines] == ["numpy", "safetensors", "tokenizers"]


def test_its_tokenizer_gives_our_ids(model: Path, corpus_folder: Path) -> None:
    ours = models.open_exported(model)[0]
    theirs = hf.Tokenizer.from_file(str(model / "tokenizer.json"))
    for path in sorted(corpus_folder.glob("*/*.txt"))[:20]:
        text = path.read_bytes().decode()
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert theirs.token_to_id(config["bos_token"]) == ours.bos == 299


def test_it_loads_and_generates_without_autoresearch(model: Path) -> None:
    tokens = np.random.default_rng(2).integers(0, 300, (2, 32), np.int32)
    np.save(model.parent / "tokens.npy", tokens)
    code = (
        "import numpy as np, sys\n"
        "from model import load\n"
        "model = load()\n"
        "np.save(sys.argv[2], model.logits(np.load(sys.argv[1])))\n"
        "print(''.join(model.generate('The ', length=30, temperature=0.9, seed=3)), end='')\n"
        "assert not {'core', 'backends', 'presets'} & {*sys.modules}\n"
    )
    text = isolated.run(code, model, model.parent / "tokens.npy", model.parent / "logits.npy")
    tokenizer, opened = models.open_exported(model)
    places = np.array([(row, time) for row in range(2) for time in range(32)], np.int32)
    with opened as ours:
        expected = ours.logits(tokens, places).reshape(2, 32, 300)
        np.testing.assert_array_equal(np.load(model.parent / "logits.npy"), expected)
        params = SamplingParams(length=30, temperature=0.9, seed=3)
        assert text == "".join(generate(ours, tokenizer, "The ", params)).rstrip("\ufffd")  # half a character
    run = "import runpy\nsys.argv = ['model.py', '--prompt', 'A', '--length', '5']\n"
    printed = isolated.run(run + "runpy.run_path('model.py', run_name='__main__')", model)
    assert printed.startswith("A") and printed.endswith("\n")


def test_a_trainer_that_cannot_be_cut_out_is_exported_with_a_warning(made: Made, tmp_path: Path) -> None:
    old, new = "log_probabilities(weights", 'globals()["log_" + "probabilities"](weights'
    text = reference_trainer(PRESET)
    assert old in text
    root = made(text.replace(old, new))
    answer = call("export", tmp_path / "model", "--dir", root)
    assert answer.err.count("warning: no model.py: ") == 1 and "taken out of autoresearch, train.py fails" in answer.err
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {*FILES} - {"model.py", "requirements.txt"}
    assert "needs it" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert call("sample", "--model", tmp_path / "model", "--length", 5).out


def test_a_folder_from_before_it_had_a_model_py_still_opens(model: Path, night: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("train.py", "facts.json", "preset.toml"):
        (old / name).write_bytes((model / name).read_bytes())
    (old / "weights.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    with Campaign.open(night) as campaign:
        prepare(campaign.preset.corpus, 300).tokenizer.save(old / "tokenizer.json")
    arguments = ("--prompt", "The ", "--length", 20, "--seed", 4)
    assert call("sample", "--model", old, *arguments).out == call("sample", "--model", model, *arguments).out
