"""The policy of campaigns from before there were beliefs: any lower score is kept."""

from __future__ import annotations

from core.campaign.judge.base import AnotherTrial, Decision, Evidence, check_yardsticks, failure
from core.records import Trial, UserError, Verdict


class LowerWins:
    """The strictly lower val_bpb on the first seed wins; the spread of the baseline's seeds stands beside every gain.

    The baseline runs with every seed. Its val_bpb is that with the first seed, which candidates are compared with.
    """

    name, version = "greedy", 1

    def decide(self, evidence: Evidence) -> AnotherTrial | Decision:
        """Raises UserError where the trials were not measured with one yardstick."""
        check_yardsticks(evidence)
        if evidence.champion is None:
            return self._baseline(evidence)
        seed = evidence.seeds[0]
        if not evidence.trials:
            return AnotherTrial(seed)
        trial = evidence.trials[-1]
        against = champion_bpb(evidence, seed)
        if against is None:
            raise UserError(
                f"the champion, experiment {evidence.champion.number}, has no score with seed {seed}: "
                "the preset's seeds were changed after the campaign began"
            )
        spread = spread_of_seeds(evidence)
        if (failed := failure(trial)) is not None:
            return Decision(verdict=failed[0], reason=failed[1], val_bpb=None, champion_bpb=against, spread=spread)
        assert trial.val_bpb is not None
        gain = against - trial.val_bpb
        return Decision(
            verdict="keep" if gain > 0 else "discard",
            reason=_compared(gain, trial.val_bpb, against, spread),
            val_bpb=trial.val_bpb,
            champion_bpb=against,
            spread=spread,
        )

    def refused(self, evidence: Evidence, verdict: Verdict, reason: str) -> Decision:
        return Decision(
            verdict=verdict,
            reason=reason,
            val_bpb=None,
            champion_bpb=champion_bpb(evidence, evidence.seeds[0]),
            spread=spread_of_seeds(evidence),
        )

    def _baseline(self, evidence: Evidence) -> AnotherTrial | Decision:
        for trial in evidence.trials:
            if (failed := failure(trial)) is not None:
                return Decision(verdict=failed[0], reason=failed[1], val_bpb=None, champion_bpb=None, spread=None)
        done = {trial.seed for trial in evidence.trials}
        for seed in evidence.seeds:
            if seed not in done:
                return AnotherTrial(seed)
        scores = [trial.val_bpb for trial in evidence.trials if trial.val_bpb is not None]
        spread = max(scores) - min(scores) if len(scores) > 1 else None
        noise = (
            "one seed, so its spread is unknown" if spread is None else f"spread of {len(scores)} seeds {spread:.4f}"
        )
        return Decision(
            verdict="keep",
            reason=f"the baseline: {scores[0]:.4f}, {noise}",
            val_bpb=scores[0],
            champion_bpb=None,
            spread=spread,
        )


def champion_bpb(evidence: Evidence, seed: int) -> float | None:
    """The champion's score with the seed that candidates are compared with: the newest one; None without any."""
    if evidence.champion is None:
        return None
    again = tuple(
        one.trial
        for one in evidence.remeasured
        if one.experiment == evidence.champion.number and failure(one.trial) is None
    )
    found = _score_with(again, seed)
    return _score_with(evidence.champion.trials, seed) if found is None else found


def spread_of_seeds(evidence: Evidence) -> float | None:
    """Largest minus smallest score of the baseline's newest trials; None where it ran with one seed."""
    again = [
        one.trial.val_bpb
        for one in evidence.remeasured
        if one.role == "baseline" and failure(one.trial) is None and one.trial.val_bpb is not None
    ]
    if len(again) > 1:
        return max(again) - min(again)
    return evidence.baseline.spread if evidence.baseline is not None else None


def _score_with(trials: tuple[Trial, ...], seed: int) -> float | None:
    return next((trial.val_bpb for trial in trials if trial.seed == seed), None)


def _compared(gain: float, val_bpb: float, champion_bpb: float, spread: float | None) -> str:
    if gain == 0:
        return f"equal to the champion's {champion_bpb:.4f}"
    line = f"gain {gain:.4f}" if gain > 0 else f"{-gain:.4f} worse"
    line += f" ({champion_bpb:.4f} -> {val_bpb:.4f})"
    if spread is None:
        return f"{line}; the spread of seeds is unknown"
    if spread == 0:
        return f"{line}; the baseline's seeds do not differ"
    return f"{line}, {abs(gain) / spread:.1f}x the spread of the baseline's seeds ({spread:.4f})"
