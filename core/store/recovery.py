"""What a power cut, a killed git or a hand at the wrong file leaves of a campaign's git files, put right.

Only where the ledger or the branch's name says what belongs there; all else is told with the command that mends it.
"""

from __future__ import annotations

from collections.abc import Iterator

from core.records import UserError
from core.store.ledger import Ledger
from core.store.repository import GitFailed, Repo


def mended(repo: Repo, ledger: Ledger) -> Iterator[str]:
    """Puts right what it can and yields a line for each thing that it did or found.

    Only for the holder of the campaign's lock. UserError where the champion itself can't be read.
    """
    if repo.restore_head():
        yield f"HEAD was empty or cut short; it stands for the branch {repo.branch} again"
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
    lost = {number: commit for number, commit in recorded.items() if number not in pinned}
    back = []
    for number, commit in lost.items():
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
