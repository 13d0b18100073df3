"""The script for everything that needs a GPU does all that does not need one, and records what fails."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu
import gpu_candidates
import gpu_model
import gpu_scan
import gpu_setting
import gpu_steps
import measuring
import published
import pytest
import report
import targets
import torch
import without_a_gpu
from matmamba_vision import MatMamba
from matmamba_vision.ops import mamba_ssm, reference
from matmamba_vision.ops.mamba_ssm import installed
from matmamba_vision.ops.triton.candidates import Shapes
from measuring import Plan, measure_case
from timm import create_model

NANO = "matmamba_nano_patch4_32"


def definitions(module: str) -> object:
    """What mamba-ssm's functions compute, by the definitions."""

    def combined(x, dt, A, B, C, chunk_size, D):  # type: ignore[no-untyped-def]
        return reference.ssd_reference(x, dt, A, B[:, :, 0], C[:, :, 0], D).to(x.dtype)

    def norm(y, weight, bias, *, z, eps, norm_before_gate):  # type: ignore[no-untyped-def]
        return reference.gated_rms_norm_reference(y, z, weight, eps)

    return SimpleNamespace(mamba_chunk_scan_combined=combined, rmsnorm_fn=norm)


@pytest.mark.slow
def test_the_gpu_script_runs_every_step_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By Triton's interpreter, with the definitions in place of mamba-ssm's kernels; nothing is compiled."""
    pytest.importorskip("triton")
    monkeypatch.setattr(mamba_ssm, "missing", lambda: None)
    monkeypatch.setattr(installed, "load", definitions)
    monkeypatch.setattr(gpu_setting, "KERNELS", ("triton",))
    row = {"kernel": "k", "class": "c", "launch": "l", "faults": ["spills 8 bytes, 0 are allowed"]}
    monkeypatch.setattr(gpu_candidates, "compiled_rows", lambda setting: [row])
    monkeypatch.setattr(gpu_candidates, "_pool", lambda: ThreadPoolExecutor(1))
    file = tmp_path / "gpu.json"
    # However slow the machine is: nothing is to be cut short.
    gpu.main(["--quick", "--minutes", "1000", "--output", str(file)])
    result = json.loads(file.read_text())
    assert {step["name"]: step["status"] for step in result["steps"]} == dict.fromkeys(STEPS, "done")
    cases = {case["name"]: case for case in result["cases"]}
    checked = [case for name, case in cases.items() if name.startswith("correct")]
    assert len(checked) == 3
    assert all(case["settings"]["agrees"] for case in checked)
    assert cases["compiled"]["sides"]["with faults"]["median"] == 1
    assert all(
        side["median"] == 1 for side in cases["right, convolution, 32 channels, float32"]["sides"].values()
    )
    for name in MEASURED_ON_A_GPU:
        assert all(found["median"] > 0 for found in cases[name]["sides"].values()), name
    assert cases["ViT, 32 px, inference"]["settings"]["attention"]
    assert set(cases["published, nano, training"]["ratios"]) == {"full", "1/2", "1/4", "1/8"}
    assert cases["memory"]["settings"]["left_out"]
    assert "gpu" in report.figures("gpu", result)


STEPS = ("compile", "right", "rates", "vit", "launches", "kernels", "models", "published", "faiss", "tests")
MEASURED_ON_A_GPU = (
    "copy", "products", "launches, norm, 32 channels, float32", "kernels, width 1/8", "scan, 9 x 16",
    "widths", "latency", f"{NANO}, 32 px", f"{NANO}, 64 px, training", f"graphs, {NANO}, 64 px, inference",
    "graphs of widths, training", "FAISS, index, ivfpq", "FAISS, search, Flat, 1000 queries",
)  # fmt: skip


def tried_steps(monkeypatch: pytest.MonkeyPatch, **cases: Any) -> list[str]:
    """Steps in the place of those of the GPU script; gives the names of those that were run."""
    ran = list[str]()

    def step(name: str, run: Any) -> gpu_steps.Step:
        def noted() -> Any:
            ran.append(name)
            return run()

        return gpu_steps.Step(name=name, seconds=60, run=noted)

    made = [step(name, run) for name, run in cases.items()]
    monkeypatch.setattr(gpu, "steps", lambda plan, setting, record: made)
    return ran


def some_case(name: str) -> measuring.Case:
    return measure_case(name, {"a": lambda: 1.0}, [], Plan(0, 1), {})


def fails() -> Iterator[measuring.Case]:
    yield some_case("before")
    raise RuntimeError("no such kernel\nat all")


def read_steps(file: Path) -> dict[str, Any]:
    return {step["name"]: step for step in json.loads(file.read_text())["steps"]}


def test_a_step_that_fails_is_recorded_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried_steps(monkeypatch, first=fails, second=lambda: [some_case("after")])
    file = tmp_path / "gpu.json"
    words = ["--quick", "--output", str(file)]
    gpu.main(words)
    found = read_steps(file)
    assert (found["first"]["status"], found["first"]["error"]) == ("failed", "RuntimeError: no such kernel")
    assert found["second"]["status"] == "done"
    cases = json.loads(file.read_text())["cases"]
    assert [(case["step"], case["name"]) for case in cases] == [("first", "before"), ("second", "after")]


def test_a_gpu_run_resumes_behind_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    words = ["--quick", "--output", str(file)]
    ran = tried_steps(monkeypatch, first=lambda: [some_case("one")], second=fails)
    gpu.main([*words, "--only", "first"])
    assert ran == ["first"]
    gpu.main([*words, "--resume"])
    assert ran == ["first", "second"]
    gpu.main([*words, "--resume", "--only", "second"])
    assert ran == ["first", "second", "second"]
    assert [case["name"] for case in json.loads(file.read_text())["cases"]] == ["one", "before"]
    with pytest.raises(SystemExit, match="no step 'third': one of first, second"):
        gpu.main([*words, "--only", "third"])


def test_a_gpu_that_a_step_broke_is_left_for_a_new_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = tried_steps(monkeypatch, first=fails, second=lambda: [some_case("after")])
    monkeypatch.setattr(gpu_steps, "_unusable", lambda: ran == ["first"])
    started = list[list[str]]()

    def execv(program: str, words: list[str]) -> None:
        started.append(words)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    file = tmp_path / "gpu.json"
    words = ["--quick", "--output", str(file)]
    with pytest.raises(SystemExit):
        gpu.main(words)
    assert started[0][2:] == [*words, "--resume"]
    gpu.main(started[0][2:])
    assert ran == ["first", "second"]
    assert list(read_steps(file)) == ["first", "second"]


def test_a_step_ends_when_its_share_of_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "gpu.json"

    def slow() -> Iterator[measuring.Case]:
        for number in range(3):
            time.sleep(0.02)
            yield some_case(str(number))

    tried_steps(monkeypatch, first=slow, second=slow)
    gpu.main(["--quick", "--output", str(file), "--minutes", "0.0001"])
    found = read_steps(file)
    assert [step["status"] for step in found.values()] == ["cut short", "left out"]
    assert "no time left" in found["second"]["error"]
    assert len(json.loads(file.read_text())["cases"]) == 1


@pytest.mark.parametrize(("tflops", "is_throttled"), [(449.0, True), (451.0, False)])
@pytest.mark.parametrize("flags", [[], ["--throttled"]], ids=str)
def test_what_a_throttled_gpu_takes_is_not_measured(
    tflops: float, is_throttled: bool, flags: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the plain product at the shapes of a block, whose rate is made up; what is not timed goes on."""
    monkeypatch.setattr(gpu_scan, "copy_bandwidth", lambda plan, setting: 4e12)
    monkeypatch.setattr(gpu_scan, "_product", lambda *arguments: tflops * 1e12)
    on_gpu = replace(gpu_setting.TINY, device="cuda")

    def step(name: str, run: Any, timed: bool) -> gpu_steps.Step:
        return gpu_steps.Step(name=name, seconds=60, run=run, timed=timed)

    made = [
        step("rates", lambda: gpu_scan.rates(Plan(0, 1), on_gpu), False),
        step("models", lambda: [some_case("how fast")], True),
        step("tests", lambda: [some_case("how right")], False),
    ]
    monkeypatch.setattr(gpu, "steps", lambda plan, setting, record: made)
    file = tmp_path / "gpu.json"
    gpu.main(["--quick", "--output", str(file), *flags])
    result, found = json.loads(file.read_text()), read_steps(file)
    left_out = is_throttled and not flags
    assert [step["status"] for step in found.values()] == ["done", "left out" if left_out else "done", "done"]
    said = "the GPU is throttled: products reach 449 TFLOPS, 450 are needed for parity"
    assert result["throttled"] == (said if is_throttled else None)
    assert found["models"].get("error") == (said if left_out else None)
    assert ("how fast" in [case["name"] for case in result["cases"]]) is not left_out


def test_wheels_that_are_carried_along_can_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    with zipfile.ZipFile(tmp_path / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_package/__init__.py", "value = 1\n")
    gpu.unpack(tmp_path)
    assert importlib.import_module("carried_package").value == 1
    assert os.environ["PYTHONPATH"] == f"elsewhere{os.pathsep}{sys.path[-1]}"
    with pytest.raises(SystemExit, match="no wheel in"):
        gpu.unpack(tmp_path / "none")


def test_the_published_block_computes_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "load", definitions)
    torch.manual_seed(0)
    model = create_model(NANO, scan="raster").eval()
    assert isinstance(model, MatMamba)
    images = torch.randn(2, 3, 32, 32)
    for width in ("full", "1/4"):
        torch.testing.assert_close(
            published.published(model)(images, width=width), model(images, width=width)
        )


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"at_least": 0.9}, ""),
        ({"at_least": 1.0}, ": perhaps a miss"),
        ({"at_least": 1.2}, ": **a miss**"),
        ({"at_most": 1.1}, ""),
        ({"at_most": 1.0}, ": perhaps a miss"),
        ({"at_most": 0.5}, ": **a miss**"),
        ({}, ""),
    ],
)
def test_a_target_that_a_prediction_misses_is_said_to_be_missed(bound: dict[str, float], said: str) -> None:
    row = targets.Row("a ratio", "gpu", "case", at_least=bound.get("at_least"), at_most=bound.get("at_most"))
    assert row.forecast({"low": 0.95, "high": 1.05, "unit": ""}) == said


def test_what_is_predicted_stands_beside_what_was_not_run() -> None:
    """And the recorded file is what the script computes."""
    recorded = json.loads((report.RESULTS / "gpu_model.json").read_text())
    computed = json.loads(json.dumps(gpu_model.predicted(gpu_model.Rates())))
    assert {name: recorded[name] for name in computed} == computed
    row = next(known for known in targets.GPU_ROWS if known.predicted == "224 px, inference, over ViT")
    page = report.targets_table({"gpu_model": recorded})
    found = without_a_gpu.between(recorded["predicted"][row.predicted])
    assert f"| {row.what} | GPU | at least 1.0 | - | - | not run; predicted {found}: **a miss** |" in page
    assert all(known.prediction({"gpu_model": recorded}) for known in targets.GPU_ROWS if known.predicted)


def test_the_scan_of_a_block_stands_beside_what_bounds_it() -> None:
    """At rates and times that are made up: 4 TB/s, and 500 TFLOPS."""
    trial = SimpleNamespace(
        name="block", batch=2, shapes=Shapes(dtype="bfloat16", head_dim=16, state_dim=128, tokens="up to 512")
    )

    def case(name: str, **sides: float) -> measuring.Case:
        return measure_case(
            name, {side: partial(float, value) for side, value in sides.items()}, [], Plan(0, 1), {}
        )

    rates = [case("copy", copy=4000), case("products", small=100, large=500)]
    kernels = case("kernels", scan_quadratic_kernel=10, other=3)
    found = gpu_candidates.scan_of_block(trial, kernels, rates)  # type: ignore[arg-type]
    assert found
    sizes = gpu_model.Sizes(dim=0, inner=1024, heads=64, state=128, tokens=197)
    (work,) = (work for work in gpu_model.inference(sizes) if work.name == "scan, gate")
    bound = 2 * 197 * work.bytes / 4e12 * 1e6
    assert found["ratios"]["bound / scan"]["median"] == pytest.approx(bound / 10)
    assert any(row.read({"gpu": {"cases": [found]}}) for row in targets.GPU_ROWS if row.at_least == 0.5)
    assert gpu_candidates.scan_of_block(trial, kernels, rates[:1]) is None  # type: ignore[arg-type]


def test_every_target_of_the_kernels_has_a_prediction() -> None:
    """Those that were set for kernels of a block, and no others."""
    model = {"gpu_model": json.loads((report.RESULTS / "gpu_model.json").read_text())}
    predicted = [row for row in targets.GPU_ROWS if row.prediction(model)]
    assert len(predicted) == len([row for row in targets.GPU_ROWS if row.predicted]) == 14


def test_the_model_of_a_gpu_follows_the_shapes() -> None:
    sizes = gpu_model.Sizes(dim=512, inner=1024, heads=64, state=128, tokens=197)
    works = {work.name: work for work in gpu_model.inference(sizes)}
    assert sizes.quadratic
    assert sizes.seen == 4 * 32
    assert works["input projection"].operations == 2 * 512 * 2368
    assert works["scan, gate"].operations == 2 * 1024 * 128 * 224 / 197
    long = gpu_model.Sizes(dim=512, inner=1024, heads=64, state=128, tokens=4097)
    assert long.scan == 2 * 1024 * (64 + 256) * 4160 / 4097
    rates = gpu_model.Rates(copy=1e12, launch=0, share=0.5, products=1e12)
    assert rates.seconds(gpu_model.Work(name="", bytes=1e12), 1e12) == 2
    assert rates.seconds(gpu_model.Work(name="", bytes=1, operations=3e12), 1e12) == 3
