"""The comparison with an emulated ARM machine: it holds where there is one, and any difference is found."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import arm
import arm_machine
import numpy as np
import other_machine
import pytest
from matmamba_vision.native import library

WHY_NOT = arm_machine.missing()


@pytest.mark.arm
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_an_arm_machine_computes_and_finds_the_same(tmp_path: Path) -> None:
    assert arm.main(["--output", str(tmp_path / "arm.json")]) == 0
    result = json.loads((tmp_path / "arm.json").read_text())
    assert result["there"]["instructions"] == "neon"
    assert result["there"]["machine"] == "aarch64"
    by = {name.partition(",")[0]: set(said.values()) for name, said in result["encoded_by"].items()}
    assert by["native"] == {"native (neon)"}
    assert all(said.startswith("onnx") for said in by["onnx"])


def test_what_is_missing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert arm.main([]) == 1
    assert "qemu-user" in capsys.readouterr().err


def outputs() -> tuple[arm.Outputs, arm.Outputs, dict[str, np.ndarray]]:
    """Of two machines that agree, and torch's embeddings."""
    embedding, scores = np.ones((3, 4), np.float32), np.array([[0.5, np.nan]], np.float32)
    sizes = [(threads, size) for threads in other_machine.THREADS for size in other_machine.BATCHES]
    arrays: dict[str, np.ndarray] = {f"widths/a/{threads}/{size}": embedding for threads, size in sizes}
    arrays["passes/b/out"] = np.ones(5, np.float32)
    answers = {"encoded_by": {}, "photos": [[["1", 0.5]]], "vectors": [[["1", 0.5]]]}
    found = [
        SimpleNamespace(
            arrays={name: array.copy() for name, array in arrays.items()} | {f"rows/c/{of}/D": scores.copy()},
            said={"searches": {"G": json.loads(json.dumps(answers))}},
        )
        for of in ("avx2", "neon")
    ]
    return cast(Any, found[0]), cast(Any, found[1]), {"a": embedding.copy()}


def test_machines_that_agree_are_alike() -> None:
    rows = arm.compare(*outputs())
    assert len(rows) == 9
    assert all(row["ok"] for row in rows)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rows/c/neon/D", 0.50001, "best rows"), ("rows/c/neon/D", np.nan, "best rows"),
        ("widths/a/2/3", 1.0001, "torch"), ("widths/a/2/3", 1.0001, "kernels here"),
        ("widths/a/2/3", 1.000001, "threads"), ("passes/b/out", 1.001, "passes"),
        ("passes/b/out", np.nan, "passes"),
    ],
)  # fmt: skip
def test_an_array_that_differs_is_found(name: str, value: float, said: str) -> None:
    here, there, by_torch = outputs()
    there.arrays[name].flat[0] = value
    assert any(said in row["what"] for row in arm.compare(here, there, by_torch) if not row["ok"])


@pytest.mark.parametrize("asked", ["photos", "vectors"])
@pytest.mark.parametrize(("hit", "said"), [(["2", 0.5], "hits"), (["1", 0.51], "scores")])
def test_a_hit_that_differs_is_found(asked: str, hit: list[Any], said: str) -> None:
    here, there, by_torch = outputs()
    there.said["searches"]["G"][asked] = [[hit]]
    (row,) = (row for row in arm.compare(here, there, by_torch) if not row["ok"])
    assert row["what"].startswith(f"{said} of {asked}")


def test_every_pass_is_computed_whole() -> None:
    """By this machine: no output keeps what it was filled with, and each depends on every input."""
    kernels = library()
    if kernels is None:
        pytest.skip("no kernels")
    rng = np.random.default_rng(0)
    for name, one in other_machine.passes().items():
        inputs = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in one.inputs.items()}
        found = other_machine.compute_pass(kernels, one, inputs)
        assert all(np.isfinite(array).all() for array in found.values()), name
        for key in inputs:
            other = other_machine.compute_pass(kernels, one, inputs | {key: inputs[key] + 1})
            assert any(not np.array_equal(found[output], other[output]) for output in found), (name, key)
