"""The records that every package uses, and their JSON. A record is frozen: written once, never edited. No I/O here."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar

TRAINER, PROGRAM = "train.py", "program.md"  # the two files of a campaign's work tree
# A trial's files: its weights, the facts that `restore` gets, the nats of each scored token (float32 [N]), its curve
# (a JSON object a report), its record (outside a campaign), and what it printed, also before a retry with less memory.
WEIGHTS, FACTS, LOSSES, CURVE, RECORD = "weights.safetensors", "facts.json", "losses.npy", "curve.jsonl", "trial.json"
TEST_LOSSES = "test-losses.npy"  # where the test split was scored, too
OUTPUT, FIRST_OUTPUT = "output.txt", "output-out-of-memory.txt"
SCHEMA_KEY = "schema_version"  # the first key of what --json prints
# Of a trial that is no experiment's: why it runs (confirm, drift, compare, ...), and whose trainer (baseline, champion,
# ...). Both are open-ended.
Purpose = str
Role = str
Verdict = Literal["keep", "discard", "stopped", "crash", "invalid"]
# A lone trial is compared with nothing, so it can't be kept or discarded: it has a score, was stopped, or failed.
TrialVerdict = Literal["scored", "stopped", "crash", "invalid"]
VERDICTS: tuple[Verdict, ...] = typing.get_args(Verdict)
COMPARE = "compare"  # the purpose of trials of champion and baseline that a verdict asked for
MOST_NAMES = 12  # that an error lists
Constant = int | float | str | bool | tuple[float, ...]


class UserError(Exception):
    """A user's mistake: says what was expected, what came, and the command that fixes it."""

    status = 2  # the command's exit status


def instead(name: str, known: Iterable[str]) -> str:
    """What a user may have meant by an unknown `name`: `did you mean cpu? There are cpu, h100 and 38 more`."""
    import difflib  # here, so that a trial's own processes do without it

    known = list(known)
    close = difflib.get_close_matches(name, known)
    shown = ", ".join(known[:MOST_NAMES]) + (f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else "")
    return f"did you mean {' or '.join(close)}? There are {shown}" if close else f"there are {shown or 'none'}"


def unknown(kind: str, name: str, known: Iterable[str], more: str = "") -> UserError:
    """The error that there is no `kind` of this name. `more` says what else would do."""
    return UserError(f"there is no {kind} {name!r}: {instead(name, known)}{f'; {more}' if more else ''}")


@dataclass(frozen=True)
class DeviceName:
    """A backend's own name of a device: in `cuda:1` the kind is `cuda` and the index 1."""

    kind: str
    index: int | None = None

    @classmethod
    def parse(cls, text: str) -> DeviceName:
        kind, _, index = text.partition(":")
        return cls(kind, int(index)) if index.isdecimal() else cls(text)

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"


@dataclass(frozen=True)
class Choice:
    """What a trainer chose, and why: `sdpa (flash-attn is not installed)`. Records hold this text."""

    value: str
    reason: str = ""

    @classmethod
    def parse(cls, text: str) -> Choice:
        value, _, reason = text.partition(" (")
        return cls(value, reason[:-1]) if len(reason) > 1 and reason.endswith(")") else cls(text)

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})" if self.reason else self.value


FIXED = "fixed"  # in a preset's table [tune]: a search leaves this constant alone
# A trainer's constants that are fields of a preset, under the constants' names.
CONSTANT_FIELDS = {name.upper(): name for name in ("depth", "sequence_length", "total_batch_size", "device_batch_size")}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named set of numbers for one device. A campaign freezes its own copy."""

    name: str
    backend: str
    device: str  # "auto", or the backend's own name of a device
    corpus: str
    vocabulary: int  # token ids, special ones included; 256 means plain bytes
    depth: int
    sequence_length: int
    total_batch_size: int  # tokens of one optimizer step
    device_batch_size: int  # rows that the device takes at once
    budget_seconds: float
    startup_seconds: float  # allowance before the first real batch; past it the trial is a crash
    silence_seconds: float  # a trainer that reports nothing for so long is ended
    score_bytes: int  # validation text that a score covers, rounded up to whole documents
    peak_tflops: float | None = None  # dense peak that MFU is relative to; None: that of a measured matrix product
    seeds: tuple[int, ...] = (1, 2, 3)  # the baseline runs with each; a candidate with the first, and more on demand
    constants: Mapping[str, Constant] = field(default_factory=dict)  # further constants of the trainer
    tune: Mapping[str, str] = field(default_factory=dict)  # of a constant: "fixed", or the range that a search looks in

    def trainer_constants(self) -> dict[str, Constant]:
        """What a reference trainer's block of constants is filled with, under its names there."""
        return {**{name: getattr(self, field) for name, field in CONSTANT_FIELDS.items()}, **self.constants}


def check_vocabulary(vocabulary: int) -> None:
    """UserError unless a tokenizer can have so many ids."""
    if vocabulary != 256 and not 258 <= vocabulary <= 1 << 24:
        raise UserError(
            f"expected a vocabulary of 256 (plain bytes) or of 258 and more (256 bytes, BOS and at least one merge), "
            f"got {vocabulary}; set another one: `--set vocabulary=2048`"
        )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one trial may train for: seconds of the supervisor's clock, or a number of steps."""

    seconds: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise UserError("a budget is seconds or steps: give exactly one of them")
        given = self.seconds if self.seconds is not None else self.steps
        if given is None or not given > 0 or not math.isfinite(given):
            raise UserError(f"a budget is a finite number above 0, not {given}")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a trainer and its `restore` get to know. All of it comes from the supervisor."""

    vocabulary: int
    bos: int  # the id that every document starts with
    seed: int
    backend: str
    device: str  # resolved: never "auto"
    sequence_length: int  # of the batches; the preset's until the first was requested


@dataclass(frozen=True, kw_only=True)
class Score:
    """Bits per byte of a file of weights."""

    val_bpb: float
    bytes: int  # of UTF-8 text that was scored, each exactly once
    tokens: int  # predictions that counted
    yardstick: str


@dataclass(frozen=True, kw_only=True)
class Audit:
    """How a score's losses compare with those of a process that never saw the tokens to predict.

    A difference is the audited loss minus the claimed one, in nats a token: positive where the claim was too good.
    """

    kind: Literal["small", "deep"]
    positions: int  # predictions that were compared with their claims
    dtype: str  # of the model, which the tolerance comes from
    tolerance: float  # of a single difference
    largest: float  # single difference, as it was found, without its sign
    mean: float  # difference over positions drawn alike
    standard_error: float  # of that mean
    hidden_bpb: float  # a gain that the claims could still hide, in bits per byte
    permuted_bpb: float | None  # the score of the same weights in another order; None: not measured
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of one trainer with one seed under one budget. Its JSON is what `train --json` prints."""

    verdict: TrialVerdict
    reason: str  # empty when scored
    val_bpb: float | None
    steps: int
    tokens: int
    parameters: int | None  # counted in the weights that were handed over
    startup_seconds: float  # from the process's start to the first real batch
    train_seconds: float  # from the first real batch to the arrival of the weights
    score_seconds: float
    wall_seconds: float
    tokens_per_second: float | None
    flops_per_token: float | None  # forward and backward, as the trainer declares it
    mfu: float | None  # tokens_per_second * flops_per_token over the peak
    peak_flops: float | None  # what mfu is relative to, in FLOP/s
    peak_memory_mb: float | None
    weights_sha256: str | None
    seed: int
    preset: str
    backend: str
    device: str
    choices: Mapping[str, str]  # kernel, dtype, compile, ...: each with its reason
    versions: Mapping[str, str]
    yardstick: str
    vocabulary: int
    sequence_length: int | None
    rows: int | None  # rows of a step
    budget_seconds: float | None
    budget_steps: int | None
    final_loss: float | None  # the last training loss reported, nats a token
    scored_bytes: int | None
    sandbox: str  # the tier that applied
    started: str  # UTC, ISO 8601
    corpus: str = ""  # empty: a record from before it was kept
    scored_tokens: int | None = None  # predictions that the score counts
    audit: Audit | None = None
    unenforced: tuple[str, ...] = ()  # what the sandbox's tier can't keep a trial from on this platform
    device_rows: int | None = None  # rows that the device took at once
    threads: int | None = None  # that compute on a CPU
    thread_settings: Mapping[str, str] = field(default_factory=dict)  # environment variables that say how they wait
    notes: tuple[str, ...] = ()  # what a person should know about this trial, such as a retry
    conditions: Mapping[str, float | str | None] = field(default_factory=dict)  # of the device while it trained
    test_bpb: float | None = None  # only in a confirmation
    test_yardstick: str = ""
    test_audit: Audit | None = None  # the deep one, of the losses on the test split
    node: str = ""  # the machine's name
    disturbed: str = ""  # what changed its speed: it counts only beside trials slowed alike; empty: nothing known
    stalled_seconds: float | None = None  # of training, in steps beyond three times the median: a compile or a stall
    stop_progress: float | None = None  # at which the futility rule ended it, or would have where it ran on in secret

    @property
    def device_kind(self) -> str:
        """The device without its index, `cuda (NVIDIA H100)`: scores under one clock compare on one kind only."""
        where = Choice.parse(self.device)
        return str(Choice(DeviceName.parse(where.value).kind, where.reason))

    def choice(self, name: str) -> str:
        """What the trainer chose under that name, without the reason; empty if it named nothing."""
        return Choice.parse(self.choices.get(name, "")).value


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A trial that is no experiment's: of the baseline or a champion, measured again."""

    purpose: Purpose
    # What belongs together: of `confirm` its champion's number, of `drift` the last experiment's, of `compare` that of
    # the experiment whose verdict asked for it.
    series: int
    role: Role
    experiment: int  # whose trainer ran
    commit: str
    trial: Trial


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A new text of the trainer and why it should be better."""

    text: str
    hypothesis: str
    agent: str


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One proposed change, its trials and its verdict. Number 0 is the baseline."""

    number: int
    commit: str
    parent: str  # the champion that it was compared with; for the baseline its own commit
    hypothesis: str
    agent: str
    verdict: Verdict
    reason: str
    val_bpb: float | None  # None unless every trial scored
    champion_bpb: float | None  # the champion's at that time, on the same seeds
    spread: float | None  # under greedy of the baseline's seeds, largest minus smallest; else the deviation of a trial
    fingerprint: str  # of the trainer's syntax tree and `# tune:` comments
    wall_seconds: float  # propose, trials, judge and records together
    train_seconds: float  # of all its trials
    ended: str  # UTC, ISO 8601
    trials: tuple[Trial, ...]
    audit: Audit | None = None  # the deep one, of what was to be kept
    base: str = ""  # the commit that it was built on; empty: the parent
    deviation: float | None = None  # standard deviations of the beliefs val_bpb and champion_bpb; None: single scores
    champion_deviation: float | None = None
    probability: float | None = None  # that it is truly better than the champion
    effect: float | None = None  # champion minus candidate over its paired trials, before any prior
    effect_error: float | None = None  # the standard error of `effect`
    nodes: int | None = None  # of its syntax tree
    limits: Mapping[str, float] = field(default_factory=dict)  # program.md's, as the verdict used them

    @property
    def gain(self) -> float | None:
        """Bits per byte below the champion; negative when worse."""
        if self.val_bpb is None or self.champion_bpb is None:
            return None
        return self.champion_bpb - self.val_bpb

    @property
    def kept_within_spread(self) -> bool:
        """Whether a policy without beliefs kept it for a gain that the baseline's seeds alone differ by."""
        if self.verdict != "keep" or self.number == 0 or self.gain is None or self.spread is None:
            return False
        if self.deviation is not None:
            return False
        return self.gain <= self.spread


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What the scores of a campaign are."""

    name: str
    direction: Literal["minimize", "maximize"]
    unit: str
    digits: int  # after the point, that people are shown


VAL_BPB = Metric(name="val_bpb", direction="minimize", unit="bits per byte", digits=4)


def one_yardstick(yardsticks: Iterable[str], remedy: str) -> str | None:
    """The yardstick that all of these scores share, None without any. UserError, with the remedy, if they differ."""
    found = sorted(set(yardsticks))
    if len(found) > 1:
        raise UserError(
            f"scores with different yardsticks can't be compared: {', '.join(name[:12] for name in found)}; "
            f"the text or the scoring differs: {remedy}"
        )
    return found[0] if found else None


R = TypeVar("R", Preset, Budget, Facts, Score, Audit, Trial, Measurement, Proposal, Experiment, Metric)


def to_json(record: Any) -> dict[str, Any]:
    """A record as JSON's own types. Floats that JSON lacks become None."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(record))
    return plain


def from_json(kind: type[R], data: Any) -> R:
    """The record that `to_json` wrote, read back from JSON.

    UserError for what is no object, for a missing or unknown field, and for a field of another type. Where a fraction
    is expected, a whole number serves.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"a record is a JSON object, not {data!r}")
    of: Any = kind
    fields, needed = _fields(of)
    if unknown := sorted(data.keys() - fields.keys()):
        raise UserError(f"{kind.__name__}: unknown field {', '.join(unknown)}; known: {', '.join(sorted(fields))}")
    if missing := sorted(needed - data.keys()):
        raise UserError(f"{kind.__name__}: missing field {', '.join(missing)}")
    return kind(
        **{
            name: value if type(value) in fields[name].scalars else fields[name].decoded(value)
            for name, value in data.items()
        }
    )


@dataclass(frozen=True)
class _Field:
    """How a field's JSON is checked and decoded."""

    name: str
    types: tuple[type, ...]  # that its JSON may have
    scalars: frozenset[type]  # those that stay as they are
    record: Any  # the kind of record that it holds, alone or in a list; None for other values

    def decoded(self, value: Any) -> Any:
        if not isinstance(value, self.types) or isinstance(value, bool):
            names = " or ".join("null" if one is NoneType else one.__name__ for one in self.types)
            raise UserError(f"{self.name} of a record is {names}, not {value!r}")
        if self.record is not None and value is not None:
            if isinstance(value, list):
                return tuple(from_json(self.record, one) for one in value)
            return from_json(self.record, value)
        return _tuples(value)


@functools.cache
def _fields(kind: type) -> tuple[dict[str, _Field], frozenset[str]]:
    """The fields of a kind of record, by name, and the names of those without a default."""
    hints = typing.get_type_hints(kind)
    fields, needed = {}, set()
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        parts = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
        types = [_json_type(part) for part in parts]
        if kind is Audit and float in types:
            types.append(NoneType)  # a difference may be infinite, which `to_json` writes as null
        inner = (part for whole in parts for part in (whole, *typing.get_args(whole)))
        record = next((part for part in inner if dataclasses.is_dataclass(part)), None)
        scalars = frozenset({*types, int} if float in types else types) - {list, dict}
        fields[one.name] = _Field(one.name, tuple(types), scalars, record)
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            needed.add(one.name)
    return fields, frozenset(needed)


def _json_type(hint: Any) -> type:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return list
    if origin is Literal:
        return str
    return dict if origin is not None or dataclasses.is_dataclass(hint) else hint


def _tuples(value: Any) -> Any:
    """Lists as tuples, also within a mapping."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
