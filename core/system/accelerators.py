"""The accelerators of this machine, found without a framework: by their drivers' tools, /sys and the environment.

A GB is 2**30 bytes here. What can't be read is left out or None; nothing raises.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

Kind = Literal["cpu", "cuda", "rocm", "apple", "tpu"]

TOOL_SECONDS = 10.0  # a driver that does not answer by then counts as missing
WSL_TOOLS = "/usr/lib/wsl/lib"  # where WSL puts Windows' nvidia-smi, often not on the PATH
NVIDIA_FIELDS = "index,uuid,name,memory.total,memory.free,utilization.gpu,driver_version"


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One device that a backend may train on."""

    name: str  # as its driver calls it: "NVIDIA GeForce RTX 4090", "Apple M4 Max", "TPU v5 lite"
    kind: Kind
    memory_gb: float  # of the device; of the machine where memory is unified
    free_gb: float | None
    driver: str  # its version, empty if unknown
    busy: float | None = None  # share of the driver's last sampling period in which it computed


def accelerators(root: Path = Path("/")) -> tuple[Accelerator, ...]:
    """Every accelerator that this process may see. Tests pass another `root` of /sys and /dev."""
    return (*nvidia(), *rocm(root), *apple(), *tpu(root))


def users(root: Path = Path("/")) -> tuple[int, ...]:
    """Ids of the processes that compute on an NVIDIA or AMD GPU, as far as this process may see them."""
    cuda = tool_output("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader,nounits").split()
    kfd = (path.name for path in _listed(root / "sys/class/kfd/kfd/proc"))
    return tuple(sorted({int(pid) for pid in (*cuda, *kfd) if pid.isdecimal()}))


def tool_output(*command: str) -> str:
    """What a tool prints; empty if it is absent, fails or takes too long."""
    tool = shutil.which(command[0], path=os.pathsep.join((os.environ.get("PATH", os.defpath), WSL_TOOLS)))
    if tool is None:
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [tool, *command[1:]],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=TOOL_SECONDS,
            check=True,
        )
        return done.stdout
    return ""


def nvidia() -> Iterator[Accelerator]:
    """NVIDIA's GPUs in the order of nvidia-smi, without those that CUDA_VISIBLE_DEVICES hides."""
    output = tool_output("nvidia-smi", f"--query-gpu={NVIDIA_FIELDS}", "--format=csv,noheader,nounits")
    fields = NVIDIA_FIELDS.count(",") + 1
    rows = [row for row in csv.reader(output.splitlines(), skipinitialspace=True) if len(row) == fields]
    for index in visible(("CUDA_VISIBLE_DEVICES",), [tuple(row[:2]) for row in rows]):
        name, total, free, busy, driver = rows[index][2:]
        whole, left = _number(total, 1024), _number(free, 1024)
        if whole is None:  # [N/A] on a GB10, whose memory is the machine's
            whole, left = (size / 2**30 for size in psutil.virtual_memory()[:2])
        yield Accelerator(
            name=name,
            kind="cuda",
            memory_gb=whole,
            free_gb=left,
            driver=driver if _number(driver.partition(".")[0]) is not None else "",
            busy=_number(busy, 100),
        )


def rocm(root: Path) -> Iterator[Accelerator]:
    """AMD's GPUs as the kernel's compute driver lists them, without those that the environment hides."""
    nodes = []
    for node in _listed(root / "sys/class/kfd/kfd/topology/nodes"):
        properties = dict(line.split(maxsplit=1) for line in _text(node / "properties").splitlines() if " " in line)
        if int(_number(properties.get("simd_count", "")) or 0):  # a processor has none
            nodes.append(properties)
    ids = [(str(index), f"GPU-{_hex(node.get('unique_id', ''))}") for index, node in enumerate(nodes)]
    left = visible(("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"), ids)
    names = _amd_names() if left else {}
    for index in left:
        card = root / "sys/class/drm" / f"renderD{nodes[index].get('drm_render_minor', '')}" / "device"
        total, used = (_number(_text(card / f"mem_info_vram_{what}"), 2**30) for what in ("total", "used"))
        if total is None:  # a container shows the node but not the card
            continue
        yield Accelerator(
            name=names.get(card.resolve().name.lower()) or _text(card / "product_name") or f"AMD {_arch(nodes[index])}",
            kind="rocm",
            memory_gb=total,
            free_gb=None if used is None else total - used,
            driver=_text(root / "sys/module/amdgpu/version"),
            busy=_number(_text(card / "gpu_busy_percent"), 100),
        )


def apple() -> Iterator[Accelerator]:
    """The GPU of Apple silicon, which shares the machine's memory; its driver is macOS."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return
    lines = tool_output("sysctl", "-n", "machdep.cpu.brand_string", "hw.memsize").splitlines()
    if len(lines) == 2 and (size := _number(lines[1], 2**30)) is not None:
        free = psutil.virtual_memory().available / 2**30
        driver = platform.mac_ver()[0]
        yield Accelerator(name=lines[0].strip(), kind="apple", memory_gb=size, free_gb=free, driver=driver)


@dataclass(frozen=True)
class _Chip:
    """A TPU generation: JAX's name of its devices, their memory, its names in TPU_ACCELERATOR_TYPE and its PCI ids."""

    name: str
    memory_gb: float
    types: tuple[str, ...]
    pci: tuple[str, ...]  # as in jax/_src/hardware_utils.py; Google's other PCI devices are disks and networks


# Memory: Google's pages on each generation; of v2 and v3 a device is one of a chip's two cores.
_CHIPS = (
    _Chip("TPU v2", 8, ("v2",), ()),
    _Chip("TPU v3", 16, ("v3",), ("0x0027",)),
    _Chip("TPU v4", 32, ("v4",), ("0x005e",)),
    _Chip("TPU v5", 95, ("v5p",), ("0x0062",)),
    _Chip("TPU v5 lite", 16, ("v5e", "v5litepod", "v5lite"), ("0x0063",)),
    _Chip("TPU v6 lite", 32, ("v6e",), ("0x006f",)),
    _Chip("TPU7x", 192, ("tpu7x", "v7x"), ("0x0076",)),
)
_GOOGLE = "0x1ae0"


def tpu(root: Path) -> Iterator[Accelerator]:
    """The TPU chips of this host, one each."""
    pci = [
        _text(path / "device")
        for path in _listed(root / "sys/bus/pci/devices")
        if _text(path / "vendor") == _GOOGLE  # the order is the bus's
    ]
    chips = [chip for device in pci for chip in _CHIPS if device in chip.pci]
    kind = os.environ.get("TPU_ACCELERATOR_TYPE", "").lower().partition("-")[0]
    named = next((chip for chip in _CHIPS if kind in chip.types), None)
    if not chips:  # a container may hide the bus and show the chips' files
        accel = sum(path.name.removeprefix("accel").isdecimal() for path in _listed(root / "dev"))
        vfio = sum(path.name.isdecimal() for path in _listed(root / "dev/vfio"))  # a passed-on GPU looks the same
        if named is not None:
            chips = [named] * (accel or vfio or 1)
        elif accel:
            chips = [_Chip("TPU", 16, (), ())] * accel  # of an unknown generation: none has less memory
    driver = ""
    if chips:
        with contextlib.suppress(metadata.PackageNotFoundError):
            driver = metadata.version("libtpu")
    for chip in chips:
        yield Accelerator(name=chip.name, kind="tpu", memory_gb=chip.memory_gb, free_gb=None, driver=driver)


def visible(variables: Sequence[str], identities: Sequence[tuple[str, ...]]) -> list[int]:
    """The devices that the first variable that is set leaves visible, in its order: by index or the beginning of an id.

    `identities` holds each device's index and id.
    """
    named = next((value for name in variables if (value := os.environ.get(name)) is not None), None)
    if named is None or "MIG-" in named:  # a slice of a GPU has an id of its own
        return list(range(len(identities)))
    left: list[int] = []
    for word in map(str.strip, named.split(",")):
        fits = [
            number
            for number, (index, unique) in enumerate(identities)
            if word == index or (word.startswith("GPU-") and unique.startswith(word))
        ]
        if len(fits) != 1 or fits[0] in left:
            break  # as in CUDA: what follows a missing device is not visible
        left += fits
    return left


def _amd_names() -> dict[str, str]:
    """AMD's product names by PCI address, from whichever tool is installed."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        listed = json.loads(tool_output("amd-smi", "static", "--asic", "--bus", "--json"))
        gpus: list[dict[str, Any]] = listed["gpu_data"] if isinstance(listed, dict) else listed
        return {str(gpu["bus"]["bdf"]).lower(): str(gpu["asic"]["market_name"]) for gpu in gpus}
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        cards = json.loads(tool_output("rocm-smi", "--showproductname", "--showbus", "--json"))
        found = {}
        for card in cards.values():
            names = {key.lower(): value for key, value in card.items()}
            if "pci bus" in names and (name := names.get("card series") or names.get("device name")):
                found[names["pci bus"].lower()] = name
        return found
    return {}


def _arch(properties: dict[str, str]) -> str:
    """ROCm's name of an architecture: 90402 is gfx942, 90010 is gfx90a."""
    version = int(_number(properties.get("gfx_target_version", "")) or 0)
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version else "GPU"


def _hex(decimal: str) -> str:
    return f"{int(decimal):x}" if decimal.isdecimal() else ""


def _number(text: str, unit: float = 1) -> float | None:
    """The number that a tool or the kernel wrote, divided by `unit`; None if it is no number."""
    with contextlib.suppress(ValueError):
        return float(text) / unit
    return None


def _text(path: Path) -> str:
    """A small file's content without the space around it; empty if it can't be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, numbers in their order; nothing if it can't be read."""
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name))
    return []
