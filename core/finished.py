"""Finished records as entries of a comparison: campaigns, folders of kept trials, files that --json was written to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.asked import RECORD
from core.compare import Entry
from core.records import Trial, UserError, from_json
from core.views import show

ROWS = "rows.json"  # in the folder that `compare --out` writes


def read(paths: Sequence[Path]) -> list[Entry]:
    """Entries from what lies there: campaigns (their champions), folders of kept trials, files of JSON records."""
    found = [entry for path in paths for entry in _read(path)]
    names = [entry.name for entry in found]
    return [
        dataclasses.replace(entry, name=f"{entry.name} #{names[:place].count(entry.name) + 1}")
        if names.count(entry.name) > 1
        else entry
        for place, entry in enumerate(found)
    ]


def _read(path: Path) -> list[Entry]:
    if (path / ".git" / "autoresearch").is_dir():
        from core.campaign import Campaign

        with Campaign.open(path) as campaign:
            champion = campaign.champion()
            corpus = campaign.preset.corpus
            trials = tuple(
                trial if trial.corpus else dataclasses.replace(trial, corpus=corpus) for trial in champion.trials
            )
            curves = tuple(show.points(folder) for folder in show.trials(campaign.folder(champion.number)))
        return [Entry(name=f"{path.resolve().name} ({champion.number})", trials=trials, curves=curves)]
    if path.is_dir():
        if (path / ROWS).is_file():
            return _read(path / ROWS)
        if (path / RECORD).is_file():
            trial = from_json(Trial, _json(path / RECORD)[0])
            return [Entry(name=path.resolve().name, trials=(trial,), curves=(show.points(path),))]
        raise UserError(f"{path} is no campaign and holds no {RECORD} or {ROWS}: name what run, train or compare wrote")
    return _grouped(_json(path))


def _json(path: Path) -> list[Any]:
    """The objects in a file: one, an array of them, or one a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    try:
        whole = json.loads(text)
    except ValueError:
        try:
            whole = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise UserError(f"{path} holds no JSON: name what train --json or compare --json printed") from None
    return whole if isinstance(whole, list) else [whole]


def _grouped(objects: Sequence[Any]) -> list[Entry]:
    """Rows of `compare` as they are; records of trials that differ in their seeds alone as one entry."""
    entries: list[Entry] = []
    lone: dict[tuple[Any, ...], list[Trial]] = {}
    for one in objects:
        if not isinstance(one, dict):
            raise UserError(f"a record is a JSON object, not {one!r}")
        if "trials" in one:
            trials = tuple(from_json(Trial, trial) for trial in one["trials"])
            entries.append(Entry(name=str(one.get("name", trials[0].backend)), trials=trials))
            continue
        trial = from_json(Trial, one)
        key = (trial.preset, trial.backend, trial.device, trial.budget_seconds, trial.budget_steps, trial.yardstick)
        lone.setdefault(key, []).append(trial)
    for key, trials_of in lone.items():
        entries.append(Entry(name=f"{key[0]} on {key[1]}", trials=tuple(trials_of)))
    return entries
