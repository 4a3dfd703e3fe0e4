"""Turns command-line options into presets, campaigns and data sets.

Prints nothing but progress and notices.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import presets
from core.cli import detached
from core.cli.options import to_type
from core.cli.render import terminal
from core.records import PROGRAM, Budget, Preset, Trial, UserError, to_json
from core.system.files import read_text

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign
    from core.data import Dataset

DEFAULT_PRESET, AUTO = "cpu", "auto"
MOST_NAMED = 8  # campaigns in one message


@dataclass(frozen=True, kw_only=True)
class PresetOptions:
    """The options that name a preset and change its values."""

    preset: str | None = None
    device: str | None = None
    settings: list[str] | None = None
    corpus: str | None = None
    budget: float | None = None

    def changes(self) -> dict[str, str]:
        """The changes to the preset: texts by its fields' names."""
        named = {"device": self.device, "corpus": self.corpus}
        named["budget_seconds"] = None if self.budget is None else repr(self.budget)
        given = {key: value for key, value in named.items() if value is not None}
        return {**presets.settings_from(self.settings or ()), **given}


def preset_for(options: PresetOptions) -> Preset:
    """The preset that the options name, with their changes; `cpu` if they name none."""
    name = options.preset
    if name is None:
        name = DEFAULT_PRESET
        terminal.notice(
            f"preset: {name} (the default; `autoresearch presets` lists others, --preset auto measures this machine)"
        )
    if name == AUTO:
        return presets.override(measured_preset(options.changes())[0], options.changes())
    return presets.load(name, options.changes())


def measured_preset(changes: Mapping[str, str], *, again: bool = False) -> tuple[Preset, str]:
    """The preset for this machine, measured unless that was done before, and the TOML that can be saved."""
    from core.measure import auto_preset

    return auto_preset.preset(changes, prepare=dataset_of, tell=terminal.notice, again=again)


def preset_here(options: PresetOptions, *folders: Path | None) -> Preset:
    """The preset that the options name, else that of the campaign here, with the options' changes."""
    if options.preset is not None or root_of(*folders) is None:
        return preset_for(options)
    with campaign_of(*folders) as campaign:
        return presets.override(campaign.preset, options.changes())


def root_of(*folders: Path | None) -> Path | None:
    """The campaign's root: the one of `folders` that was given, else this folder or the nearest above that is one.

    UserError if DIR and --dir name two.
    """
    from core.store.layout import root_around

    if len(given := {folder.absolute(): folder for folder in folders if folder is not None}) > 1:
        raise UserError(f"one campaign at a time: {' and '.join(map(str, given.values()))} were named")
    if given:
        return next(iter(given.values()))
    return root_around(Path.cwd())


def campaign_of(*folders: Path | None, tell: bool = True) -> Campaign:
    """The campaign in the folder that was given, or around here. UserError if there is none; names those below.

    With `tell`, a detached `try` that failed since the last command gets a notice.
    """
    from core.campaign.campaign import Campaign
    from core.store.layout import is_campaign

    root = root_of(*folders)
    if not is_campaign(root or Path.cwd()) and (hint := _below(root or Path.cwd())):
        raise UserError(
            f"{root or 'this folder'} holds no campaign{'' if root else ', nor does any above'}, but {hint}"
        )
    campaign = Campaign.open(root or Path.cwd())
    if tell:
        detached.tell_failure(campaign.files)
    return campaign


def _below(folder: Path) -> str:
    """Names the campaigns below `folder`, with this command for the first of them; empty if there is none."""
    from core.store.layout import campaigns_below

    if not (found := [os.path.relpath(path) for path in campaigns_below(folder)]):
        return ""
    # The folder is the first word behind the command, as `show night 3` has it.
    command, *words = sys.argv[1:]
    example = to_type(command, found[0], *(word for word in words if Path(word) != folder))
    shown = ", ".join(found[:MOST_NAMED]) + (f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else "")
    return f"there {'is one' if len(found) == 1 else 'are some'} below: {shown}. Name one: {example}"


def make_or_open(folder: Path | None, options: PresetOptions, like: Path | None = None) -> Campaign:
    """Opens the campaign in `folder`, or makes it. UserError if it exists and was frozen with other values.

    A new one gets the preset, the program and the baseline's trainer of the campaign in `like`, if that is given.
    """
    from core.campaign.campaign import Campaign
    from core.store.layout import is_campaign

    root = root_of(folder)
    if root is None:
        raise UserError(
            "there is no campaign here or above: name a folder for a new one, as in autoresearch run night --preset cpu"
            + (f"; {hint}" if (hint := _below(Path.cwd())) else "")
        )
    if not is_campaign(root):
        if like is not None and options.preset is None:
            with Campaign.open(like) as source:
                preset = presets.override(source.preset, options.changes())
                program = read_text(source.root / PROGRAM)
                trainer = source.text(0)
            return Campaign.create(root, preset, program=program, trainer=trainer)
        preset = preset_for(options)
        require(preset)
        return Campaign.create(root, preset)
    campaign = campaign_of(root)
    wanted = _wanted(campaign.preset, options)
    differ = [f"preset {options.preset}"] if wanted is None else _differences(campaign.preset, wanted)
    if len(campaign) == 0:
        if differ:
            campaign.close()
            _refreeze(root, wanted or preset_for(options), differ)
            campaign = campaign_of(root)
        require(campaign.preset)
    elif differ:
        campaign.close()
        raise UserError(
            f"the campaign in {root} is frozen with the values of preset {campaign.preset.name}; with "
            f"{', '.join(differ)} its scores could not be compared. Leave that out to resume it, or name another "
            "folder for a new campaign"
        )
    return campaign


def _wanted(frozen: Preset, options: PresetOptions) -> Preset | None:
    """What the options make of the frozen preset. A preset's file is taken by its content; None for another name."""
    name = options.preset
    if name is None or name == frozen.name:
        return presets.override(frozen, options.changes())
    return presets.load(name, options.changes()) if name.endswith(".toml") else None


def _differences(frozen: Preset, wanted: Preset) -> list[str]:
    """The values that two presets don't share, their names aside."""
    old, new = to_json(frozen), to_json(wanted)
    for values in (old, new):
        values.update(values.pop("constants"))
        del values["name"]
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} = {new.get(key)} (it has {old.get(key)})" for key in keys]


def _refreeze(root: Path, preset: Preset, differ: list[str]) -> None:
    """Gives a campaign without an experiment another preset, and says so."""
    from core.campaign.campaign import Campaign

    require(preset)
    follows = Campaign.refreeze(root, preset)
    trainer = "" if follows else "; train.py is your own and stays as it is"
    terminal.notice(f"{root} has no experiment yet, so it takes {', '.join(differ)}{trainer}")


def require(preset: Preset) -> None:
    """UserError where the preset's framework or its device is not here."""
    from core.trial import probe

    probe.require(preset)


def dataset_of(preset: Preset) -> Dataset:
    """The preset's corpus, prepared first if need be as the libraries are, with a progress bar."""
    from core.cli.render.live import Preparation
    from core.data import prepare
    from core.sandbox import janitor
    from core.trial.bytecode import compile_missing

    if removed := janitor.clean():
        terminal.notice(str(removed))
    with Preparation(terminal.err()) as bars:
        dataset = prepare(preset.corpus, preset.vocabulary, on_progress=bars, on_notice=terminal.notice)
        compile_missing(preset.backend, bars)
    return dataset


def run_with_bar(
    trainer: str, preset: Preset, *, budget: Budget, seed: int, into: Path | None = None, title: str = ""
) -> Trial:
    """Runs one trial outside the ledger with a progress bar, and prints the end of its output if it failed.

    `trainer` is the text of a train.py; `into` receives the trial's files and its record.
    """
    from core.cli.render.live import TrialBar
    from core.measure.lone_trial import lone_trial
    from core.trainer.check import check
    from core.trial.probe import require_before_data

    check(trainer)
    require_before_data(preset)
    dataset = dataset_of(preset)
    for warning in dataset.warnings(preset.score_bytes):
        terminal.notice(f"warning: {warning}")
    with TrialBar(terminal.err(), title) as bar:
        record, last_output = lone_trial(trainer, preset, dataset, budget=budget, seed=seed, into=into, on_progress=bar)
    sys.stderr.write(last_output)
    return record
