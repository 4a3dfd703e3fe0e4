"""What a backend runs with here: its device, versions and choices, found out by a process that loads it.

`python -P -m core.trial.probe BACKEND DEVICE` prints one line of JSON: device, device_name, versions and choices, or
error. A framework that is broken, or takes the process down with it, breaks nothing else.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import Any

import backends
from core.records import Preset, UserError
from core.sandbox.policy import confined
from core.sandbox.spawn import ReapedProcess
from core.system import scratch
from core.trial.environment import TrialEnvironment

SECONDS = 120.0


def probe(backend: str, device: str = "auto", *, timeout: float = SECONDS) -> dict[str, Any]:
    """The backend's `device` (resolved), `device_name`, `versions` and `choices`, or why not, as `error`.

    `choices` are those of the reference trainer, each with its reason; empty where it makes none. The process runs
    as confined as a trial. UserError only for a backend that isn't known.
    """
    module = backends.get(backend)
    if reason := module.missing():
        return {"error": reason}
    try:
        out, err, returncode = _ran(backend, device, timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"it said nothing within {timeout:g} s"}
    except UserError as error:  # no room for temporary files
        return {"error": str(error)}
    for line in reversed(out.splitlines()):  # a framework may print, too
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                return found
    last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "it printed nothing")
    return {"error": f"its process ended {_how(returncode)}: {last[:300]}"}


def _ran(backend: str, device: str, timeout: float) -> tuple[str, str, int | None]:
    """What the process printed on both streams, and its exit status."""
    environment = TrialEnvironment(backend=backend, device=device)
    command = [sys.executable, "-P", "-m", "core.trial.probe", backend, device]
    with scratch.folder() as folder:
        home = folder / "scratch"
        home.mkdir()
        with ReapedProcess(
            confined(command, environment.policy(home), folder),
            folder=folder,
            private=home,
            usage=folder / "usage.json",
            cwd=home,
            environment=environment.variables(home),
            stdin=subprocess.DEVNULL,
            keep_folder=True,
        ) as process:
            try:
                out, err = (part.decode("utf-8", "replace") for part in process.communicate(timeout=timeout))
            finally:
                process.end()
        ended = process.outcome().returncode
        return out, err, process.returncode if ended is None else ended  # the reaper's own, if that died


def require(preset: Preset) -> None:
    """UserError where the preset's backend or its device is not here.

    What is always there, "cpu" and "auto", is not looked for: loading a framework takes seconds.
    """
    error = backends.get(preset.backend).missing()
    if error is None and preset.device not in ("cpu", "auto"):
        error = probe(preset.backend, preset.device).get("error")
    if error is not None:
        raise UserError(f"{error} (preset {preset.name} takes {preset.backend} on {preset.device})")


def require_before_data(preset: Preset) -> None:
    """UserError if data would be prepared for a device that is missing. If it is there, the trial finds that out."""
    from core.data.dataset import prepared

    if prepared(preset.corpus, preset.vocabulary) is None:
        require(preset)


def probe_in_process(backend: str, device: str) -> dict[str, Any]:
    """Loads the backend in this process. What `probe` returns."""
    try:
        module = backends.get(backend)
        resolved = module.resolve(device)
        return {
            "device": resolved,
            "device_name": module.device_name(resolved),
            "versions": module.versions(),
            "choices": module.choose(resolved),
        }
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001  whatever a broken framework raises is the result
        first = next((line for line in str(error).splitlines() if line.strip()), "no reason given").strip()
        return {"error": f"{type(error).__name__}: {first[:300]}"}


def _how(returncode: int | None) -> str:
    if returncode is None or returncode >= 0:
        return f"with status {returncode}"
    known = {one.value: one.name for one in signal.Signals}
    return f"by {known.get(-returncode, f'signal {-returncode}')}"


if __name__ == "__main__":
    print(json.dumps(probe_in_process(*sys.argv[1:])), flush=True)
