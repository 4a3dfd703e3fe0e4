"""What a trial's processes live in: their environment variables, and what they may reach."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import backends
from core.sandbox import paths
from core.sandbox.environment import scrubbed
from core.sandbox.policy import SandboxPolicy
from core.system.conditions import cores_of_others
from core.trial import compile_cache

THREAD_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_")
BUSY_CORES = 0.5  # used by other processes: from there on a thread that spins can cost more than one that sleeps


@dataclass(frozen=True, kw_only=True)
class TrialEnvironment:
    """What all processes of one backend on one device have in common; each has a scratch of its own.

    `hidden` is what they must not read beside the cache, wherever it lies: corpora, campaigns, other records.
    `busy`: other processes use the processors now.
    """

    backend: str
    device: str
    hidden: tuple[Path, ...] = ()
    busy: bool = False

    def cache(self, scratch: Path) -> Path:
        """The folder for what the process compiles."""
        return scratch / "compiled"

    def variables(self, scratch: Path, *, training: bool = False) -> dict[str, str]:
        """The whole environment of a process with that scratch."""
        own = backends.get(self.backend).environment(
            self.cache(scratch), compile_cache.fetched(self.backend), self.device
        )
        return scrubbed(scratch, {**own, **self.thread_settings(training=training)})

    def thread_settings(self, *, training: bool = True) -> dict[str, str]:
        """The variables for threads that hold: the user's, if some are set, else the backend's."""
        users = {name: value for name, value in os.environ.items() if name.startswith(THREAD_VARIABLES)}
        return users or backends.get(self.backend).thread_settings(self.device, busy=self.busy, training=training)

    def beside_others(self) -> TrialEnvironment:
        """The same with `busy` as it is now, which takes a quarter of a second to see where it makes a difference."""
        if self.thread_settings() == replace(self, busy=True).thread_settings():
            return self
        return replace(self, busy=cores_of_others() >= BUSY_CORES)

    def policy(self, scratch: Path, *, also_read: tuple[Path, ...] = ()) -> SandboxPolicy:
        """What a process with that scratch may do."""
        return SandboxPolicy(
            read=(*paths.system(), *paths.python(), compile_cache.fetched(self.backend), *also_read),
            write=(scratch,),
            devices=paths.device_files(),
            hidden=(*paths.corpora(), *self.hidden),
            listed=paths.package_folders(),
        )
