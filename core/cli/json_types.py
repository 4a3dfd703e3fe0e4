"""What each command prints with --json, as types; the commands build the same values. docs/json.md is made from it.

`python scripts/json_page.py` writes that page and the JSON Schema beside it, and a test holds both against the real
output of every command. A trailing comment says what a key means. A new key needs a line here, and no new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.campaign.ablate import Ablation
from core.campaign.confirm import Confirmation
from core.campaign.status import Status
from core.campaign.transfer import Transfer
from core.campaign.verify import Check
from core.measure.doctor import Level
from core.records import Experiment, Measurement, Preset, Trial, TrialVerdict, Verdict
from core.system.accelerators import Accelerator
from presets.estimate import Estimate

Form = Literal["object", "array", "lines", "plain object"]


@dataclass(frozen=True, kw_only=True)
class ExperimentRow(Experiment):
    """An experiment's record and its gain."""

    gain: float | None  # bits per byte below the champion of its time; negative when worse


@dataclass(frozen=True, kw_only=True)
class ShownExperiment(ExperimentRow):
    """An experiment's record with its diff, and with each trial's loss curve and output."""

    diff: str  # against its parent, as git shows it; empty for the baseline
    curves: Sequence[Sequence[Mapping[str, float]]]  # for each trial its points: step, seconds, progress, loss
    outputs: Sequence[str]  # what each trial printed
    compared: Sequence[Measurement]  # trials of the champion, or the baseline, that its verdict asked for


@dataclass(frozen=True, kw_only=True)
class TrialAtWork:
    """What the trial at work does."""

    doing: str  # in words
    seconds: float | None  # of the budget that it has trained for
    budget: float | None


@dataclass(frozen=True, kw_only=True)
class TryResult:
    """An experiment's verdict; while it has none, all but the last three are null."""

    verdict: Verdict | None
    val_bpb: float | None
    deviation: float | None  # standard deviation of the belief val_bpb; null without beliefs
    champion_bpb: float | None
    champion_deviation: float | None  # of the belief champion_bpb
    gain: float | None
    probability: float | None  # that it is truly better than the champion
    spread: float | None
    reason: str | None
    experiment: int  # its number
    repeat: bool  # whether the same trainer was tried before: then it was not run again
    running: TrialAtWork | None  # only while it has no verdict


@dataclass(frozen=True, kw_only=True)
class MadeCampaign:
    """A new campaign."""

    root: str  # its folder
    branch: str
    preset: str  # the preset's name


@dataclass(frozen=True, kw_only=True)
class SplitSize:
    """How large a split of a corpus is."""

    documents: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class PreparedCorpus:
    """A corpus that is ready."""

    corpus: str
    vocabulary: int
    splits: Mapping[str, SplitSize]  # train, val and test
    scored_bytes: int  # of the validation text that a score covers
    yardstick: str  # of scores on that text
    left_out: str  # which files are no documents; empty if all are


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Every check of a campaign's records and scores."""

    holds: bool  # whether no check failed
    faults: int
    checks: Sequence[Check]


@dataclass(frozen=True, kw_only=True)
class ExportedFolder:
    """An exported model."""

    folder: str
    experiment: int
    val_bpb: float | None  # what is believed of its trainer; of the weights alone where the policy has no beliefs
    deviation: float | None  # standard deviation of that belief
    files: Sequence[str]
    warnings: Sequence[str]  # what may not work without autoresearch, and why


@dataclass(frozen=True, kw_only=True)
class SampledText:
    """Text from a model."""

    prompt: str
    text: str  # what follows the prompt
    temperature: float
    length: int  # in tokens
    seed: int


@dataclass(frozen=True, kw_only=True)
class ShownTranscript:
    """What a model thought and did for one proposal."""

    experiment: int
    path: str
    text: str  # Markdown


@dataclass(frozen=True, kw_only=True)
class ListedPreset(Preset):
    """A preset that comes with autoresearch."""

    measured: str | None  # date and result on its device; null if nothing was run there
    derived: bool  # whether its values were computed from the device's facts
    note: str
    exempt: str  # why the rules for meaningful trials don't apply; empty if they do
    estimate: Estimate | Mapping[str, float]  # empty where nothing can be estimated
    warnings: Sequence[str]  # the rules for meaningful trials that it breaks
    missing: str | None  # why its backend can't run here


@dataclass(frozen=True, kw_only=True)
class ComparedRow(Trial):
    """A side of a comparison: its first trial's record, with medians of what was measured.

    Its val_bpb is the mean of its trials' scores, or what a campaign believes of its champion.
    """

    name: str
    verdict: TrialVerdict  # the first failure's, if a trial failed
    deviation: float | None  # of a campaign with beliefs, whose val_bpb is one: its standard deviation
    val_bpb_spread: float | None  # largest minus smallest score of its trials
    seeds: Sequence[int]
    overhead_seconds: float  # wall time beyond training
    trials: Sequence[Trial]


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One benchmark, with further facts of one round: device, backend, dtype, tokens, bytes, flops, ..."""

    suite: str
    name: str
    median_seconds: float
    iqr_seconds: float
    rounds: int
    tokens_per_second: float | None
    bytes_per_second: float | None
    flops_per_second: float | None
    share_of_peak: float | None
    against_before: float | None  # the time relative to the earlier run
    slower: bool | None  # by more than the spread


@dataclass(frozen=True, kw_only=True)
class BenchBefore:
    """The earlier run that a run is compared with."""

    when: str
    changes: Sequence[str]  # versions and commit that differ


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """A run of benchmarks."""

    when: str  # in UTC
    machine: Mapping[str, Any]
    commit: Mapping[str, Any]
    results: Sequence[BenchRow]
    before: BenchBefore | None
    kept: str  # the file that it is saved in


@dataclass(frozen=True, kw_only=True)
class DoctorFinding:
    """One line of the report."""

    about: str
    mark: Level
    told: str
    mend: str  # what to do; empty if nothing
    blocks: bool  # no trial of the preset can run like this


@dataclass(frozen=True, kw_only=True)
class DoctorMachine:
    """The machine. A GB is 2**30 bytes."""

    os: str
    processor: str
    cores: int
    memory_gb: float
    free_gb: float
    accelerators: Sequence[Accelerator]
    matrix_flops: float | None  # FLOP/s of a product of NumPy matrices


@dataclass(frozen=True, kw_only=True)
class DoctorBackend:
    """A backend on this machine. `error`, or what it runs with."""

    missing: str | None  # why it is not installed
    error: str = ""
    device: str = ""
    device_name: str = ""
    versions: Mapping[str, str] | None = None
    choices: Mapping[str, str] | None = None  # kernel, dtype, compile, ..., each with its reason


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """What is here, and what is missing. The sections may get more keys."""

    ready: bool  # whether trials of the preset can run
    preset: str
    first: Sequence[str]  # what to do before a trial can run
    machine: DoctorMachine
    python: Mapping[str, Any]  # version, autoresearch, folder
    git: Mapping[str, Any]  # path, version
    backends: Mapping[str, DoctorBackend]
    chosen: Mapping[str, Any]  # the preset's backend, device, corpus, vocabulary; memory it needs and there is
    bytecode: Mapping[str, Any]  # for each backend: files of its libraries without it (missing)
    data: Mapping[str, Any]  # for each corpus: vocabularies that are prepared, bytes, error
    cache: Mapping[str, Any]  # folder, bytes, parts
    removed: Mapping[str, Any]  # what killed supervisors had left: folders, bytes, processes
    disk: Mapping[str, Any]  # for cache and here: folder, free_gb
    load: Mapping[str, Any]  # load_average, cores, cores_in_use, processes, on_accelerators
    sandbox: Mapping[str, Any]  # tier, unenforced, why, error, shared_memory, loopback
    findings: Sequence[DoctorFinding]


@dataclass(frozen=True, kw_only=True)
class JsonOutput:
    """What one form of a command prints."""

    form: Form
    of: Any  # the type of the object, of a row or of a line
    note: str = ""


OUTPUTS: dict[str, JsonOutput] = {
    "init": JsonOutput(form="object", of=MadeCampaign),
    "prepare": JsonOutput(form="object", of=PreparedCorpus),
    "train": JsonOutput(form="lines", of=Trial, note="One line, the last one; exit status 1 if the trial failed."),
    "run": JsonOutput(form="lines", of=ExperimentRow, note="A line for each experiment when it ends."),
    "try": JsonOutput(form="lines", of=TryResult, note="One line. With --detach the experiment has no verdict yet."),
    "wait": JsonOutput(form="lines", of=TryResult, note="One line; exit status 75 while there is no verdict."),
    "status": JsonOutput(form="object", of=Status),
    "log": JsonOutput(form="array", of=ExperimentRow),
    "show": JsonOutput(form="object", of=ShownExperiment),
    "transcript": JsonOutput(form="object", of=ShownTranscript),
    "confirm": JsonOutput(form="object", of=Confirmation, note="Exit status 1 if no pair of trials was completed."),
    "ablate": JsonOutput(form="object", of=Ablation, note="Exit status 1 if nothing was measured."),
    "transfer": JsonOutput(form="object", of=Transfer, note="Exit status 1 if no pair of trials was completed."),
    "export": JsonOutput(form="object", of=ExportedFolder),
    "sample": JsonOutput(form="object", of=SampledText),
    "audit": JsonOutput(form="object", of=AuditReport, note="Exit status 1 if a check failed."),
    "doctor": JsonOutput(form="object", of=DoctorReport, note="Exit status 1 if no trial of the preset can run."),
    "presets": JsonOutput(form="array", of=ListedPreset),
    "presets NAME": JsonOutput(form="object", of=ListedPreset),
    "presets FILE.toml": JsonOutput(form="object", of=Preset, note="Also `presets auto`."),
    "compare": JsonOutput(form="array", of=ComparedRow, note="Best first; exit status 1 if a trial failed."),
    "bench": JsonOutput(form="object", of=BenchReport),
    "bench --list": JsonOutput(form="plain object", of=Mapping[str, str], note="What each suite measures, by name."),
}
