"""Whether a gain carries over to another scale: the trainers for it, and what their trials say. Pure functions.

`studies.py` runs the trials. Scores are in bits per byte; a gain is the baseline's minus the champion's.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import presets
from core.campaign.confirm import Confirmation, failure_of
from core.campaign.statistics import Interval, interval, share_of
from core.measure.compare import OWN_CONSTANTS
from core.records import Constant, Experiment, Measurement, Preset, Trial, UserError, one_yardstick, to_json
from core.system.text import one_line
from core.trainer.constants import read_constants, write_constants
from core.trainer.fingerprint import fingerprint
from core.trainer.literals import changed_values, literal
from core.trainer.merge import changed_constants, followed, with_constants
from core.trainer.reference import reference_trainer

DEFAULT_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Baseline and champion at another scale."""

    preset: Preset
    baseline: str
    champion: str
    notes: tuple[str, ...]  # what could not be carried as it was

    @property
    def name(self) -> str:
        """Of these trainers under this preset, for a folder and the ledger."""
        whole = "\0".join((presets.dump(self.preset), self.baseline, self.champion))
        return f"transfer-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, kw_only=True)
class TransferPair:
    """Baseline and champion at the other scale with one seed."""

    seed: int
    baseline_bpb: float
    champion_bpb: float

    @property
    def gain(self) -> float:
        return self.baseline_bpb - self.champion_bpb


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What `transfer --json` prints. Intervals need two pairs."""

    champion: int  # its experiment
    commit: str
    scale: Mapping[str, tuple[str, str]]  # of what the presets differ in: here and there, as TOML has it
    preset: str
    notes: tuple[str, ...]  # what could not be carried as it was
    pairs: tuple[TransferPair, ...]
    failed: tuple[str, ...]  # trials that did not end in a score, which takes their seed out
    unpaired: tuple[int, ...]  # seeds of which a trial has not run yet
    yardstick: str | None  # of the scores there
    same_text: bool  # whether the campaign's scores are on that text too
    vocabulary: tuple[int, int]  # here and there
    gain: float | None
    interval: Interval | None
    gain_here: float
    gain_here_interval: Interval | None
    gain_here_from: str  # where that gain was measured, in words
    share: float | None  # of the gain that carries over
    share_low: float | None
    share_high: float | None
    conclusion: str


def carry(baseline: str, champion: str, old: Preset, new: Preset) -> Carried:
    """The campaign's trainers at the scale of `new`. UserError where one of them can't be brought there.

    With the same backend a trainer keeps its code and gets the constants in which the two presets differ, so that what
    the campaign changed elsewhere is carried whole; what follows from the depth inside a trainer follows it. Where both
    differ in one constant, the edit is carried in proportion if it is a size or logarithmic. To another backend only
    the edits of constants go, into its reference trainer.
    """
    there = reference_trainer(new)
    if new.backend != old.backend:
        return _to_backend(baseline, champion, old, new, there)
    scaled = {name: after for name, (_, after) in changed_constants(reference_trainer(old), there).items()}
    before, edited = read_constants(baseline), read_constants(champion)
    for whose, has in (("baseline's", before), ("champion's", edited)):
        if missing := sorted(scaled.keys() - has.keys()):
            raise UserError(
                f"the {whose} train.py has no constant {', '.join(missing)}, so it can't be set for another scale"
            )
    values = {name: followed(name, before[name], edited[name], now, baseline) for name, now in scaled.items()}
    both = [name for name, value in values.items() if name in changed_constants(baseline, champion)]
    notes = [
        f"{name}: the campaign changed it from {literal(before[name])} to {literal(edited[name])}; there the baseline "
        f"has {literal(scaled[name])}, and the champion gets {literal(values[name])}"
        for name in both
    ]
    return Carried(
        preset=new,
        baseline=write_constants(baseline, scaled),
        champion=write_constants(champion, values),
        notes=tuple(notes),
    )


def _to_backend(baseline: str, champion: str, old: Preset, new: Preset, there: str) -> Carried:
    has, edits = read_constants(there), changed_constants(baseline, champion)
    fits = {name: edit for name, edit in edits.items() if name in has and name not in OWN_CONSTANTS}
    values: dict[str, Constant] = {
        name: followed(name, before, after, has[name], there) for name, (before, after) in fits.items()
    }
    notes = []
    if fingerprint(with_constants(baseline, {name: after for name, (_, after) in edits.items()})) != fingerprint(
        champion
    ):
        notes.append(
            f"what the campaign changed in the code can't go from {old.backend} to {new.backend}: constants alone"
        )
    if lost := sorted(edits.keys() - fits.keys()):
        notes.append(f"{', '.join(lost)} would mean nothing to the trainer for {new.backend}: left behind")
    if not fits:
        raise UserError(
            f"nothing of the champion can go from {old.backend} to {new.backend}: only constants can, and of those it "
            f"changed {'none' if not edits else 'none that its trainer has'}"
        )
    notes.append(f"carried: {changed_values(has, {**has, **values}) or 'nothing that differs there'}")
    return Carried(preset=new, baseline=there, champion=write_constants(there, values), notes=tuple(notes))


def differences(old: Preset, new: Preset) -> dict[str, tuple[str, str]]:
    """What trials under two presets differ in: of each value's name what it is here and there, as text."""
    here, there = to_json(old), to_json(new)
    for values in (here, there):
        values.update(values.pop("constants"))
        del values["name"], values["tune"]  # neither changes a trial
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return {name: (_shown(here.get(name)), _shown(there.get(name))) for name in names}


def _shown(value: object) -> str:
    return "default" if value is None else str(value)


def gain_here(
    baseline: Experiment, champion: Experiment, confirmed: Confirmation | None
) -> tuple[float, Interval | None, str]:
    """The gain at the campaign's own scale, its interval where fresh seeds gave one, and where it is from."""
    if confirmed is not None and confirmed.champion == champion.number and confirmed.val is not None:
        return confirmed.val.mean, confirmed.val, f"confirmed on {confirmed.val.count} fresh seeds"
    assert baseline.val_bpb is not None and champion.val_bpb is not None, "both were kept"
    return baseline.val_bpb - champion.val_bpb, None, "as the campaign claims it; autoresearch confirm measures it"


def conclude(
    baseline: Experiment,
    champion: Experiment,
    carried: Carried,
    old: Preset,
    recorded: Sequence[Measurement],
    confirmed: Confirmation | None,
) -> Transfer:
    """How much of the gain carries over. `recorded` are the trials at the other scale, in the order they ran."""
    yardstick = one_yardstick(
        (one.trial.yardstick for one in recorded), "transfer again with another --seeds, by one version"
    )
    pairs, failed, unpaired = [], [], []
    for seed in dict.fromkeys(one.trial.seed for one in recorded):
        of: dict[str, Trial] = {one.role: one.trial for one in recorded if one.trial.seed == seed}
        failed += [
            f"{role}, seed {seed}: {one_line(failure_of(one))}"
            for role, one in of.items()
            if one.val_bpb is None or one.disturbed
        ]
        scores = {role: one.val_bpb for role, one in of.items() if one.val_bpb is not None and not one.disturbed}
        if len(scores) == 2:
            pairs.append(TransferPair(seed=seed, baseline_bpb=scores["baseline"], champion_bpb=scores["champion"]))
        elif len(scores) == len(of):
            unpaired.append(seed)
    gains = [pair.gain for pair in pairs]
    there = interval(gains)
    gain = statistics.fmean(gains) if gains else None
    here, here_interval, source = gain_here(baseline, champion, confirmed)
    known = here_interval or Interval(mean=here, half_width=0.0, count=1)
    bounds = share_of(there, known) if there is not None else None
    vocabularies = {one.trial.vocabulary for one in recorded}
    return Transfer(
        champion=champion.number,
        commit=champion.commit,
        scale=differences(old, carried.preset),
        preset=carried.preset.name,
        notes=carried.notes,
        pairs=tuple(pairs),
        failed=tuple(failed),
        unpaired=tuple(unpaired),
        yardstick=yardstick,
        same_text=yardstick is not None and yardstick == champion.trials[0].yardstick,
        vocabulary=(old.vocabulary, next(iter(vocabularies), carried.preset.vocabulary)),
        gain=gain,
        interval=there,
        gain_here=here,
        gain_here_interval=here_interval,
        gain_here_from=source,
        share=gain / here if gain is not None and here > 0 else None,
        share_low=None if bounds is None else bounds[0],
        share_high=None if bounds is None else bounds[1],
        conclusion=conclusion(there, bounds),
    )


def conclusion(there: Interval | None, share: tuple[float, float] | None) -> str:
    """Whether the gain carries over, in plain words."""
    if there is None:
        return "with fewer than two seeds that ran to the end on both sides, nothing can be said"
    if there.mean + there.half_width < 0:
        return f"there the champion is worse than the baseline, by {-there.mean:.4f} +- {there.half_width:.4f}"
    if not there.above_zero:
        return (
            f"there the gain can't be told from luck on {there.count} seeds: {there}; more of them tell more: --seeds N"
        )
    if share is None:
        return f"there the champion is better too, by {there}; how much of its gain that is, is not known well enough"
    low, high = share
    if low > 1:
        return f"all of the gain carries over and more: {low:.0%} to {high:.0%} of it"
    return f"the gain carries over: {max(0.0, low):.0%} to {high:.0%} of it"


def scaled_preset(old: Preset, other: Preset | None, changes: Mapping[str, str]) -> Preset:
    """The preset of another scale: `other`, else the campaign's own, with the changes of the command line.

    It keeps the campaign's text and how much of it is scored, so that scores compare, unless the changes name others.
    UserError if nothing differs.
    """
    kept = {"corpus": old.corpus, "score_bytes": str(old.score_bytes)}
    new = presets.override(other or old, {**kept, **changes})
    if not differences(old, new):
        raise UserError(
            "that is the campaign's own scale: name another one, as in --depth 8, --preset h100 or --set KEY=VALUE"
        )
    return new
