"""Kernels keep within their rows of the table when they are compiled for GPUs that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

candidates = pytest.importorskip("matmamba_vision.ops.triton.candidates", reason="triton is not installed")
ahead = pytest.importorskip("matmamba_vision.ops.triton.ahead")
compiled_kernels = pytest.importorskip("compiled_kernels")
ROOT = Path(__file__).parents[2]
# Another Triton, which `make kernels` installs.
OLDER = ROOT / "build" / "triton36"


def compile_all(tmp_path: Path, *flags: str) -> list[dict[str, Any]]:
    """In a process in which Triton compiles, with a cache of its own."""
    file = tmp_path / "compiled.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "compiled_kernels.py"),
        "--output",
        str(file),
        *flags,
    ]
    known = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    known["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    done = subprocess.run(command, env=known, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    return rows


def test_every_kernel_compiles_as_it_is_launched(tmp_path: Path) -> None:
    rows = compile_all(tmp_path, "--quick", "--gpus", "90")
    assert {row["kernel"] for row in rows} == set(candidates.TABLE)
    assert all(row["first"] and row["spilled"] == 0 for row in rows)
    products = [row for row in rows if row["kernel"] == "outputs_kernel"]
    assert all(row["wgmma"] for row in products)


@pytest.mark.slow
def test_every_row_compiles_for_every_gpu(tmp_path: Path) -> None:
    rows = compile_all(tmp_path, "--dtypes", "bfloat16")
    assert {row["gpu"] for row in rows} == set(compiled_kernels.GPUS)
    assert {row["kernel"] for row in rows} == set(candidates.TABLE)


@pytest.mark.slow
def test_every_row_compiles_with_an_older_triton(tmp_path: Path) -> None:
    if not OLDER.is_dir():
        pytest.skip("`make kernels` installs it")
    rows = compile_all(tmp_path, "--dtypes", "bfloat16", "--gpus", "90", "--also", str(OLDER))
    assert any(row["triton"].startswith("3.6") for row in rows)


def code(**values: Any) -> Any:
    known = {"registers": 128, "spilled": 0, "shared": 50_000, "wgmma": 2, "mma": 0, "exponentials": 1}
    return ahead.MachineCode(kernel="k", gpu=90, seconds=0.1, **known | values)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({}, None),
        ({"spilled": 8}, "spills 8 bytes, 0 are allowed"),
        ({"registers": 130}, "takes 130 registers, 128 are allowed"),
        ({"shared": 60_000}, "takes 60000 bytes of shared memory, 57344 are allowed"),
        ({"wgmma": 0, "mma": 4}, None),
        ({"wgmma": 0}, "has no product on tensor cores"),
    ],
)
def test_what_a_row_does_not_allow_is_a_fault(values: dict[str, Any], fault: str | None) -> None:
    launch = candidates.Launch(warps=4, programs=4, products=True)
    assert compiled_kernels.faults_of(code(**values), launch) == ([fault] if fault else [])


def test_what_may_spill_elsewhere_may_not_on_hopper() -> None:
    launch, spilling = candidates.Launch(warps=8, elsewhere=16), code(spilled=16, shared=0)
    assert compiled_kernels.faults_of(spilling, launch) == ["spills 16 bytes, 0 are allowed"]
    assert compiled_kernels.faults_of(replace(spilling, gpu=80), launch) == []


def test_a_kernel_that_does_not_compile_is_a_fault() -> None:
    shapes, launch = candidates.Shapes(dtype="bfloat16", channels=64), candidates.Launch(warps=4)
    row = compiled_kernels.Row(kernel="k", shapes=shapes, launch=launch, first=True, jobs=())
    found = compiled_kernels.described(row, [code(registers=40), "does not compile: X: y"], 90)
    assert found["faults"] == ["does not compile: X: y"]
    assert (found["registers"], found["class"]) == (40, "64 channels, bfloat16")
