"""Reads finished records for a comparison: campaigns, folders of kept trials, files with the output of --json."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from core.measure.compare import Curve, Entry, check_yardsticks, ranked
from core.records import RECORD, SCHEMA_KEY, Trial, UserError, from_json, one_yardstick
from core.store import trial_files
from core.store.reader import CampaignReader
from core.system.files import parse_json, read_text

ROWS = "rows.json"  # in the folder that `compare --out` writes


def compare(*paths: Path | str, **trials: Trial | Sequence[Trial]) -> list[Entry]:
    """Campaigns, kept trials and named trials as entries, best first; an entry's `row()` is JSON.

    `paths` are those that `read` takes. A name stands for one trial, or for several with different seeds. UserError if
    their scores can't be compared.
    """
    entries = read([Path(path) for path in paths])
    for name, given in trials.items():
        entries.append(Entry(name=name, trials=(given,) if isinstance(given, Trial) else tuple(given)))
    if not entries:
        raise UserError("there is nothing to compare: name campaigns, kept trials or trials")
    check_yardsticks([entry.scored for entry in entries])
    return ranked(entries)


def read(paths: Sequence[Path]) -> list[Entry]:
    """Entries from campaigns (their champions), folders of kept trials and files of JSON records."""
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
        with CampaignReader.open(path) as campaign:
            champion = campaign.champion
            corpus = campaign.preset.corpus
            folders = trial_files.trials(campaign.folder(champion.number))
        counted = [place for place, trial in enumerate(champion.trials) if not trial.disturbed]
        trials = [champion.trials[place] for place in counted]
        return [
            Entry(
                name=f"{path.resolve().name} ({champion.number})",
                trials=tuple(one if one.corpus else dataclasses.replace(one, corpus=corpus) for one in trials),
                curves=tuple(trial_files.points(folders[place]) for place in counted if place < len(folders)),
                belief=_belief(champion.val_bpb, champion.deviation),
            )
        ]
    if path.is_dir():
        if (path / ROWS).is_file():
            kept = [
                (_lone(one), trial_files.points(one.parent)) for one in sorted((path / "trials").glob(f"*/{RECORD}"))
            ]
            return [_with_curves(entry, kept) for entry in _read(path / ROWS)]
        if (path / RECORD).is_file():
            trial = _lone(path / RECORD)
            return [Entry(name=path.resolve().name, trials=(trial,), curves=(trial_files.points(path),))]
        raise UserError(f"{path} is no campaign and holds no {RECORD} or {ROWS}: name what run, train or compare wrote")
    return _grouped(_json(path), path)


def _lone(path: Path) -> Trial:
    return _trial(next(iter(_json(path)), None), path)


def _with_curves(entry: Entry, kept: Sequence[tuple[Trial, Curve]]) -> Entry:
    """The entry with the curves of its trials, which were saved beside its row."""
    found = (next((curve for one, curve in kept if one == trial), []) for trial in entry.trials)
    return dataclasses.replace(entry, curves=tuple(found))


def _json(path: Path) -> list[Any]:
    """The JSON objects in a file that has one, an array of them, or one a line."""
    text = read_text(path)
    try:
        whole = parse_json(text)
    except ValueError:
        try:
            whole = [parse_json(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise UserError(f"{path} holds no JSON: name what train --json or compare --json printed") from None
    return whole if isinstance(whole, list) else [whole]


def _grouped(objects: Sequence[Any], path: Path) -> list[Entry]:
    """An entry for each row of `compare`, and one for the records of trials that differ only in their seeds."""
    if not objects:
        raise UserError(f"{path} holds no record: name what train --json or compare --json printed")
    entries: list[Entry] = []
    lone: dict[tuple[Any, ...], list[Trial]] = {}
    for one in objects:
        if isinstance(one, dict) and "trials" in one:
            entries.append(_row(one, path))
            continue
        trial = _trial(one, path)
        key = (trial.preset, trial.backend, trial.device, trial.budget_seconds, trial.budget_steps, trial.yardstick)
        lone.setdefault(key, []).append(trial)
    return [*entries, *(Entry(name=f"{key[0]} on {key[1]}", trials=tuple(group)) for key, group in lone.items())]


def _row(row: dict[str, Any], path: Path) -> Entry:
    """The entry of a row of `compare`. UserError without trials, or if their yardsticks differ."""
    if not isinstance(row["trials"], list) or not row["trials"]:
        raise UserError(f"{path}: a row has a list of at least one trial, not {row['trials']!r}")
    trials = tuple(_trial(trial, path) for trial in row["trials"])
    name = str(row.get("name", trials[0].backend))
    try:
        one_yardstick((trial.yardstick for trial in trials), "they have no mean")
    except UserError as error:
        raise UserError(f"{path}: row {name!r}: {error}") from None
    return Entry(name=name, trials=trials, belief=_belief(row.get("val_bpb"), row.get("deviation")))


def _belief(mean: Any, deviation: Any) -> NormalDist | None:
    """What a campaign believes of its champion's score; None without beliefs."""
    known = isinstance(mean, int | float) and isinstance(deviation, int | float)
    return NormalDist(mean, deviation) if known and deviation > 0 else None


def _trial(data: Any, path: Path) -> Trial:
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key != SCHEMA_KEY}
    try:
        return from_json(Trial, data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
