"""What the search begins with: the recorded trials that come with the package, and another campaign's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from campaigns import ScriptedEngine, a_campaign, a_trial, events_of, trainer
from histories import MemoryHistory

import presets
from core.agents import registry
from core.agents.hybrid import Hybrid
from core.agents.search import prior, recorded
from core.agents.search.agent import SearchAgent
from core.agents.search.gaussian_process import Gaussian, Tasks
from core.agents.search.prior import PriorTrial, Scale, Source
from core.agents.search.teacher import Teacher
from core.events import Notice
from core.records import Constant, Trial, UserError
from core.trainer.constants import read_constants
from core.trainer.reference import reference_trainer

DEMO = presets.load("demo")
TEXT = reference_trainer(DEMO)
TRIAL = a_trial(steps=30, tokens=30 * 8192, parameters=1_100_000)
QUICK = a_trial(steps=445, tokens=445 * 8192, parameters=1_835_080)  # the cpu preset's five minutes
FAR = a_trial(steps=20_000, tokens=20_000 * 8192, parameters=1_100_000)


def flat(constants: Mapping[str, Constant]) -> float:
    return 1.9


def first_proposals(trial: Trial | None, sources: Sequence[Source], text: str = TEXT, count: int = 1) -> list[str]:
    found = []
    for seed in range(count):
        agent = SearchAgent(seed)
        agent.recorded = sources
        proposal = agent.propose(MemoryHistory(text, flat, DEMO, trials=() if trial is None else (trial,)))
        assert proposal is not None
        found.append(proposal.text)
    return found


def test_the_recorded_trials_come_with_the_package() -> None:
    assert recorded.RECORDED.parent == Path(prior.__file__).parent
    shipped, quick = prior.shipped()
    assert len(shipped.trials) >= 100 and len(shipped.tuned) == 15
    assert shipped.scale.steps == 18
    assert 30 <= len(quick.trials) < len(shipped.trials)
    assert quick.scale.steps == pytest.approx(80, abs=20) and quick.scale.tokens_per_parameter > 0.5
    assert shipped.scale.tokens_per_parameter == pytest.approx(0.08, abs=0.01)


def test_the_first_proposal_pulls_a_lever_that_pays_at_few_steps() -> None:
    """More steps (fewer layers or tokens a step) or a higher rate of the unembedding: the recorded trials' levers."""
    before = read_constants(TEXT)

    def pays(text: str) -> bool:
        after = read_constants(text)
        smaller = any(after[name] < before[name] for name in ("DEPTH", "TOTAL_BATCH_SIZE"))  # type: ignore[operator]
        return smaller or after["UNEMBEDDING_LR"] >= 1.5 * before["UNEMBEDDING_LR"]  # type: ignore[operator]

    known, drawn = first_proposals(TRIAL, prior.shipped(), count=6), first_proposals(TRIAL, [], count=6)
    assert all(map(pays, known))
    assert sum(map(pays, drawn)) < 6


def test_which_were_better_counts_and_not_their_scores() -> None:
    shipped = prior.shipped()[0]
    moved = [replace(one, val_bpb=None if one.val_bpb is None else one.val_bpb + 3) for one in shipped.trials]
    assert first_proposals(TRIAL, [replace(shipped, trials=moved)]) == first_proposals(TRIAL, [shipped])
    turned = [replace(one, val_bpb=None if one.val_bpb is None else -one.val_bpb) for one in shipped.trials]
    assert first_proposals(TRIAL, [replace(shipped, trials=turned)]) != first_proposals(TRIAL, [shipped])


@pytest.mark.parametrize(
    ("trial", "text"),
    [
        (FAR, TEXT),  # another scale
        (None, TEXT),  # an unknown one
        (TRIAL, reference_trainer(presets.load("numpy"))),  # another trainer
    ],
)
def test_what_is_far_or_about_another_trainer_says_nothing(trial: Trial | None, text: str) -> None:
    assert first_proposals(trial, prior.shipped(), text) == first_proposals(trial, [], text)


def test_of_the_recorded_trials_those_of_the_nearest_scale_are_taken() -> None:
    histories = [MemoryHistory(TEXT, flat, DEMO, trials=(trial,)) for trial in (TRIAL, QUICK)]
    assert [prior.nearest(prior.shipped(), history) for history in histories] == [[one] for one in prior.shipped()]


def test_a_source_says_less_the_further_its_scale_is() -> None:
    own = Scale(30, 0.2)
    likeness = [own.likeness(other) for other in (own, Scale(60, 0.4), Scale(300, 2), Scale(3, 0.02), Scale(3000, 20))]
    assert likeness[0] == prior.RHO
    assert likeness[0] > likeness[1] > likeness[2] > likeness[4]
    assert likeness[2] == pytest.approx(likeness[3])


def test_own_trials_outweigh_what_others_found() -> None:
    """A campaign in which the recorded trials' levers hurt turns away from them."""
    text = "A = 0.5  # tune: linear 0 .. 1\nB = 0.5  # tune: linear 0 .. 1\n"
    trials = [PriorTrial({"A": a, "B": 0.5}, 2.0 - a) for a in np.linspace(0, 1, 20).tolist()]
    source = Source(name="others", trials=trials, tuned=frozenset("AB"), scale=Scale(30, TRIAL.tokens / 1_100_000))
    history = MemoryHistory(text, lambda c: 1.0 + float(str(c["A"])), DEMO, trials=(TRIAL,))
    agent = SearchAgent()
    agent.recorded = [source]
    told: list[object] = []
    agent._tell = told.append
    history.run(agent, 12)
    assert told == [Notice("search: begins with 20 of others, taken to correlate with this campaign by 0.80")]
    assert float(str(read_constants(history.texts[1])["A"])) > 0.7
    assert float(str(read_constants(history.champion_text)["A"])) < 0.1


def test_tasks_have_levels_of_their_own() -> None:
    x = np.linspace(0, 1, 15)
    X = np.column_stack([np.concatenate([x[[2, 7]], x])])
    y = np.concatenate([5 + x[[2, 7]] ** 2, x**2])
    tasks = Tasks(np.array([0, 0, *[1] * 15]), np.array([[1.0, 0.95], [0.95, 1.0]]))
    mean, deviation = Gaussian(X, y, np.array([False]), tasks=tasks).predict(np.array([[0.0], [1.0]]))
    assert mean == pytest.approx([5.0, 6.0], abs=0.15)
    assert (deviation < 0.5).all()


class TestLearnFrom:
    """`--learn-from`: a real campaign of scripted trials as the teacher."""

    @pytest.fixture
    def teacher(self, tmp_path: Path) -> Path:
        root = tmp_path / "night"
        with a_campaign(root) as campaign:
            campaign.run(SearchAgent(), experiments=6)
        (root / "lessons.md").write_text("- longer warmdowns help\n", encoding="utf-8")
        return root

    def test_its_experiments_and_its_lessons_are_taken_over(self, teacher: Path, tmp_path: Path) -> None:
        agent = SearchAgent(learn_from=teacher)
        assert len(Teacher(teacher).source.trials) == 7 and Teacher(teacher).source.tuned == {"SCORE"}
        events: list[object] = []
        with a_campaign(tmp_path / "new", score=3.0) as campaign:
            for _ in range(2):
                campaign.run(agent, experiments=1, on_event=events.append)
            lessons = (campaign.root / "lessons.md").read_text(encoding="utf-8").splitlines()
        assert lessons[0] == "- longer warmdowns help"
        assert lessons[1].startswith("- night: kept SCORE 2.0 -> ")
        assert len(lessons) == len(set(lessons))  # the second run added none again
        (notice, _) = (one.text for one in events_of(Notice, events) if "learning" in one.text)
        assert "7 experiments, 7 with a score, preset test on cpu. Which were better counts" in notice

    def test_it_starts_where_the_teacher_got_to(self, teacher: Path, tmp_path: Path) -> None:
        with a_campaign(tmp_path / "new", trainer=trainer(2.5)) as campaign:
            campaign.run(SearchAgent(learn_from=teacher), experiments=2)
            assert campaign.champion.val_bpb is not None and campaign.champion.val_bpb < 1.0

    def test_a_thinkers_search_learns_too(self, teacher: Path, tmp_path: Path) -> None:
        shared = tmp_path / "shared.md"
        agent = registry.make(
            "hybrid", command="python", learn_from=teacher, lessons=shared
        )  # fmt: skip
        assert isinstance(agent, Hybrid)
        with a_campaign(tmp_path / "new") as campaign:
            campaign.run(agent, experiments=0)
        assert "longer warmdowns help" in shared.read_text(encoding="utf-8")

    def test_what_cannot_be_learned_from_is_told(self, teacher: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="missing"):
            SearchAgent(learn_from=tmp_path / "missing")
        with a_campaign(tmp_path / "begun") as campaign:
            with pytest.raises(UserError, match="no baseline yet"):
                SearchAgent(learn_from=campaign.root)
            campaign.run(SearchAgent(), experiments=0)
        with pytest.raises(UserError, match="no experiment in .*begun has a score, beside the"):
            SearchAgent(learn_from=campaign.root)
        with (
            a_campaign(tmp_path / "own", engine=ScriptedEngine()) as campaign,
            pytest.raises(UserError, match="is this campaign itself"),
        ):
            campaign.run(SearchAgent(), experiments=2)
            campaign.run(SearchAgent(learn_from=campaign.root), experiments=1)
