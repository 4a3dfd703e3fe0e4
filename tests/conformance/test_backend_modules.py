"""Every backend's fixed side has the functions of the protocol, with its names and signatures."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from backends.base import Backend

FRAMEWORKS = ("torch", "jax", "jaxlib", "flax", "optax", "mlx")
PROTOCOL = {name: value for name, value in vars(Backend).items() if inspect.isfunction(value) and name[0] != "_"}


def shape_of(function: object) -> list[tuple[str, object, object, object]]:
    """Names, kinds, defaults and annotations of the parameters and of what is returned."""
    assert inspect.isfunction(function)
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    told = [(p.name, p.kind, p.default, p.annotation) for p in parameters]
    return [*told, ("return", None, None, signature.return_annotation)]


def test_there_is_something_to_compare():
    assert {"missing", "environment", "resolve", "seed", "losses", "logits_at"} <= set(PROTOCOL)


@pytest.mark.parametrize("backend", backends.names())
def test_a_backend_has_the_protocols_functions(backend: str):
    module = backends.get(backend)
    for name, expected in PROTOCOL.items():
        assert shape_of(getattr(module, name)) == shape_of(expected), f"{backend}.{name}"
        assert getattr(module, name).__doc__, f"{backend}.{name} says nothing"
    assert isinstance(module.has_model, bool)


@pytest.mark.parametrize("backend", backends.names())
def test_a_backends_folder_has_the_same_files(backend: str):
    folder = backends.trainer_path(backend).parent
    assert {path.name for path in folder.glob("*.py")} == {"__init__.py", "backend.py", "train.py"}


# What each was seen to raise, as `core.trial.child.worker.describe` tells it, and what must not pass for it.
OUT_OF_MEMORY = {
    "numpy": ["MemoryError (line 3 of train.py)", "_ArrayMemoryError: Unable to allocate 8.00 EiB for an array"],
    "torch": [
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "RuntimeError: MPS backend out of memory (MPS allocated: 5.50 GB, other allocations: 14.76 GB)",
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
        ),
        "AcceleratorError: CUDA error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "BackendCompilerFailed: backend='inductor' raised: OutOfMemoryError: CUDA out of memory.",
    ],
    "jax": [
        "JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 35184372088832 bytes.",
        "XlaRuntimeError: RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.",
    ],
    "mlx": [
        (
            "RuntimeError: [metal::malloc] Attempting to allocate 48736917632 bytes which is greater than the maximum "
            "allowed buffer size of 30150672384 bytes."
        ),
        "RuntimeError: [malloc_or_wait] Unable to allocate 131072 bytes.",
        (
            "ended by SIGABRT libc++abi: terminating due to uncaught exception std::runtime_error: [METAL] Command "
            "buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
        ),
    ],
}
OTHERWISE = [
    "ValueError: operands could not be broadcast together",
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied",
    "diverged: the loss is 40 at step 3",
    "silent for 30 s",
    "ended by SIGSEGV",
    "OSError: [Errno 28] No space left on device",
]


@pytest.mark.parametrize("backend", backends.names())
def test_a_backend_knows_its_words_for_too_little_memory(backend: str):
    told = backends.get(backend).out_of_memory
    assert [said for said in OUT_OF_MEMORY[backend] if not told(said)] == []
    assert told("MemoryError")
    assert [said for said in OTHERWISE if told(said)] == []


@pytest.mark.parametrize("backend", backends.names())
def test_a_backends_module_loads_no_framework(backend: str, tmp_path: Path):
    code = (
        f"import sys, pathlib, backends; b = backends.get({backend!r}); b.missing();"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        f"b.out_of_memory('nothing'); b.environment(folder, folder, 'cpu');"
        f"print(*({{*{FRAMEWORKS!r}}} & set(sys.modules)))"
    )
    root = Path(backends.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.split() == []
