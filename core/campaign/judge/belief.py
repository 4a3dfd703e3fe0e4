"""The policy that looks for the most true improvement per hour: it holds beliefs, and spends trials where they pay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

from core.campaign.judge.base import AnotherTrial, Decision, Effect, Evidence, Noise, check_yardsticks, failure
from core.campaign.judge.disturbed import of_champion, settled
from core.campaign.judge.effects import GainBelief, GainPrior
from core.campaign.judge.limits import bonus, breach, ruling, speed
from core.campaign.judge.noise import NoisePool, Scores, scores
from core.campaign.judge.state import ChampionState, MeasuredGain, ScoreModel
from core.records import Trial, Verdict
from core.system.text import chance, interval

MOST_SEEDS = 8  # that a campaign's comparisons use
# Noise before any pair of trials, as if so many had been seen: bits per byte of one trial, and the part of its variance
# that trainers share on one seed.
USUAL_NOISE, NOISE_WEIGHT, USUAL_SHARE, SHARE_WEIGHT = 0.002, 0.5, 0.4, 2.0
LOG_BIAS = 1.15
LEAST_NOISE = 1e-7  # where trials repeat exactly
PRICE = 1.2  # of a trial, in units of what a new change's first trial is worth
TENURE = 15  # experiments that profit from a better known champion
LOOKAHEAD = (1, 2, 4)  # further trials that are weighed together


class Belief:
    """Keeps what is probably better by more than a hurdle, and tries again where that is worth a trial."""

    name, version = "belief", 1

    def decide(self, evidence: Evidence) -> AnotherTrial | Decision:
        """Raises UserError where the trials were not measured with one yardstick."""
        check_yardsticks(evidence)
        found = settled(evidence)
        if isinstance(found, Decision):
            return _failed(KnownScores(of_champion(evidence)), found.verdict, found.reason)
        if isinstance(found, AnotherTrial):
            return found
        return self._decide(found)

    def _decide(self, evidence: Evidence) -> AnotherTrial | Decision:
        """By trials that may be held against each other."""
        if evidence.champion is None:
            return _baseline(evidence)
        known = KnownScores(evidence)
        failed = next((failed for trial in evidence.trials if (failed := failure(trial)) is not None), None)
        if failed is not None:
            return _failed(known, *failed)
        found = scores(evidence.trials)
        if not found:
            more = None if evidence.exhausted else known.champion_trial()
            return more or AnotherTrial(evidence.seeds[0])
        measured = known.state.measure(found)
        gain = known.prior.belief(measured.gain, measured.error)
        after = known.state.after(measured, gain)
        verdict = _verdict(known, found, measured, gain, after)
        decided = evidence.exhausted or (breach(evidence.trials, evidence.limits) and verdict.verdict == "discard")
        return verdict if decided else _next_trial(known, found, measured, gain, after) or verdict

    def refused(self, evidence: Evidence, verdict: Verdict, reason: str) -> Decision:
        return _failed(KnownScores(of_champion(evidence)), verdict, reason)


class KnownScores:
    """What the evidence says of noise, of changes in general and of the champion."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.model = score_model(evidence.noise)
        self.bonus = bonus(
            evidence.limits,
            nodes=evidence.nodes,
            champion_nodes=evidence.champion_nodes,
            speed=speed(evidence.trials),
            champion_speed=speed(evidence.lineage[-1].trials),
            noise=self.model.total,
            lineage=[reign.experiment for reign in evidence.lineage],
        )
        self.seeds = _seeds(evidence)
        self.prior = GainPrior(evidence.effects, self.model.trial)

    @cached_property
    def state(self) -> ChampionState:
        """The champion's, by the trials of the lineage."""
        first, *later = self.evidence.lineage
        own = scores(first.experiment.trials)
        state = ChampionState(self.model, self.seeds, sum(own.values()) / len(own)).with_trials(scores(first.trials))
        for reign in later:
            measured = state.measure(scores(reign.experiment.trials))
            state = state.after(measured, self.prior.belief(measured.gain, measured.error))
            state = state.with_trials(scores(reign.again))
        return state

    @cached_property
    def price(self) -> float:
        """What a trial is worth elsewhere: as the first one of a new change."""
        return PRICE * self.value_of_trying(self.state.deviation)

    def value_of_trying(self, deviation: float) -> float:
        """What a new change's first trial is worth against a champion that is known so well."""
        return self.realism * self.prior.value_of_trying(math.hypot(self.model.trial, deviation))

    @cached_property
    def realism(self) -> float:
        return self.prior.realism(math.hypot(self.model.trial, self.state.deviation))

    def value_of_knowing(self, deviation: float, trials: int) -> float:
        """What further trials of a champion, known so well before them, are worth to the changes tried after it."""
        later = (deviation**-2 + trials * self.model.trial**-2) ** -0.5
        return TENURE * (self.value_of_trying(later) - self.value_of_trying(deviation))

    def champion_trial(self) -> AnotherTrial | None:
        """A trial of the champion, if what comes is worth more than its price with it: its luck must not be the bar."""
        ran = scores(self.evidence.lineage[-1].trials)
        fresh = [seed for seed in self.seeds if seed not in ran]
        if fresh and self.value_of_knowing(self.state.deviation, 1) > self.price:
            return AnotherTrial(fresh[0], "champion")
        return None

    def options(self, found: Scores) -> Iterator[tuple[AnotherTrial, int, float]]:
        """Further trials: the first of them, how many, and the error that the gain would have then."""
        ran = scores(self.evidence.lineage[-1].trials)
        fresh = sorted((seed for seed in self.seeds if seed not in found), key=lambda seed: seed not in ran)
        for count in LOOKAHEAD:
            if count <= len(fresh):
                yield AnotherTrial(fresh[0]), count, self.state.error_with([*found, *fresh[:count]])
        lacking = [seed for seed in [*found, *fresh] if seed not in ran][:1]
        if lacking:
            yield AnotherTrial(lacking[0], "champion"), 1, self.state.error_with(list(found), lacking)


def score_model(noise: Noise | None) -> ScoreModel:
    """How scores scatter, by the pooled noise; by what is usual as long as little is known."""
    seen = noise or Noise(seeds=0.0, seeds_freedom=0, pairs=0.0, pairs_freedom=0)
    total = _pooled(USUAL_NOISE**2, NOISE_WEIGHT, seen.seeds, seen.seeds_freedom)
    alone = _pooled((1 - USUAL_SHARE) * total, SHARE_WEIGHT, seen.pairs / 2, seen.pairs_freedom)
    return ScoreModel(math.sqrt(max(0.0, total - alone)), math.sqrt(alone))


def _pooled(usual: float, weight: float, variance: float, freedom: int) -> float:
    """A variance from a guess and a measured one, by the mean of logarithms: no guess outweighs a few trials.

    The logarithm of a measured variance is too small on average, by about the factor that stands here.
    """
    if not freedom:
        return usual
    measured = math.log(max(variance, LEAST_NOISE**2)) + LOG_BIAS / freedom
    return math.exp((weight * math.log(usual) + freedom * measured) / (weight + freedom))


def _next_trial(
    known: KnownScores, found: Scores, measured: MeasuredGain, gain: GainBelief, after: ChampionState
) -> AnotherTrial | None:
    """The trial whose expected value exceeds its price by most; None if none does.

    Its value is that for this decision, and that for later ones against whoever is the champion then.
    """
    prior, extra = known.prior, known.bonus.most
    now = max(0.0, gain.worth + extra)
    best, worth = None, known.price
    for trial, count, error in known.options(found):
        if error >= measured.error:
            continue
        gained = prior.value_after(measured.gain, measured.error, error, extra) - now
        if trial.of == "champion":
            gained += (1 - gain.better) * known.value_of_knowing(known.state.deviation, count)
        else:
            gained += gain.better * known.value_of_knowing(after.deviation, count)
        if gained / count > worth:
            best, worth = trial, gained / count
    return best


def _verdict(
    known: KnownScores, found: Scores, measured: MeasuredGain, gain: GainBelief, after: ChampionState
) -> Decision:
    evidence, deviation = known.evidence, math.sqrt(gain.variance)
    kept = known.bonus.keeps(gain.mean, deviation, gain.worth)
    reason = known.bonus.reason(_reason(gain, measured, len(found)), gain.mean, deviation, kept=kept)
    verdict: Verdict = "keep" if kept else "discard"
    trials, champion = evidence.trials, evidence.lineage[-1].trials
    if (ruled := ruling(trials, champion, evidence.limits, after.score, known.state.score)) is not None:
        verdict, reason = ruled
    return Decision(
        verdict=verdict,
        reason=reason,
        val_bpb=after.score,
        champion_bpb=after.score + gain.mean,  # by the same trials, so that the difference is the believed gain
        spread=known.model.total,
        deviation=after.deviation,
        champion_deviation=known.state.deviation,
        probability=gain.better,
        effect=Effect(gain=measured.gain, error=measured.error),
    )


def _reason(gain: GainBelief, measured: MeasuredGain, trials: int) -> str:
    seeds = f"{trials} seed{'s' * (trials != 1)}"
    return (
        f"gain {gain.mean:+.4f} {interval(math.sqrt(gain.variance))} believed, better with {chance(gain.better)} "
        f"({measured.gain:+.4f} {interval(measured.error)} measured on {seeds})"
    )


def _baseline(evidence: Evidence) -> AnotherTrial | Decision:
    for trial in evidence.trials:
        if (failed := failure(trial)) is not None:
            return Decision(verdict=failed[0], reason=failed[1], val_bpb=None, champion_bpb=None, spread=None)
    found = scores(evidence.trials)
    for seed in evidence.seeds:
        if seed not in found:
            return AnotherTrial(seed)
    model = score_model(_noise_of(evidence.trials))
    state = ChampionState(model, _seeds(evidence), sum(found.values()) / len(found)).with_trials(found)
    spread = max(found.values()) - min(found.values()) if len(found) > 1 else None
    noise = "one seed, so the noise is unknown" if spread is None else f"spread of {len(found)} seeds {spread:.4f}"
    return Decision(
        verdict="keep",
        reason=f"the baseline: {state.score:.4f}, {noise}",
        val_bpb=state.score,
        champion_bpb=None,
        spread=spread,
        deviation=state.deviation,
    )


def _noise_of(trials: Sequence[Trial]) -> Noise:
    pool = NoisePool()
    pool.add_seeds(scores(trials))
    return pool.noise()


def _failed(known: KnownScores, verdict: Verdict, reason: str) -> Decision:
    return Decision(
        verdict=verdict,
        reason=reason,
        val_bpb=None,
        champion_bpb=known.state.score,
        spread=known.model.total,
        champion_deviation=known.state.deviation,
    )


def _seeds(evidence: Evidence) -> tuple[int, ...]:
    """Those that comparisons may use: the preset's, further ones up to a number, and all that have run."""
    ran = [trial.seed for reign in evidence.lineage for trial in reign.trials] + [t.seed for t in evidence.trials]
    more = (seed for seed in range(1, 10**9) if seed not in evidence.seeds)
    further = [next(more) for _ in range(MOST_SEEDS - len(evidence.seeds))]
    return tuple(dict.fromkeys([*evidence.seeds, *further, *ran]))
