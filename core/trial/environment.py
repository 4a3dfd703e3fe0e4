"""What a trial's processes live in: their environment variables, and what they may reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import backends
from core.sandbox import paths
from core.sandbox.environment import scrubbed
from core.sandbox.policy import SandboxPolicy
from core.trial import compile_cache


@dataclass(frozen=True, kw_only=True)
class TrialEnvironment:
    """What all processes of one backend on one device have in common; each has a scratch of its own.

    `hidden` is what they must not read beside the cache, wherever it lies: corpora, campaigns, other records.
    """

    backend: str
    device: str
    hidden: tuple[Path, ...] = ()

    def cache(self, scratch: Path) -> Path:
        """The folder for what the process compiles."""
        return scratch / "compiled"

    def variables(self, scratch: Path) -> dict[str, str]:
        """The whole environment of a process with that scratch."""
        own = backends.get(self.backend).environment(
            self.cache(scratch), compile_cache.fetched(self.backend), self.device
        )
        return scrubbed(scratch, own)

    def policy(self, scratch: Path, *, also_read: tuple[Path, ...] = ()) -> SandboxPolicy:
        """What a process with that scratch may do."""
        return SandboxPolicy(
            read=(*paths.system(), *paths.python(), compile_cache.fetched(self.backend), *also_read),
            write=(scratch,),
            devices=paths.device_files(),
            hidden=(*paths.corpora(), *self.hidden),
            listed=paths.package_folders(),
        )
