"""What a check of a trainer says of its size and of the limits that it breaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from campaigns import ScriptedEngine, a_campaign, trainer

from core.agents.base import Agent, AgentContext
from core.campaign.campaign import Campaign
from core.campaign.judge.belief import Belief
from core.campaign.judge.greedy import LowerWins

LIMITS = "---\nmax_memory: 40 MB\nmax_parameters: 5K\nmin_tokens_per_second: 1M\n---\n"
LONGER = trainer(1.9) + "x = [RATE + STEP * 2 for RATE, STEP in enumerate(range(7))]\n" * 3


class _Checking(Agent):
    name = "checking"

    def begin(self, context: AgentContext) -> None:
        self.cost = ""
        super().begin(context)

    def propose(self, history: object) -> None:
        self.cost = self.context.check(LONGER).cost


def cost(campaign: Campaign) -> str:
    agent = _Checking()
    with campaign:
        campaign.run(agent, experiments=1)
    return agent.cost


def test_a_check_names_lines_and_limits_that_a_step_breaks_already(tmp_path: Path) -> None:
    said = cost(a_campaign(tmp_path / "c", program=LIMITS, policy=Belief()))
    assert said.endswith(
        "1000 parameters, 50 MB at its peak, 6e+03 FLOP a token as it says, about 6 lines of code more than the "
        "champion; it would be discarded, as it uses 50 MB, program.md allows 40"
    )


@pytest.mark.parametrize("policy", [Belief(), LowerWins()])
def test_limits_that_are_kept_or_not_held_are_not_named(tmp_path: Path, policy: Belief | LowerWins) -> None:
    small = isinstance(policy, Belief)
    engine = ScriptedEngine(record=lambda into, trial: replace(trial, peak_memory_mb=30.0) if small else trial)
    assert "discarded" not in cost(a_campaign(tmp_path / "c", program=LIMITS, policy=policy, engine=engine))
