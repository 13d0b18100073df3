"""`matmamba select` as a user runs it, on a short training on digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from matmamba_vision import load_checkpoint
from matmamba_vision.cli.main import main
from matmamba_vision.measures import count_macs, count_parameters, mixnmatch
from matmamba_vision.widths import width_search

QUICK = ["--images", "60", "--evaluations", "14", "--threads", "1"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on handwritten digits, trained for one epoch."""
    run = tmp_path_factory.mktemp("select") / "run"
    tiny = [
        "--model.img-size",
        "16",
        "--model.patch-size",
        "8",
        "--data.batch-size",
        "128",
        "--optim.epochs",
        "1",
    ]
    assert main(["train", "--output", str(run), *tiny, "--threads", "1"]) == 0
    return run


@pytest.fixture
def chosen(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Select within a budget and give back what it printed as JSON."""

    def run(budget: str, *flags: str) -> dict[str, Any]:
        capsys.readouterr()
        output = ["--output", str(tmp_path / "select"), "--overwrite", "--json"]
        assert main(["select", "--checkpoint", str(digits), "--budget", budget, *QUICK, *output, *flags]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def fails(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Select must fail with status 2 and one message, and leave nothing."""

    def check(*flags: str) -> str:
        capsys.readouterr()
        assert main(["select", "--checkpoint", str(digits), "--output", str(tmp_path / "none"), *flags]) == 2
        assert not (tmp_path / "none").exists()
        said = capsys.readouterr().err
        assert said.count("matmamba: error: ") == 1
        assert "Traceback" not in said
        return said

    return check


def test_the_slice_is_what_extract_makes_of_it(
    chosen: Callable[..., dict[str, Any]], digits: Path, tmp_path: Path
) -> None:
    model = load_checkpoint(digits).model
    limit = (count_parameters(model) + count_parameters(model, "1/2")) // 2
    found = chosen(f"params={limit}")
    assert found["costs"]["params"] <= limit
    assert found["costs"]["params"] == count_parameters(model, found["heads"])
    assert found["costs"]["gmacs"] == count_macs(model, found["heads"]) / 1e9
    latency = found["costs"]["latency_ms"]
    assert 0 < latency["low"] <= latency["median"] <= latency["high"]
    assert (found["accuracy"]["images"], found["accuracy_of_search"]["images"]) == (60, 60)
    small = tmp_path / "small"
    command = ["extract", "--checkpoint", str(digits), "--width", found["slice"], "--output", str(small)]
    assert main(command) == 0
    extracted = load_checkpoint(small).model
    assert count_parameters(extracted) == found["costs"]["params"]
    assert list(extracted.heads) == found["heads"]


@pytest.mark.usefixtures("really_drawn")
def test_all_that_was_evaluated_is_written(chosen: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = chosen("gmacs=0.0015", "--skip-blocks")
    content = json.loads((tmp_path / "select" / "candidates.json").read_text())
    rows = content["candidates"]
    assert len(rows) == found["evaluated"] == 14
    assert {"trained", "rule"} <= {row["found_by"] for row in rows}
    assert all(row["within_budget"] == (row["gmacs"] <= 0.0015) for row in rows)
    within = [row for row in rows if row["within_budget"]]
    (own,) = [row for row in rows if row["heads"] == found["heads"]]
    unsearched = [row["search"]["log_likelihood"] for row in within if row["found_by"] != "search"]
    assert own["within_budget"]
    assert own["search"]["log_likelihood"] >= max(unsearched)
    assert own["held_back"] == found["accuracy"]
    assert content["settings"]["skip_blocks"] is True
    assert (tmp_path / "select" / "pareto.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("key", ["latency_ms", "memory_mb"])
def test_what_is_measured_is_within_the_budget(key: str, chosen: Callable[..., dict[str, Any]]) -> None:
    limit = 1000.0 if key == "latency_ms" else 1.0
    cost = chosen(f"{key}={limit}", "--evaluations", "8", "--profile-batch", "2")["costs"]
    assert cost["batch"] == 2
    assert (cost[key]["median"] if key == "latency_ms" else cost[key]) <= limit


def test_people_read_a_table(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["select", "--checkpoint", str(digits), "--budget", "params=300k", *QUICK]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Pareto front" in said
    assert "note: 60 images decide, fewer than 200" in said
    assert "chosen for params=300000" in said
    assert "held back" in said
    assert f"--width {digits / 'select' / 'slice.yaml'}" in said
    assert main(command) == 2
    assert "overwrite it" in capsys.readouterr().err


def test_budgets_that_cannot_be_met_are_refused(fails: Callable[..., str]) -> None:
    for budget in ("gmacs=nan", "gmacs=-1", "gmacs=inf", "params=many", "watts=3", "gmacs"):
        assert "gmacs=2.0, params=5M" in fails("--budget", budget)
    for budget in ("params=10", "gmacs=1e-9", "memory_mb=1e-6", "latency_ms=1e-6"):
        assert "the smallest, 1/16, needs" in fails("--budget", budget)
    assert "evaluations is 0" in fails("--budget", "gmacs=1", "--evaluations", "0")
    assert "images is -1" in fails("--budget", "gmacs=1", "--images", "-1")
    assert "'abacus'" in fails("--budget", "gmacs=1", "--device", "abacus")


def test_an_interruption_keeps_the_best_so_far(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> Any:
        for number, candidate in enumerate(mixnmatch.explore(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield candidate

    monkeypatch.setattr(width_search, "explore", interrupted)
    output = ["--output", str(tmp_path / "cut")]
    command = ["select", "--checkpoint", str(digits), "--budget", "params=300k", *QUICK, *output]
    assert main(command) == 130
    assert "5 widths evaluated, cut short" in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "cut" / "slice.yaml").read_text())
    assert written["cut_short"] is True
    assert written["costs"]["params"] <= 300_000
    assert len(json.loads((tmp_path / "cut" / "candidates.json").read_text())["candidates"]) == 5


def test_a_slice_of_something_else_is_refused(
    chosen: Callable[..., dict[str, Any]], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = yaml.safe_load(Path(chosen("params=300k", "--evaluations", "3")["slice"]).read_text())
    wrong = {
        "of another checkpoint": own | {"checkpoint": "0" * 64},
        "names 2 blocks, the model has 4": own | {"heads": [1, 2]},
        "block 0 can have 0 to 16 heads": own | {"heads": [99, 1, 1, 1]},
        "it has no heads": {"checkpoint": own["checkpoint"]},
        "is not a slice": ["heads"],
    }
    file = tmp_path / "wrong.yaml"
    command = ["extract", "--checkpoint", str(digits), "--width", str(file), "--output", str(tmp_path / "x")]
    for said, content in {**wrong, "is not YAML": None}.items():
        file.write_text(yaml.safe_dump(content) if content else "[")
        assert main(command) == 2
        error = capsys.readouterr().err
        assert said in error
        assert str(file) in error
    file.unlink()
    assert main(command) == 2
    assert f"no slice {file}" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
