"""A campaign's folder: the paths in it, and how a new one is made so that a kill leaves none half made.

The root is the work tree; all state is under .git/autoresearch/.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import presets
from core.records import FACTS, LOSSES, PROGRAM, TRAINER, VAL_BPB, WEIGHTS, Experiment, Preset, UserError, to_json
from core.store.ledger import Ledger
from core.system.files import os_errors_as_user_errors, user_path
from core.system.text import one_line

BRANCH = "autoresearch/"
_PARTIAL = ".autoresearch-partial"
# How far `campaigns_below` looks: folders under folders, and entries of each.
_LEVELS, _MOST_ENTRIES = 2, 200


@dataclass(frozen=True)
class CampaignFolder:
    """The paths of a campaign whose work tree is `root`."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / ".git" / "autoresearch"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.db"

    @property
    def preset(self) -> Path:
        return self.state / "preset.toml"

    @property
    def program(self) -> Path:
        return self.root / PROGRAM

    def experiment(self, number: int) -> Path:
        return self.state / "experiments" / str(number)

    def trial(self, number: int, trial: int) -> Path:
        return self.experiment(number) / str(trial)

    def trial_with(self, experiment: Experiment, seed: int) -> Path | None:
        """The folder of the experiment's trial with that seed; None if it had none."""
        places = (place for place, trial in enumerate(experiment.trials) if trial.seed == seed)
        return next((self.trial(experiment.number, place) for place in places), None)

    def trainer(self, number: int) -> Path:
        """The trainer that the experiment's trials run; kept beside the weights of champions."""
        return self.experiment(number) / "trainer" / TRAINER

    def measurements(self, purpose: str, series: int) -> Path:
        """Trials that are no experiment's: a subfolder each, and the trainers that they ran."""
        return self.state / "measurements" / purpose / str(series)

    def measurement(self, purpose: str, series: int, role: str, seed: int, attempt: int) -> Path:
        """The folder of one of these trials, the `attempt`th of its role and seed, from 0."""
        return self.measurements(purpose, series) / (f"{role}-{seed}" + (f"-{attempt}" if attempt else ""))

    @property
    def activity(self) -> Path:
        """What the process that writes to the campaign is doing."""
        return self.state / "activity.json"

    def job(self, job: str) -> Path:
        """The file with what a `try --detach` prints."""
        return self.state / "detached" / f"{job}.txt"

    @property
    def agents(self) -> Path:
        """What agents keep: transcripts, requests and replies."""
        return self.state / "agents"

    def exists(self) -> bool:
        return self.ledger.exists()

    def secure_weights(self, number: int) -> None:
        """Flushes an experiment's weights and facts to the disk, before a row says that they are kept."""
        for weights in self.experiment(number).glob(f"*/{WEIGHTS}"):
            for path in (weights, weights.with_name(FACTS)):
                with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
                    os.fsync(file.fileno())

    def drop_weights(self, number: int) -> None:
        """Removes weights, losses and the trainer's copy of an experiment that did not become champion."""
        for name in (WEIGHTS, LOSSES):
            for path in self.experiment(number).glob(f"*/{name}"):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.trainer(number).parent, ignore_errors=True)


def create(
    root: str | Path, preset: Preset, tag: str | None, program: str, trainer: str, policy: str
) -> CampaignFolder:
    """Makes a campaign in `root`, which may be missing, empty, or hold what a killed call left.

    `policy` is the judge's name and version, which the campaign keeps. All of it is built in a folder beside and
    appears by one rename. Raises UserError if `root` holds anything else.
    """
    from core.store.repository import Repo  # GitPython takes a quarter of a second to import

    folder = CampaignFolder(_path(root))
    _refuse_occupied(folder)
    partial = folder.root / _PARTIAL
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    tag = tag or datetime.now().astimezone().strftime("%Y-%m-%d")
    files = {PROGRAM: program, TRAINER: trainer}
    repo = Repo.create(partial, BRANCH + tag, files, f"Campaign {tag}: preset {preset.name}")
    repo.close()
    aside = CampaignFolder(partial)
    aside.experiment(0).parent.mkdir(parents=True)
    _write_frozen(aside.preset, aside.ledger, preset, tag, policy)
    for name, text in files.items():
        (partial / name).write_text(text, encoding="utf-8", newline="\n")
    for name in files:
        (partial / name).replace(folder.root / name)
    (partial / ".git").replace(folder.root / ".git")
    partial.rmdir()
    return folder


def existing(root: str | Path) -> CampaignFolder:
    """The campaign in `root`. Raises UserError, with the command that makes one, if there is none."""
    folder = CampaignFolder(_path(root))
    with os_errors_as_user_errors(folder.ledger), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        folder.ledger.stat()  # a folder that can't be read does not look like one without a campaign
    if not folder.exists():
        if folder.state.is_dir():
            raise UserError(f"{folder.ledger} is missing; restore it from a copy of the campaign's folder")
        if elsewhere := _records_elsewhere(folder.root):
            raise UserError(elsewhere)
        what = "is a git repository, but no campaign" if (folder.root / ".git").exists() else "holds no campaign"
        raise UserError(f"{root} {what}; make one with: autoresearch init DIR --preset NAME")
    partial = folder.root / _PARTIAL
    if partial.is_dir():
        shutil.rmtree(partial)
    return folder


def _records_elsewhere(root: Path) -> str:
    """Where the records are, if `root` is a worktree or a clone of a campaign, which git gives none; else empty."""
    git, ours = root / ".git", f"/{BRANCH}"
    try:
        if git.is_file():
            worktree = root / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
            common = (worktree / (worktree / "commondir").read_text(encoding="utf-8").strip()).resolve()
            if not is_campaign(common.parent):
                return ""
            return f"{root} is a worktree of the campaign in {common.parent}, where its records are: name that folder"
        config, packed = (git / "config").read_text(encoding="utf-8"), git / "packed-refs"
        refs = [path.as_posix() for path in (git / "refs").rglob("*")]
        refs += packed.read_text(encoding="utf-8").split() if packed.exists() else []
    except (OSError, ValueError):
        return ""
    url = re.search(r"^\s*url\s*=\s*(.+)$", config, re.MULTILINE)
    if url is None or not any(ours in f"{name}/" for name in refs):
        return ""
    return (
        f"{root} is a clone of a campaign, and its records stayed in the folder that it was cloned from, "
        f"{one_line(url[1])}: name that one, or copy it whole, with its .git"
    )


def is_campaign(root: Path) -> bool:
    """Whether `root` is a campaign's, even one that lost its ledger."""
    return CampaignFolder(root).state.is_dir()


def root_around(folder: Path) -> Path | None:
    """The nearest of `folder` and the folders above it that is a campaign's root; None if none is."""
    return next((path for path in (folder, *folder.parents) if is_campaign(path)), None)


def campaigns_below(root: Path, levels: int = _LEVELS) -> list[Path]:
    """The campaigns in the folders below `root`, by name. Does not look into a campaign, a link or a hidden folder."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for path in sorted(root.iterdir())[:_MOST_ENTRIES]:
            if path.name.startswith(".") or path.is_symlink() or not path.is_dir():
                continue
            if is_campaign(path):
                found.append(path)
            elif levels > 1:
                found += campaigns_below(path, levels - 1)
    return found


def refreeze(folder: CampaignFolder, preset: Preset, tag: str, policy: str) -> None:
    """Freezes a campaign without an experiment with another preset; trials of its baseline go.

    For the holder of the lock, with the ledger closed. The new ledger's appearance is what counts: a kill before it
    changes nothing, and `read_preset` finishes what a kill behind it cut off.
    """
    preset_path, ledger_path = _next(folder.preset), _next(folder.ledger)
    ledger_path.unlink(missing_ok=True)
    _write_frozen(preset_path, ledger_path, preset, tag, policy)
    ledger_path.replace(folder.ledger)
    preset_path.replace(folder.preset)
    shutil.rmtree(folder.experiment(0), ignore_errors=True)


def _write_frozen(preset_path: Path, ledger_path: Path, preset: Preset, tag: str, policy: str) -> None:
    """The preset, and a new ledger that holds its hash and what verdicts rest on."""
    frozen = presets.dump(preset).encode()
    preset_path.write_bytes(frozen)
    facts = {
        "tag": tag,
        "preset": hashlib.sha256(frozen).hexdigest(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "policy": policy,
        "metric": json.dumps(to_json(VAL_BPB)),
    }
    Ledger.create(ledger_path, facts).close()


def _next(path: Path) -> Path:
    return path.with_name(f"next-{path.name}")


def _path(root: str | Path) -> Path:
    return user_path(root, "the campaign's folder").absolute() if isinstance(root, str) else root.absolute()


def read_preset(folder: CampaignFolder, facts: dict[str, str]) -> Preset:
    """The frozen preset. Raises UserError if it was edited since the campaign was founded."""
    following = _next(folder.preset)
    if following.exists() and hashlib.sha256(following.read_bytes()).hexdigest() == facts.get("preset"):
        following.replace(folder.preset)  # `refreeze` was cut off
    try:
        raw = folder.preset.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{folder.preset} is missing; restore it from a copy of the campaign's folder") from None
    if hashlib.sha256(raw).hexdigest() != facts.get("preset"):
        raise UserError(
            f"{folder.preset} was changed after the campaign began, so its scores could not be compared; "
            "restore it, or start a new campaign with: autoresearch init DIR --preset NAME --set KEY=VALUE"
        )
    return presets.parse(raw.decode("utf-8"))


def _refuse_occupied(folder: CampaignFolder) -> None:
    if folder.exists():
        raise UserError(f"{folder.root} is a campaign already; go on with it: autoresearch run {folder.root}")
    if folder.root.exists() and not folder.root.is_dir():
        raise UserError(f"{folder.root} is a file; a campaign needs a folder of its own")
    if (folder.root / ".git").exists():
        raise UserError(f"{folder.root} is a git repository already; a campaign has its own: name a new folder")
    partial = folder.root / _PARTIAL
    # A killed call may have moved these two out of its folder already: they are written again.
    ours = {_PARTIAL} | ({PROGRAM, TRAINER} if CampaignFolder(partial).exists() else set())
    if folder.root.exists() and (
        others := sorted(path.name for path in folder.root.iterdir() if path.name not in ours)
    ):
        shown = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        raise UserError(f"expected a new or empty folder; {folder.root} has {shown}: name another one")
