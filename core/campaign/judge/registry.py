"""The policies by name and version, as a campaign's ledger names its own."""

from __future__ import annotations

from core.campaign.judge.base import Policy
from core.campaign.judge.belief import Belief
from core.campaign.judge.greedy import LowerWins
from core.records import UserError

DEFAULT: Policy = Belief()  # of new campaigns
_KNOWN: tuple[Policy, ...] = (LowerWins(), Belief())


def named(wanted: str) -> Policy:
    """The policy of that name and version, such as `belief 1`. UserError for one that isn't here."""
    for policy in _KNOWN:
        if fact_of(policy) == wanted:
            return policy
    known = ", ".join(fact_of(policy) for policy in _KNOWN)
    raise UserError(f"the campaign is judged by {wanted!r}, and this version has only {known}; update autoresearch")


def fact_of(policy: Policy) -> str:
    return f"{policy.name} {policy.version}"
