"""What the profile says of a trace, and that it fits the trainer as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_profile import OPTIMIZER, SHARES, STEP, analyse, share_of

ROOT = Path(__file__).parents[2]
GEMM = "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64"


@pytest.mark.parametrize(
    ("kernel", "operation", "shapes", "share"),
    [
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT", "aten::mm", "[[262144, 512], [512, 2048]]", "products"),
        (GEMM, "aten::mm", "[[262144, 512], [512, 8192]]", "head"),
        ("triton_red_fused__log_softmax__to_copy_mul_nll_loss_forward_tanh_3", "", '""', "head"),
        ("triton_tem_fused_flex_attention_5", "", '""', "attention"),
        ("void pytorch_flash::flash_fwd_kernel<Traits<128>>", "aten::_flash_attention_forward", "", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "aten::_cudnn_attention", "", "attention"),
        ("triton_per_fused__to_copy_add_mean_mul_rsqrt_2", "", '""', "passes"),
        ("Memcpy HtoD (Pinned -> Device)", "aten::copy_", "[[256, 2049]]", "copies"),
        ("Memset (Device)", "", "", "copies"),
    ],
)  # fmt: skip
def test_a_kernels_share_is_read_from_its_name_and_what_launched_it(
    kernel: str, operation: str, shapes: str, share: str
) -> None:
    assert share_of(kernel, operation, shapes, False, 8192) == share
    assert share_of(kernel, operation, shapes, True, 8192) == ("copies" if share == "copies" else "optimizer")


def whole(cat: str, name: str, ts: float, dur: float, tid: int = 1, dims: Any = (), **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args | {"Input Dims": dims}}


def launched(number: int, name: str, launch: float, start: float, dur: float, tid: int = 1) -> list[dict[str, Any]]:
    return [
        whole("cuda_driver", "cuLaunchKernelEx", launch, 2, tid, correlation=number),
        whole("kernel", name, start, dur, 7, correlation=number, stream=7),
    ]


def test_shares_idle_time_and_gaps_of_a_gpus_trace() -> None:
    """Two steps of 1 ms, microseconds in the trace: 400 product, 200 head, 100 passes, 100 optimizer, 200 idle."""
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name"}]
    for step in range(2):
        at, one = step * 1500.0, step * 10
        events += [
            whole("user_annotation", STEP, at, 900),
            whole("user_annotation", OPTIMIZER, at + 600, 100),
            whole("cpu_op", "aten::linear", at + 10, 60),
            whole("cpu_op", "aten::mm", at + 20, 40, dims=[[64, 512], [512, 512]]),
            *launched(one, GEMM, at + 30, at + 100, 400),
            # Backward runs in a thread of its own; its product has the vocabulary among its shapes.
            whole("cpu_op", "aten::mm", at + 200, 40, 2, dims=[[64, 8192], [8192, 512]]),
            *launched(one + 1, GEMM, at + 210, at + 600, 200, 2),
            *launched(one + 2, "triton_poi_fused_add_1", at + 300, at + 800, 100),
            *launched(one + 3, "triton_poi_fused_add_1", at + 650, at + 1000, 100),
        ]
    events += launched(99, "warm_up", 5000, 5000, 1000)  # outside of the steps
    found = analyse(events, 8192, on_device=True)
    assert found["steps"] == 2
    assert found["ms"] == pytest.approx(
        {"products": 0.4, "attention": 0, "head": 0.2, "optimizer": 0.1, "copies": 0, "passes": 0.1}
    )
    assert found["busy_ms"] == pytest.approx(0.8)
    assert found["share"]["products"] == pytest.approx(0.5)
    assert found["idle_in_step_ms"] == pytest.approx(0.2)
    assert found["gap_between_steps_ms"] == pytest.approx(0.5)
    assert found["launches"] == 4
    assert found["longest"][0] == {"name": GEMM, "part": "products", "ms": pytest.approx(0.4), "launches": 1}


def test_on_a_processor_each_operation_counts_the_time_that_is_its_own() -> None:
    events = [
        whole("user_annotation", STEP, 0, 1000),
        whole("cpu_op", "aten::linear", 0, 600),
        whole("cpu_op", "aten::mm", 100, 500, dims=[[8, 64], [64, 256]]),
        whole("cpu_op", "aten::scaled_dot_product_attention", 700, 300),
    ]
    found = analyse(events, 256, on_device=False)
    assert found["ms"]["head"] == pytest.approx(0.5)
    assert found["ms"]["products"] == pytest.approx(0.1)
    assert found["ms"]["attention"] == pytest.approx(0.3)
    assert found["idle_in_step_ms"] == pytest.approx(0.1)


def test_the_trainer_as_it_is_can_be_profiled(tmp_path: Path) -> None:
    """The profile uses names of the PyTorch trainer, which only a run of it holds."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    out, trace = tmp_path / "profile.json", tmp_path / "trace.json.gz"
    words = ["--preset", "smoke", "--device", "cpu", "--out", str(out), "--trace", str(trace)]
    command = [sys.executable, "-m", "benchmarks.gpu_profile", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found == json.loads(done.stdout)
    assert found["profile"]["steps"] == 3
    assert set(found["profile"]["share"]) == set(SHARES)
    assert found["profile"]["share"]["products"] > 0
    assert found["profile"]["share"]["optimizer"] > 0.02
    assert found["step_ms"] > 0 and found["ceilings"]["tflops"] > 0
    assert set(found["attention"]["sdpa"]) == {"forward_ms", "both_ms"}
    assert trace.stat().st_size > 1000
