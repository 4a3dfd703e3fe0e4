"""The untrusted side's main: claims the channel, loads the trainer, and trains with it or scores with it.

The reaper starts it: `python -P -m core.trial.child.worker`. The trainer prints to the output, not the channel.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import backends
from backends.base import Backend, Logits
from core.records import Facts, UserError, from_json
from core.trial.channel import Channel, Message
from core.trial.child.affinity import MainThread
from core.trial.child.client import Client, adopt
from core.trial.shared_arrays import map_shared_array


def main() -> int:
    """Runs the role that the supervisor's first message names. The exit status is 0 unless something failed."""
    channel = claim_stdio()
    start = channel.receive()
    if start is None:
        return 1
    try:
        roles: dict[str, Callable[[Channel, Message, Backend], None]] = {"train": train, "score": score}
        roles[start["role"]](channel, start, backends.get(start["backend"]))
    except BaseException as error:  # noqa: BLE001  whatever it was is sent, then the process ends
        traceback.print_exc()
        sys.stderr.flush()
        reason = describe(error, start["trainer"], message=start["role"] == "train")
        channel.send("failed", error=reason, user_error=isinstance(error, UserError))
        return 1
    return 0


def claim_stdio() -> Channel:
    """The channel over stdin and stdout. From here on printing goes to stderr, and stdin is empty."""
    reader, writer = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(open(reader, "rb"), open(writer, "wb"))


def train(channel: Channel, start: Message, backend: Backend) -> None:
    """Trains: everything between `join` and `finish` is the trainer's."""
    main_thread = MainThread()
    device = backend.resolve(start["device"])
    main_thread.release()
    about = {"device": device, "device_name": backend.device_name(device), "threads": backend.threads()}
    channel.send("ready", versions=backend.versions(), **about)
    facts = _facts(channel)
    backend.seed(facts.seed)
    client = Client(
        channel,
        facts,
        Path.cwd(),
        peak_memory_mb=lambda: backend.peak_memory_mb(device),
        before_training=main_thread.bind,
        logits_shape=lambda logits, length: backend.logits_shape(logits, length, device),
    )
    adopt(client)
    trainer = load(Path(start["trainer"]))
    trainer.main()
    channel.send("returned")


def score(channel: Channel, start: Message, backend: Backend) -> None:
    """Scores: parks with everything imported, then restores the model from the weights and answers requests.

    While parked it leaves the device to the training process: some devices admit only one.
    """
    from safetensors.numpy import load_file

    channel.send("ready")
    trainer = load(Path(start["trainer"]))
    channel.send("parked")
    facts = _facts(channel)
    request = channel.receive()
    if request is None:
        return
    device = backend.resolve(facts.device)
    backend.seed(facts.seed)
    logits: Logits = trainer.restore(load_file(request["weights"]), facts)
    channel.send("restored")
    while (request := channel.receive()) is not None:
        channel.send("answered", shape=answer(request, backend, logits, device))


def answer(request: Message, backend: Backend, logits: Logits, device: str) -> list[int]:
    """Reads int32 arrays from one file and writes the float32 answer to the other, if it fits. Returns its shape."""
    rows, length = int(request["rows"]), int(request["length"])
    size = rows * length
    values: Any
    if request["type"] == "losses":
        both = np.array(map_shared_array(request["array"], "r", (2, rows, length), np.int32))
        values = backend.losses(logits, both[0], both[1], device)
    else:
        count = int(request["count"])
        flat = np.array(map_shared_array(request["array"], "r", (size + 2 * count,), np.int32))
        tokens_BT, positions_N2 = flat[:size].reshape(rows, length), flat[size:].reshape(count, 2)
        values = backend.logits_at(logits, tokens_BT, positions_N2, device)
    values = np.asarray(values, np.float32)
    if values.nbytes <= Path(request["answer"]).stat().st_size:
        out = map_shared_array(request["answer"], "r+", values.shape, np.float32)
        out[...] = values
    return list(values.shape)


def load(path: Path) -> ModuleType:
    """The trainer's file as a module of its own name, `train`.

    Its folder is on the path, so that processes that `multiprocessing` spawns can import the trainer's classes. Another
    module of that name makes room for it.
    """
    sys.path.insert(0, str(path.parent))
    sys.modules.pop(path.stem, None)
    sys.dont_write_bytecode = True
    return importlib.import_module(path.stem)


def describe(error: BaseException, trainer: str, *, message: bool) -> str:
    """One line: the error's class, the last line of the trainer in its traceback, and its text if `message`.

    A scoring process has seen the validation text, so the texts of its errors stay in its own output.
    """
    if isinstance(error, SyntaxError) and error.filename == trainer:
        return f"SyntaxError: {error.msg} (line {error.lineno} of {Path(trainer).name})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == trainer]
    place = f" (line {lines[-1]} of {Path(trainer).name})" if lines else ""
    if message:
        return f"{type(error).__name__}{f': {str(error)[:500]}' if str(error) else ''}{place}"
    known = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return f"{known.__name__}{place}"


def _facts(channel: Channel) -> Facts:
    message = channel.receive()
    if message is None or message["type"] != "facts":
        raise SystemExit(1)
    return from_json(Facts, message["facts"])


if __name__ == "__main__":
    sys.exit(main())
