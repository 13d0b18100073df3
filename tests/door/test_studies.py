"""`evaluate` and `demo` as a program calls them: results, events, files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matmamba_common.errors import MatMambaError
from matmamba_retrieval.planning.grid import Grid
from matmamba_vision import load_checkpoint
from matmamba_vision.progress import Event, Notice
from matmamba_vision.studies.demo import demo
from matmamba_vision.studies.evaluate import evaluate
from matmamba_vision.studies.goals import GoalsMissedError
from untrained_runs import require_finished, untrained_run

GRID = {
    "k": 3,
    "query_widths": ["1/8"],
    "dims": [4],
    "shortlists": [6],
    "strategies": ["single-shot", "shortlist"],
}


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Path:
    """The folder of an untrained model, of a run on the photos."""
    return untrained_run(photos, tmp_path / "run")


def test_a_study_is_a_value_and_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    output = tmp_path / "study"
    study = evaluate(run, grid=Grid(**GRID), output=output, device="cpu", progress=events.append)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")
    require_finished(events, "encoding gallery", "encoding queries", "trying strategies")
    assert json.loads((output / "results.json").read_text()) == study.to_dict()
    assert {row["query_width"] for row in study.rows} == {"full", "1/8"}
    assert study.settings["grid"]["query_widths"] == ["full", "1/8"]
    # Once more in the same folder: what is done is not done again, and has the same times.
    again = evaluate(load_checkpoint(run), grid=Grid(**GRID), output=output, device="cpu")  # type: ignore[arg-type]
    assert again.rows == study.rows


def test_a_study_without_a_folder_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    study = evaluate(run, grid=Grid(**GRID), device="cpu")  # type: ignore[arg-type]
    assert study.output is None
    assert study.images == {"gallery": 14, "queries": 10}
    assert sorted(tmp_path.rglob("*")) == before


def test_costs_are_compared_with_single_shot_though_the_grid_has_none(run: Path) -> None:
    """And a small query that ranks its own shortlist costs one small encoding."""
    grid = Grid(**GRID | {"strategies": ["shortlist"], "rerank_widths": ["full", "same"]})  # type: ignore[arg-type]
    rows = evaluate(run, grid=grid, device="cpu").rows
    known = {(row["query_width"], *row["widths"]): row for row in rows}
    assert set(known) == {("full",), ("1/8",), ("1/8", "1/8")}
    over = {name: row["macs_over_single_shot"] for name, row in known.items()}
    assert over["1/8", "1/8"] < over["full",] < 1 < over["1/8",]
    assert known["1/8",]["encoder_macs"] == (
        known["full",]["encoder_macs"] + known["1/8", "1/8"]["encoder_macs"]
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"checkpoint": 3}, "checkpoint is 3: it can be a path"),
        ({"grid": 3}, "grid is 3: it can be a name, a file, or a Grid"),
        ({"queries": 2.5}, "queries is 2.5"),
        ({"data": 5}, "data is 5"),
        ({"output": 7}, "output is 7"),
    ],
)
def test_a_wrong_type_is_named(arguments: dict[str, Any], named: str, run: Path, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"checkpoint": run, "output": tmp_path / "none", "device": "cpu"} | arguments
    with pytest.raises(TypeError, match=named):
        evaluate(wanted.pop("checkpoint"), **wanted)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"checkpoint": "nothing"}, "no checkpoint at"),
        ({"grid": "fast"}, "grid is 'fast': it can be quick, full, of a gallery plan, or a YAML file"),
        ({"grid": Grid(query_widths=["1/3"])}, "width '1/3'"),
        ({"grid": Grid(strategies=["magic"])}, "'magic'"),
        ({"queries": 1}, "queries is 1: it can be 2 or more"),
        ({"root": "nowhere"}, "nowhere"),
        ({"device": "abacus"}, "'abacus'"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_written(
    arguments: dict[str, Any], named: str, run: Path, tmp_path: Path
) -> None:
    wanted: dict[str, Any] = {"checkpoint": run, "output": tmp_path / "none"} | arguments
    with pytest.raises(MatMambaError, match=named):
        evaluate(wanted.pop("checkpoint"), **wanted)
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("few_digits")
def test_a_demonstration_is_a_value_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What an earlier one left.
    (tmp_path / "demo" / "gallery").mkdir(parents=True)
    (tmp_path / "demo" / "config.yaml").touch()
    events: list[Event] = []
    found = demo(tmp_path / "demo", epochs=1, progress=events.append)
    assert capsys.readouterr() == ("", "")
    require_finished(events, "indexing")
    said = [event.text for event in events if isinstance(event, Notice)]
    assert any(text.startswith("compare strategies: ") for text in said)
    assert json.loads((tmp_path / "demo" / "results.json").read_text()) == found.to_dict()
    assert found.report.is_file()
    # One epoch does not reach them.
    with pytest.raises(GoalsMissedError, match="top-1, full width"):
        found.require_goals()


def test_a_demonstration_replaces_no_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    with pytest.raises(MatMambaError, match=r"output .*mine exists and was not written by a demo"):
        demo(tmp_path / "mine")
    assert (tmp_path / "mine" / "x").read_text() == "x"
    with pytest.raises(MatMambaError, match="epochs is 0"):
        demo(tmp_path / "none", epochs=0)
    with pytest.raises(TypeError, match="seed is '1'"):
        demo(tmp_path / "none", seed="1")  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()
