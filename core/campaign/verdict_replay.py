"""Replays a campaign's verdicts from recorded evidence, experiment by experiment, as `experiment.py` came to them.

The policy is asked as it was then: it names the trials, the records give them, and its decision is held against the
row. So a trial, a score or a verdict that was edited is found even where its seal was computed anew. Runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from core.campaign.evidence import Candidate, EvidenceBuilder, measured_for
from core.campaign.judge.base import AnotherTrial, Decision, Policy
from core.records import COMPARE, Experiment, Measurement, Trial, UserError
from core.store.program import Limits
from core.store.reader import CampaignReader

AUDITED = "the audit: "  # how the reason begins where a deep audit refused what was to be kept
# Linear algebra differs in its last bits from machine to machine.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-7


class VerdictReplay:
    """Knows the experiments that it was given, in order."""

    def __init__(self, campaign: CampaignReader, policy: Policy) -> None:
        self._ledger = campaign.ledger
        self._policy = policy
        self._builder = EvidenceBuilder(campaign.preset.seeds)
        self._champion: Experiment | None = None

    def fault(self, experiment: Experiment) -> str:
        """What of the next experiment's row does not follow from the evidence before it; empty if all of it does."""
        measured = measured_for(self._ledger, experiment.number)
        try:
            decision = self._decision(experiment, measured)
        except UserError as error:
            decision = str(error)
        # Later ones rest on what this one came to, not on what its row was made to say.
        sound = experiment if isinstance(decision, str) else _with(experiment, decision)
        self._builder.add(sound, measured)
        if sound.verdict == "keep":
            self._champion = sound
        return decision if isinstance(decision, str) else _differences(experiment, decision)

    def _decision(self, experiment: Experiment, measured: Sequence[Measurement]) -> Decision | str:
        """What the policy decides when its trials are handed out as it asks for them; or why that ends elsewhere."""
        champion_nodes = None if self._champion is None else self._champion.nodes
        about = Candidate(experiment.nodes, champion_nodes, Limits.from_record(experiment.limits))
        if not experiment.trials and experiment.verdict in ("crash", "invalid"):  # a text that was refused
            evidence = self._builder.evidence((), measured, about)
            return self._policy.refused(evidence, experiment.verdict, experiment.reason)
        begun = [one for one in measured if one.purpose != COMPARE]  # before its first trial
        left, further = list(experiment.trials), [one for one in measured if one.purpose == COMPARE]
        ran: list[Trial] = []
        while True:
            answer = self._policy.decide(self._builder.evidence(ran, begun, about))
            if isinstance(answer, Decision):
                unused = len(left) + len(further)
                return answer if not unused else f"its verdict was clear {unused} trials before its last one"
            of = answer.of
            if of == "candidate":
                if not left or left[0].seed != answer.seed:
                    return _elsewhere(answer, left[0].seed if left else None)
                ran.append(left.pop(0))
            else:
                if not further or (further[0].role, further[0].trial.seed) != (of, answer.seed):
                    return _elsewhere(answer, further[0].trial.seed if further else None)
                begun.append(further.pop(0))


def _elsewhere(answer: AnotherTrial, found: int | None) -> str:
    came = "and there is none" if found is None else f"and the next one has seed {found}"
    return f"its verdict takes a trial of the {answer.of} with seed {answer.seed}, {came}"


def _refused(experiment: Experiment, decision: Decision) -> bool:
    """Whether a deep audit refused what the policy would have kept."""
    kept = decision.verdict == "keep" and experiment.verdict == "invalid"
    return kept and experiment.reason.startswith(AUDITED)


def _with(experiment: Experiment, decision: Decision) -> Experiment:
    """The experiment as its row should be."""
    verdict = experiment.verdict if _refused(experiment, decision) else decision.verdict
    return replace(experiment, verdict=verdict, **_numbers(decision, refused=_refused(experiment, decision)))


def _numbers(decision: Decision, *, refused: bool) -> dict[str, Any]:
    return decision.numbers() | ({"val_bpb": None} if refused else {})


def _differences(experiment: Experiment, decision: Decision) -> str:
    refused = _refused(experiment, decision)
    if experiment.verdict != decision.verdict and not refused:
        return f"its evidence gives {decision.verdict} ({decision.reason}), its row says {experiment.verdict}"
    for name, value in _numbers(decision, refused=refused).items():
        recorded = getattr(experiment, name)
        if not _close(value, recorded):
            return f"its evidence gives {name} {_shown(value)}, its row says {_shown(recorded)}"
    return ""


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.7g}"
