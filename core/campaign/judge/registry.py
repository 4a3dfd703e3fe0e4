"""The policies by name and version, as a campaign's ledger names its own."""

from __future__ import annotations

from core.campaign.judge.base import Policy
from core.campaign.judge.greedy import LowerWins
from core.records import UserError

FACT = "policy"  # of the ledger; absent: greedy
_KNOWN: tuple[Policy, ...] = (LowerWins(),)


def named(fact: str | None) -> Policy:
    """The policy that a ledger's fact names, such as `belief 1`. UserError for one that this version doesn't have."""
    wanted = fact or fact_of(LowerWins())
    for policy in _KNOWN:
        if fact_of(policy) == wanted:
            return policy
    known = ", ".join(fact_of(policy) for policy in _KNOWN)
    raise UserError(f"the campaign is judged by {wanted!r}, and this version has only {known}; update autoresearch")


def fact_of(policy: Policy) -> str:
    return f"{policy.name} {policy.version}"
