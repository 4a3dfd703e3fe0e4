"""Finishes what a kill or a power cut left half done, and puts a campaign's git files right.

Only where the ledger or the branch's name says what belongs there; any other contradiction is a UserError that names
the commits and the command that resolves it. For the holder of the campaign's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from core.events import Notice, OnEvent
from core.records import TRAINER, Experiment, UserError
from core.store import commit_message
from core.store.ledger import Ledger
from core.store.reader import CampaignReader
from core.store.repository import GitFailed, Repo


@dataclass(frozen=True, kw_only=True)
class PendingCandidate:
    """A commit that is pinned under refs/experiments and gets its verdict next."""

    number: int
    commit: str
    hypothesis: str
    agent: str


def recover(campaign: CampaignReader, tell: OnEvent) -> None:
    """Brings git in line with the ledger and finishes the last experiment, whose verdict is recorded.

    Raises UserError where the two contradict each other, and where the champion itself can't be read.
    """
    ledger, repo = campaign.ledger, campaign.repo
    for line in _restored(repo, ledger):
        tell(Notice(line))
    last, champion, head = ledger.last(), ledger.champion(), repo.head()
    if last is not None and (pinned := repo.experiment(last.number)) not in {None, last.commit}:
        raise UserError(
            f"refs/experiments/{last.number} is {pinned}, the ledger has {last.commit}; "
            f"fix it with: git update-ref refs/experiments/{last.number} {last.commit}"
        )
    if champion is not None and head != champion.commit:
        moving = last is not None and last.number == champion.number and head == champion.parent
        if not moving or head is None:
            raise branch_elsewhere(repo, head, champion.commit)
        repo.advance(head, champion.commit)
    elif head is None:
        raise branch_elsewhere(repo, head, "COMMIT")
    if last is not None and champion is not None:
        finish(campaign, last, champion, tell, quiet=True)
    if (beyond := repo.experiment(ledger.count() + 1)) is not None:
        raise UserError(
            f"refs/experiments/{ledger.count() + 1} is {beyond}, and the ledger ends before it: "
            "the ledger is older than the repository; restore both from one copy of the campaign's folder"
        )


def pending(campaign: CampaignReader, champion: Experiment) -> PendingCandidate | None:
    """The candidate on this champion that was pinned and has no verdict yet; None if there is none."""
    number = campaign.ledger.count()
    commit = campaign.repo.experiment(number)
    if commit is None:
        return None
    message = commit_message.parse(campaign.repo.message(commit))
    if message is None or message[1] != number or campaign.repo.parent(commit) != champion.commit:
        raise UserError(
            f"refs/experiments/{number} is {commit}, which is no candidate on the champion {champion.commit}; "
            f"fix it with: git update-ref -d refs/experiments/{number}"
        )
    if (ran := campaign.ledger.candidate_of_trials(number)) not in {None, commit}:
        raise UserError(
            f"refs/experiments/{number} is {commit}, its recorded trials ran {ran}; "
            f"fix it with: git update-ref refs/experiments/{number} {ran}"
        )
    return PendingCandidate(number=number, commit=commit, hypothesis=message[0], agent=message[2])


def finish(
    campaign: CampaignReader, experiment: Experiment, champion: Experiment, tell: OnEvent, *, quiet: bool = False
) -> None:
    """All that follows from a recorded verdict once the branch is right. Can be done twice."""
    known = {
        blob
        for commit in (experiment.commit, experiment.parent, champion.commit)
        if (blob := campaign.repo.blob(commit)) is not None
    }
    if experiment.number == champion.number or campaign.repo.work_blob() in known:
        sync_worktree(campaign.repo, champion, known, tell, quiet=quiet)
    if experiment.number != champion.number:
        campaign.files.drop_weights(experiment.number)


def sync_worktree(
    repo: Repo, champion: Experiment, known: Collection[str], tell: OnEvent, *, quiet: bool = False
) -> None:
    """The work tree's trainer becomes the champion's, if its text is one of the blobs in `known`.

    An edited text stays, with a notice unless `quiet`.
    """
    try:
        outcome = repo.sync_worktree(champion.commit, known)
    except GitFailed as error:
        tell(Notice(f"the work tree was left as it is: {error}"))
        return
    if quiet:
        return
    show = f"git show {repo.branch}:{TRAINER}"
    if outcome == "edited":
        tell(Notice(f"{TRAINER} in the work tree was edited and stays so; the champion's is: {show}"))
    elif outcome == "elsewhere":
        tell(Notice(f"HEAD is not on {repo.branch}; the work tree stays as it is; the champion's: {show}"))


def branch_elsewhere(repo: Repo, head: str | None, expected: str) -> UserError:
    """The error for a branch that is at `head` where the ledger expects another commit."""
    if head is None:
        return UserError(f"the branch {repo.branch} is gone; fix it with: git branch {repo.branch} {expected}")
    return UserError(
        f"the branch {repo.branch} is at {head}, the ledger's champion is {expected}; a commit of your own "
        f"is tried as edits of the work tree: git reset --soft {expected}, then autoresearch try"
    )


def _restored(repo: Repo, ledger: Ledger) -> Iterator[str]:
    """Restores git files that are empty, cut short or locked; a line for each thing that was done or found."""
    if repo.restore_head():
        yield f"HEAD was empty or cut short; it points to the branch {repo.branch} again"
    for lock in repo.remove_stale_locks():
        yield f"removed {lock}, which a git that was killed left behind"
    ledger.check()
    recorded = ledger.candidates()
    try:
        pinned = repo.pinned()
    except GitFailed as error:
        raise UserError(
            f"{error}; delete what is cut short there (.git/packed-refs: its last line) and run again: what the "
            "ledger knows of is put back"
        ) from None
    champion = ledger.champion()
    if champion is not None and repo.broken(f"refs/heads/{repo.branch}"):
        repo.restore_ref(f"refs/heads/{repo.branch}", champion.commit)
        yield f"the branch {repo.branch} was empty or cut short; it is at the ledger's champion {champion.commit} again"
    back = []
    for number, commit in recorded.items():
        if number in pinned:
            continue
        try:
            repo.restore_ref(f"refs/experiments/{number}", commit)
            back.append(number)
        except GitFailed as error:
            yield f"experiment {number} can't be read any more: {error}; what it was is in a copy of the folder, if any"
    if back:
        yield f"put back from the ledger: refs/experiments/{', '.join(map(str, back[:8]))}" + (
            f" and {len(back) - 8} more" if len(back) > 8 else ""
        )
    if champion is not None:
        repo.text(champion.commit)
    if repo.restore_index():
        yield "git's index was missing or cut short; it is the branch's again, and what was staged is in no commit"
