"""Whatever the trials come to, and however often a run is cut off: the branch is the best verified trainer."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, facts_of, trainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.campaign.campaign import Campaign

# Few scores, so that repeats and ties happen.
TEXTS = st.lists(
    st.one_of(
        st.builds(trainer, st.sampled_from([1.2, 1.5, 1.9, 2.0, 2.1])),
        st.builds(trainer, st.floats(1.0, 2.5)),
        st.builds(trainer, st.sampled_from([1.0, 3.0]), st.sampled_from(["crash", "invalid", "nan"])),
        st.sampled_from(["x = (\n", "A = 1  # tune: nonsense\n"]),
    ),
    max_size=12,
)


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def holds(campaign: Campaign) -> None:
    """What is true of every campaign between two commands."""
    found = campaign.experiments()
    assert [e.number for e in found] == list(range(len(found)))
    best, best_bpb = None, 0.0
    for e in found:
        assert (e.val_bpb is None) == (e.verdict in {"crash", "invalid"})
        if e.number > 0:
            assert best is not None
            assert e.champion_bpb == best_bpb
            assert e.parent == best.commit
            assert (e.verdict == "keep") == (e.val_bpb is not None and e.val_bpb < best_bpb)
        if e.verdict == "keep":
            assert e.val_bpb is not None
            best, best_bpb = e, e.val_bpb
    if best is not None:
        scores = [e.val_bpb for e in found if e.val_bpb is not None]
        assert best_bpb == min(scores)
        assert git(campaign.root, "rev-parse", "HEAD") == best.commit
        assert (campaign.root / "train.py").read_text() == campaign.trainer_text(best.commit)
        kept = [e.commit for e in found if e.verdict == "keep"]
        assert git(campaign.root, "log", "--format=%H").splitlines()[: len(kept)] == kept[::-1]
    listed = git(campaign.root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/experiments")
    refs = dict(line.split() for line in listed.splitlines())
    assert refs == {f"refs/experiments/{e.number}": e.commit for e in found}
    assert git(campaign.root, "status", "--porcelain") == ""
    assert git(campaign.root, "fsck", "--strict") == ""
    decided = [e.fingerprint for e in found if e.verdict in {"keep", "discard"}]
    assert len(decided) == len(set(decided))


def check(texts: list[str], cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "whole"
        with a_campaign(root) as campaign:
            campaign.run(ScriptedAgent(texts))
            holds(campaign)
            whole = facts_of(campaign)
        # The same in several runs, with limits in between.
        root = Path(scratch) / "parts"
        a_campaign(root).close()
        agent = ScriptedAgent(texts)
        for most in [*cuts, None]:
            with Campaign.open(root, engine=ScriptedEngine()) as campaign:
                campaign.run(agent, experiments=most)
                holds(campaign)
        with Campaign.open(root) as campaign:
            assert facts_of(campaign) == whole


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, st.lists(st.integers(0, 4), max_size=2))
def test_the_ratchet(texts: list[str], cuts: list[int]) -> None:
    check(texts, cuts)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, st.lists(st.integers(0, 4), max_size=3))
def test_the_ratchet_at_length(texts: list[str], cuts: list[int]) -> None:
    check(texts, cuts)
