"""Kernels keep within their rows of the table when they are compiled for GPUs that are not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

candidates = pytest.importorskip("matmamba_vision.ops.triton.candidates", reason="triton is not installed")
ahead = pytest.importorskip("matmamba_vision.ops.triton.ahead")
compiled_kernels = pytest.importorskip("compiled_kernels")
kernel_sources = pytest.importorskip("kernel_sources")
ROOT = Path(__file__).parents[2]
# Another Triton, which `make kernels` installs.
OLDER = ROOT / "build" / "triton36"
RECORD = ROOT / "benchmarks" / "results" / "compiled_kernels.json"
COMPILED = (("3.7", 90), ("3.7", 80), ("3.6", 90), ("3.6", 80))
# On Hopper GPUs 3.6 is refused for its wrong gradients: it never computes there, whatever it compiles.
REFUSED = {("3.6", 90)}
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
    record = json.loads(RECORD.read_text())
    assert record["sources"] == compiled_kernels.sources(), "make kernels"
    assert "before" not in record, "make kernels"
    assert record["refused"] == compiled_kernels.refused()
    assert {(each["triton"], each["gpu"]) for each in record["refused"]} == REFUSED
    rows, found = rows_of_the_record(), dict[Any, list[tuple[str, str, str]]]()
    assert rows == compiled_kernels.in_order(rows)
    for row in rows:
        found.setdefault(compiled_kernels.section_of(row), []).append(
            (row["kernel"], row["class"], row["launch"])
        )
    wanted = {(version, gpu, dtype) for version, gpu in COMPILED for dtype in compiled_kernels.DTYPES}
    assert set(compiled_kernels.wanted_sections()) == set(found) == wanted
    for section, names in found.items():
        assert len(names) == len(set(names))
        assert set(names) == compiled_kernels.names_of(section), f"make kernels: {section}"


def wrong(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that do not keep within the table as it is now, or of which the record says something else.

    No spill, tensor cores where there are products, registers, shared memory. What is refused when it is to
    compute may have faults, if the record tells them.
    """
    launches = {
        (gpu, kernel, str(trial.shapes), launch.name): launch
        for gpu in compiled_kernels.GPUS
        for dtype in compiled_kernels.DTYPES
        for trial in compiled_kernels.wanted_trials(dtype, gpu)
        for kernel in trial.kernels
        for launch in candidates.rows_of(kernel, trial.shapes)
    }
    found = []
    for row in rows:
        launch = launches[row["gpu"], row["kernel"], row["class"], row["launch"]]
        figures = {name: row[name] for name in compiled_kernels.FIGURES}
        made = ahead.MachineCode(kernel=row["kernel"], gpu=row["gpu"], seconds=0.0, **figures)
        # Whatever has products on tensor cores has to have them.
        faults = compiled_kernels.faults_of(made, replace(launch, products=launch.products or _has(row)))
        is_refused = compiled_kernels.section_of(row)[:2] in REFUSED
        if row["faults"] != faults or (faults and not is_refused) or _allowed(launch, row) != row["allowed"]:
            found.append(row)
    return found


def _has(row: dict[str, Any]) -> bool:
    return bool(row["wgmma"] + row["mma"])


def _allowed(launch: Any, row: dict[str, Any]) -> dict[str, int]:
    return {"registers": launch.most_registers, "shared": launch.most_shared(row["gpu"])}


def test_nothing_recorded_takes_more_than_its_row_allows() -> None:
    rows = rows_of_the_record()
    assert {row["kernel"] for row in rows} == set(candidates.TABLE)
    assert wrong(rows) == []


@pytest.mark.parametrize("name", ["spilled", "registers", "shared", "tensor cores"])
@pytest.mark.parametrize("told", [False, True])
def test_a_record_that_says_otherwise_is_wrong(name: str, told: bool) -> None:
    """One byte, one register or no product, in one row of many; even where it is told as a fault."""
    rows = [row for row in rows_of_the_record() if row["kernel"] in (*SAMPLE, "scan_kernel")]
    rows = [row for row in rows if compiled_kernels.section_of(row)[:2] not in REFUSED]
    row = next(row for row in rows if row["kernel"] == "scan_kernel")
    assert row["wgmma"] > 0 == row["spilled"]
    fault = {
        "spilled": ({"spilled": 4}, "spills 4 bytes"),
        "registers": ({"registers": row["allowed"]["registers"] + 1}, "registers"),
        "shared": ({"shared": row["allowed"]["shared"] + 1}, "shared memory"),
        "tensor cores": ({"wgmma": 0, "mma": 0}, "has no product on tensor cores"),
    }
    changed, said = fault[name]
    row |= changed
    if told:
        launch = next(
            launch
            for trial in compiled_kernels.wanted_trials("bfloat16", row["gpu"])
            for launch in candidates.rows_of("scan_kernel", trial.shapes)
            if (str(trial.shapes), launch.name) == (row["class"], row["launch"])
        )
        figures = {name: row[name] for name in compiled_kernels.FIGURES}
        made = ahead.MachineCode(kernel="scan_kernel", gpu=row["gpu"], seconds=0.0, **figures)
        row["faults"] = compiled_kernels.faults_of(made, launch)
        assert said in row["faults"][0]
    assert wrong(rows) == [row]


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
    rows = rows_of_the_record()
    assert compiled_kernels.kept_rows(file) == (rows, [])
    with monkeypatch.context() as changed:
        changed.setattr(compiled_kernels, "names_of", lambda known: {("k", "c", "l")})
        assert compiled_kernels.kept_rows(file) == ([], [])
    changed_alone = compiled_kernels.sources() | {"scan_kernel": "other"}
    monkeypatch.setattr(compiled_kernels, "sources", lambda: changed_alone)
    kept, doubtful = compiled_kernels.kept_rows(file)
    assert {row["kernel"] for row in kept} == set(candidates.TABLE) - {"scan_kernel"}
    assert {row["kernel"] for row in doubtful} == {"scan_kernel"}


def test_what_is_compiled_as_before_is_carried_over(tmp_path: Path) -> None:
    """Of other files, but of the same functions, signature and options; what is not is compiled again."""
    file = tmp_path / "compiled.json"
    rows = [
        row
        for row in rows_of_the_record()
        if row["kernel"] == "norm_residual_kernel"
        and str(compiled_kernels.section_of(row)).endswith("float16")
    ]
    section = compiled_kernels.Section("3.7", 90, "bfloat16")
    rows.sort(key=lambda row: compiled_kernels.section_of(row) != section)
    # Figures that no compiler gives.
    rows = [row | {"exponentials": 1234} for row in rows]
    rows[0]["code"] = "other"
    file.write_text(json.dumps({"sources": {}, "rows": rows}))
    found = compile_all(tmp_path, "--gpus", "90", "--dtypes", "bfloat16", "--kernels", "norm_residual_kernel")
    of_section = [row for row in rows if compiled_kernels.section_of(row) == section]
    assert [row["exponentials"] for row in found if row in of_section] == [1234] * (len(of_section) - 1)


def test_the_code_of_a_row_is_of_all_that_is_compiled_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of a kernel, signature, constants and the options that a launch chooses; nothing else."""
    job = ahead.Compilation(
        module="matmamba_vision.ops.triton.block.scan_state_kernel",
        kernel="scan_state_kernel",
        signature={"x": "*bf16"},
        constants={(1,): 64},
        attributes={(0,): [["tt.divisibility", 16]]},
        options={"num_warps": 4, "num_stages": 2, "arch": "sm90"},
    )
    code = kernel_sources.code_of([job])
    assert code == kernel_sources.code_of([replace(job, options=job.options | {"arch": "sm80"})])
    changes: tuple[dict[str, Any], ...] = (
        {"signature": {"x": "*fp16"}},
        {"constants": {(1,): 32}},
        {"attributes": {}},
        {"options": job.options | {"num_warps": 8}},
        {"module": "matmamba_vision.ops.triton.block.norm_residual_kernel", "kernel": "norm_residual_kernel"},
    )
    for changed in changes:
        assert code != kernel_sources.code_of([replace(job, **changed)])
    parts, functions = import_module("matmamba_vision.ops.triton.block.tile_parts"), dict[str, str]()
    kernel_sources._collect(import_module(job.module).scan_state_kernel, functions)
    assert {f"{parts.__name__}.product", f"{job.module}._read"} <= functions.keys()
    monkeypatch.setattr(parts.SEPARABLE, "value", 90.0)
    assert code != kernel_sources.code_of([job])


def test_a_kernel_is_of_its_own_files_and_those_that_they_import() -> None:
    """Its own, what launches it, and what both take of others; nothing of other kernels."""
    files = kernel_sources._with_imports({Path("block/scan_state.py")})
    assert {file.stem for file in files} >= {"scan_state", "scan_state_kernel", "tile_parts", "configs"}
    assert not [file for file in files if "training" in file.stem or "ssd" in file.stem]
    found = compiled_kernels.sources()
    assert set(found) == set(candidates.TABLE)
    assert found["scan_state_kernel"] != found["conv_scores_kernel"]


def test_comments_are_no_other_source() -> None:
    plain, signed = kernel_sources._of_trials, "@triton.jit\n{}"
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
