"""Kernels keep within their rows of the table when they are compiled for GPUs that are not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

candidates = pytest.importorskip("matmamba_vision.ops.triton.candidates", reason="triton is not installed")
ahead = pytest.importorskip("matmamba_vision.ops.triton.ahead")
compiled_kernels = pytest.importorskip("compiled_kernels")
ROOT = Path(__file__).parents[2]
# Another Triton, which `make kernels` installs.
OLDER = ROOT / "build" / "triton36"
RECORD = ROOT / "benchmarks" / "results" / "compiled_kernels.json"
# What is compiled: on Hopper GPUs 3.6 is refused for its wrong gradients, and so never launched there.
COMPILED = (("3.7", 90), ("3.7", 80), ("3.6", 80))
# Kernels that compile quickly: with products and without, in inference, in training and for each part.
SAMPLE = ("norm_residual_kernel", "conv_backward_kernel", "carry_kernel", "scores_kernel")


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
    done = subprocess.run(command, env=known, capture_output=True, text=True, check=False, timeout=20_000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    return rows


def rows_of_the_record() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(RECORD.read_text())["rows"]
    return rows


def test_the_record_is_of_the_kernels_as_they_are() -> None:
    """Of the kernels' source, and of every row of the table for every section; nothing more is in it."""
    assert json.loads(RECORD.read_text())["sources"] == compiled_kernels.sources(), "make kernels"
    rows, found = rows_of_the_record(), dict[Any, list[tuple[str, str, str]]]()
    for row in rows:
        found.setdefault(compiled_kernels.section_of(row), []).append(
            (row["kernel"], row["class"], row["launch"])
        )
    wanted = {(version, gpu, dtype) for version, gpu in COMPILED for dtype in compiled_kernels.DTYPES}
    assert set(compiled_kernels.wanted_sections()) == set(found) == wanted
    for section, names in found.items():
        assert len(names) == len(set(names))
        assert set(names) == compiled_kernels.names_of(section), f"make kernels: {section}"


def test_nothing_recorded_takes_more_than_its_row_allows() -> None:
    """By the rows as they are now: no spill, tensor cores where there are products, registers, memory."""
    launches = {
        (kernel, str(trial.shapes), launch.name): launch
        for gpu in compiled_kernels.GPUS
        for trial in compiled_kernels.wanted_trials(compiled_kernels.DTYPES, gpu)
        for kernel in trial.kernels
        for launch in candidates.rows_of(kernel, trial.shapes)
    }
    rows = rows_of_the_record()
    assert {row["kernel"] for row in rows} == set(candidates.TABLE)
    for row in rows:
        figures = {name: row[name] for name in compiled_kernels.FIGURES}
        made = ahead.MachineCode(kernel=row["kernel"], gpu=row["gpu"], seconds=0.0, **figures)
        launch = launches[row["kernel"], row["class"], row["launch"]]
        assert row["faults"] == compiled_kernels.faults_of(made, launch) == [], row
        # Whatever has products on tensor cores has to have them.
        assert launch.products or not made.wgmma + made.mma, row


def test_a_few_rows_compile_to_what_is_recorded(tmp_path: Path) -> None:
    """Afresh, in a process and a cache of their own."""
    rows = compile_all(tmp_path, "--gpus", "90", "--dtypes", "bfloat16", "--kernels", *SAMPLE)
    assert {row["kernel"] for row in rows} == set(SAMPLE)
    recorded = {
        (row["kernel"], row["class"], row["launch"]): row
        for row in rows_of_the_record()
        if compiled_kernels.section_of(row) == compiled_kernels.section_of(rows[0])
    }
    for row in rows:
        assert row == recorded[row["kernel"], row["class"], row["launch"]]


def test_another_source_or_table_makes_a_record_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "record.json"
    shutil.copy(RECORD, file)
    section = compiled_kernels.section_of(rows_of_the_record()[0])
    assert len(compiled_kernels.still_true(file)) == len(rows_of_the_record())
    with monkeypatch.context() as changed:
        changed.setattr(compiled_kernels, "names_of", lambda known: {("k", "c", "l")})
        assert compiled_kernels.still_true(file) == []
    changed_alone = compiled_kernels.sources() | {"scan_kernel": "other"}
    monkeypatch.setattr(compiled_kernels, "sources", lambda: changed_alone)
    left = {row["kernel"] for row in compiled_kernels.still_true(file)}
    assert left == set(candidates.TABLE) - {"scan_kernel"}
    assert compiled_kernels.names_of(section)


def test_a_kernel_is_of_its_own_files_and_those_that_they_import() -> None:
    """Its own, what launches it, and what both take of others; nothing of other kernels."""
    files = compiled_kernels._with_imports({Path("block/scan_state.py")})
    assert {file.stem for file in files} >= {"scan_state", "scan_state_kernel", "tile_parts", "configs"}
    assert not [file for file in files if "training" in file.stem or "ssd" in file.stem]
    found = compiled_kernels.sources()
    assert set(found) == set(candidates.TABLE)
    assert found["scan_state_kernel"] != found["conv_scores_kernel"]


def test_comments_are_no_other_source() -> None:
    plain, signed = compiled_kernels._without_documentation, "@triton.jit\n{}"
    one = signed.format('def f():\n    """Says."""\n    return 1  # why\n')
    assert plain(one) == plain(signed.format("def f():\n    return 1\n"))
    assert plain(one) != plain(signed.format("def f():\n    return 2\n"))


@pytest.mark.slow
def test_every_row_compiles_for_every_gpu(tmp_path: Path) -> None:
    """All that `make kernels` does, and with the older Triton where that has installed it."""
    older = ["--also", str(OLDER)] if OLDER.is_dir() else []
    rows = compile_all(tmp_path, *older)
    assert {row["gpu"] for row in rows} == set(compiled_kernels.GPUS)
    assert {row["kernel"] for row in rows} == set(candidates.TABLE)


def code(**values: Any) -> Any:
    known = {"registers": 128, "spilled": 0, "shared": 50_000, "wgmma": 2, "mma": 0, "exponentials": 1}
    return ahead.MachineCode(kernel="k", gpu=90, seconds=0.1, **known | values)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({}, None),
        ({"spilled": 8}, "spills 8 bytes"),
        ({"registers": 130}, "takes 130 registers, 128 are allowed"),
        ({"shared": 60_000}, "takes 60000 bytes of shared memory, 57344 are allowed"),
        ({"wgmma": 0, "mma": 4}, None),
        ({"wgmma": 0}, "has no product on tensor cores"),
    ],
)
def test_what_a_row_does_not_allow_is_a_fault(values: dict[str, Any], fault: str | None) -> None:
    launch = candidates.Launch(warps=4, programs=4, products=True)
    assert compiled_kernels.faults_of(code(**values), launch) == ([fault] if fault else [])


def test_a_kernel_that_does_not_compile_is_a_fault() -> None:
    shapes, launch = candidates.Shapes(dtype="bfloat16", channels=64), candidates.Launch(warps=4)
    row = compiled_kernels.Row(kernel="k", shapes=shapes, launch=launch, first=True, jobs=())
    found = compiled_kernels.described(row, [code(registers=40), "does not compile: X: y"], 90)
    assert found["faults"] == ["does not compile: X: y"]
    assert (found["registers"], found["class"]) == (40, "64 channels, bfloat16")
