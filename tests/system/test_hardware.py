"""What this machine is: accelerators from what drivers' tools print and from made-up trees of /sys and /dev."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.system import accelerators, hardware
from presets import devices

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="tools are made up as scripts that name their python")

Tool = Callable[..., None]
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TPU_ACCELERATOR_TYPE")

TWO_GEFORCE = """\
0, GPU-6a1f0e4c-7b7f-9a53-34a5-0d5c3f9a2b11, NVIDIA GeForce RTX 4090, 24564, 23028, 3, 570.133.07
1, GPU-c2d9be70-18f5-2f0e-8cb1-5b0c6f1d7e42, NVIDIA GeForce RTX 3090, 24576, 1204, 97, 570.133.07
"""
GB10 = "0, GPU-24d24f17-5af5-f99f-ae1f-b6010fc276df, NVIDIA GB10, [N/A], [N/A], 0, 580.159.03\n"
NO_DRIVER = """\
NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver \
is installed and running.
"""


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tool of this machine is found, and the environment chooses no device."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(accelerators, "WSL_TOOLS", str(tmp_path / "bin"))
    for name in VISIBLE:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """Makes a tool up: what it prints when its arguments hold all of the given words, else it fails."""

    def tool(name: str, prints: str, *words: str, status: int = 0, seconds: float = 0.0) -> None:
        path = tmp_path / "bin" / name
        path.write_text(
            f"#!{sys.executable} -S\nimport sys, time\n"
            f"if not all(word in ' '.join(sys.argv) for word in {words!r}): sys.exit(2)\n"
            f"time.sleep({seconds})\nsys.stdout.write({prints!r})\nsys.exit({status})\n"
        )
        path.chmod(0o755)

    return tool


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert accelerators.accelerators(tmp_path) == ()
    assert accelerators.users(tmp_path) == ()


def test_nvidias_are_read_from_nvidia_smi(tool: Tool, tmp_path: Path) -> None:
    tool("nvidia-smi", TWO_GEFORCE, f"--query-gpu={accelerators.NVIDIA_FIELDS}", "csv,noheader,nounits")
    first, second = accelerators.accelerators(tmp_path)
    assert first == accelerators.Accelerator(
        name="NVIDIA GeForce RTX 4090",
        kind="cuda",
        memory_gb=24564 / 1024,
        free_gb=23028 / 1024,
        driver="570.133.07",
        busy=0.03,
    )
    assert (second.name, second.free_gb, second.busy) == ("NVIDIA GeForce RTX 3090", 1204 / 1024, 0.97)


def test_unified_memory_is_the_machines(tool: Tool) -> None:
    tool("nvidia-smi", GB10)
    (found,) = accelerators.nvidia()
    assert found.memory_gb == psutil.virtual_memory().total / 2**30
    assert found.free_gb is not None and 0 < found.free_gb < found.memory_gb
    assert (found.name, found.driver) == ("NVIDIA GB10", "580.159.03")


def test_a_driver_that_fails_or_hangs_has_no_devices(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("nvidia-smi", NO_DRIVER, status=9)
    assert list(accelerators.nvidia()) == []
    tool("nvidia-smi", TWO_GEFORCE, seconds=30)
    monkeypatch.setattr(accelerators, "TOOL_SECONDS", 0.3)
    assert list(accelerators.nvidia()) == []


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("", []),
        ("-1", []),
        ("0", ["4090"]),
        ("1,0", ["3090", "4090"]),
        ("1, 7, 0", ["3090"]),  # CUDA stops at what isn't there
        ("GPU-c2d9be70", ["3090"]),
        ("GPU-", []),  # fits both
        ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd", ["4090", "3090"]),
    ],
)
def test_what_cuda_may_not_see_is_left_out(
    value: str, left: list[str], tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("nvidia-smi", TWO_GEFORCE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert [one.name.split()[-1] for one in accelerators.nvidia()] == left


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def amd_tree(root: Path) -> None:
    """Two processors and two MI300X, of which a container shows the first card's files only."""
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    for number in (0, 1):
        write(nodes / str(number) / "properties", "cpu_cores_count 96\nsimd_count 0\ngfx_target_version 0")
    for number, (minor, unique) in enumerate([(128, 0x2F1A_33C4_0B77_9E05), (136, 0x0C44)], 2):
        gpu = f"cpu_cores_count 0\nsimd_count 1216\ngfx_target_version 90402\ndrm_render_minor {minor}\n"
        write(nodes / str(number) / "properties", gpu + f"unique_id {unique}")
    card = root / "sys/devices/pci0000:00/0000:05:00.0"
    write(card / "mem_info_vram_total", str(192 * 2**30))
    write(card / "mem_info_vram_used", str(48 * 2**30))
    write(card / "gpu_busy_percent", "12")
    link = root / "sys/class/drm/renderD128"
    link.mkdir(parents=True)
    (link / "device").symlink_to(os.path.relpath(card, link))
    write(root / "sys/module/amdgpu/version", "6.10.5")
    (root / "sys/class/kfd/kfd/proc/4711").mkdir(parents=True)


def test_amds_are_read_from_the_kernels_tree(tmp_path: Path) -> None:
    amd_tree(tmp_path)
    (found,) = accelerators.accelerators(tmp_path)
    assert found == accelerators.Accelerator(
        name="AMD gfx942", kind="rocm", memory_gb=192.0, free_gb=144.0, driver="6.10.5", busy=0.12
    )


def test_amds_are_left_out_that_rocm_may_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    amd_tree(tmp_path)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")  # the card whose files are hidden
    assert list(accelerators.rocm(tmp_path)) == []
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "GPU-2f1a33c40b779e05")
    assert len(list(accelerators.rocm(tmp_path))) == 1


AMD_SMI = [{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X"}, "bus": {"bdf": "0000:05:00.0"}}]
ROCM_SMI = {
    "card0": {"Card Series": "AMD Instinct MI300X OAM", "Card Model": "0x74a1", "PCI Bus": "0000:05:00.0"},
    "system": {"Driver version": "6.10.5"},
}


@pytest.mark.parametrize(
    ("name", "got", "called"),
    [
        ("amd-smi", AMD_SMI, "AMD Instinct MI300X"),
        ("amd-smi", {"gpu_data": AMD_SMI}, "AMD Instinct MI300X"),
        ("rocm-smi", ROCM_SMI, "AMD Instinct MI300X OAM"),
        ("rocm-smi", {"card0": {"Device Name": "Radeon RX 7900 XTX", "PCI Bus": "0000:05:00.0"}}, "Radeon RX 7900 XTX"),
        ("rocm-smi", {"card0": {"Card Series": "of another card", "PCI Bus": "0000:C4:00.0"}}, "AMD gfx942"),
        ("amd-smi", "ERROR: no devices", "AMD gfx942"),
    ],
)
def test_amds_product_names_come_from_its_tools(
    name: str, got: object, called: str, tool: Tool, tmp_path: Path
) -> None:
    amd_tree(tmp_path)
    tool(name, got if isinstance(got, str) else json.dumps(got), "--json")
    assert [one.name for one in accelerators.rocm(tmp_path)] == [called]


def test_those_that_compute_on_a_gpu_are_known(tool: Tool, tmp_path: Path) -> None:
    amd_tree(tmp_path)
    tool("nvidia-smi", "114687\n2201\n[N/A]\n", "--query-compute-apps=pid")
    assert accelerators.users(tmp_path) == (2201, 4711, 114687)


def test_apples_gpu_has_the_machines_memory(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("sysctl", "Apple M4 Max\n38654705664\n", "machdep.cpu.brand_string", "hw.memsize")
    assert list(accelerators.apple()) == [] or platform.system() == "Darwin"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    (found,) = accelerators.apple()
    assert (found.name, found.kind, found.memory_gb, found.driver) == ("Apple M4 Max", "apple", 36.0, "26.1")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")  # an Intel Mac, or a Python under Rosetta
    assert list(accelerators.apple()) == []


def on_the_bus(root: Path, *ids: tuple[str, str]) -> None:
    for number, (vendor, device) in enumerate(ids):
        write(root / f"sys/bus/pci/devices/0000:00:{number:02x}.0/vendor", vendor)
        write(root / f"sys/bus/pci/devices/0000:00:{number:02x}.0/device", device)


def test_tpus_are_known_on_the_bus_by_their_ids(tmp_path: Path) -> None:
    google_disk, google_network, intel = ("0x1ae0", "0x001f"), ("0x1ae0", "0x0042"), ("0x8086", "0x0063")
    on_the_bus(tmp_path, google_disk, ("0x1ae0", "0x0063"), google_network, ("0x1ae0", "0x0063"), intel)
    found = accelerators.accelerators(tmp_path)
    assert [(one.name, one.kind, one.memory_gb, one.free_gb) for one in found] == [("TPU v5 lite", "tpu", 16, None)] * 2
    known = devices.matching(found[0].name, found[0].memory_gb)
    assert known is not None and known.key == "tpu-v5e"


@pytest.mark.parametrize(
    ("kind", "files", "found"),
    [
        ("v6e-4", ["vfio/0", "vfio/1", "vfio/2", "vfio/3", "vfio/vfio"], [("TPU v6 lite", 32)] * 4),
        ("v5litepod-1", [], [("TPU v5 lite", 16)]),
        ("v4-8", ["accel0", "accel1", "accel2", "accel3"], [("TPU v4", 32)] * 4),
        ("", ["accel0"], [("TPU", 16)]),
        ("", ["vfio/0", "vfio/vfio"], []),  # a device passed on to a virtual machine, whatever it is
        ("", ["accel/accel0"], []),  # Linux's own class of accelerators: an NPU
    ],
)
def test_tpus_of_a_container_are_known_by_its_environment(
    kind: str, files: list[str], found: list[tuple[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind:
        monkeypatch.setenv("TPU_ACCELERATOR_TYPE", kind)
    for name in files:
        write(tmp_path / "dev" / name, "")
    assert [(one.name, one.memory_gb) for one in accelerators.tpu(tmp_path)] == found


def test_the_processor_has_a_name_and_a_peak() -> None:
    assert hardware.processor()
    assert 1e8 < hardware.matrix_flops() < 1e14
