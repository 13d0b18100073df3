"""`matmamba evaluate` as a user runs it: its figures against others, what it leaves behind, and going on."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from operator import truediv
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_retrieval import Strategy
from matmamba_retrieval.planning.grid import Grid
from matmamba_retrieval.planning.savings import SENDS_ALL, notes_of
from matmamba_retrieval.planning.trials import Bench
from matmamba_retrieval.strategies.gate import RULES
from matmamba_vision import save_checkpoint
from matmamba_vision.cli.console import Console
from matmamba_vision.cli.evaluate_command import _print
from matmamba_vision.cli.main import main
from matmamba_vision.progress import Notice, Reporter
from matmamba_vision.studies import evaluate as job
from matmamba_vision.studies import experiment, study
from PIL import Image
from small import SMALL, create

FILES = {
    "results.json",
    "results.csv",
    "quality_macs.png",
    "quality_ms.png",
    "recall_qps.png",
    "query_encoder.png",
    "memory.png",
}
GRID = """
k: 3
query_widths: [1/8]
dims: [4, 16, 64]
shortlists: [6, 100]
gallery_widths: [full, 1/8]
funnels: [{dims: [4, 8], lengths: [8, 5], widths: [same, full], expand: 2}]
gate_dims: [16]
gate_losses: [5]
gate_expands: [0, 2]
"""


@pytest.fixture
def checkpoint(photos: Path, tmp_path: Path) -> Path:
    """Of an untrained model, of a run on the photos."""
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    model = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **SMALL | {"num_classes": 2})
    run = {"data": {"name": "folder", "root": str(photos), "max_broken": 1.0, "held_out": 0.4}}
    save_checkpoint(tmp_path / "run", model, ("bright", "dark"), run)
    return tmp_path / "run"


@pytest.fixture
def evaluate(checkpoint: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the command with the grid; returns its results.json."""
    (tmp_path / "grid.yaml").write_text(GRID)

    def run(*flags: str) -> dict[str, Any]:
        known = ["--checkpoint", str(checkpoint), "--grid", str(tmp_path / "grid.yaml"), "--threads", "1"]
        assert main(["evaluate", *known, *flags]) == 0
        return json.loads((checkpoint / "evaluate" / "results.json").read_text())

    return run


@pytest.mark.usefixtures("really_drawn")
def test_a_grid_is_tried_and_written(
    evaluate: Callable[..., dict[str, Any]], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = evaluate()
    printed = capsys.readouterr().out
    folder = checkpoint / "evaluate"
    assert {file.name for file in folder.iterdir() if file.is_file()} == FILES
    for name in FILES:
        if name.endswith(".png"):
            Image.open(folder / name).verify()
    rows = results["rows"]
    for strategy in ("single-shot", "shortlist", "funnel", "gated"):
        assert any(row["strategy"] == strategy for row in rows)
        assert strategy in printed
    with (folder / "results.csv").open() as opened:
        lines = list(csv.DictReader(opened))
    assert [float(line["recall"]) for line in lines] == [row["recall"] for row in rows]
    check_rows(results)
    grid = results["settings"]["grid"]
    assert grid == json.loads(json.dumps(asdict(Grid(**grid))))
    assert {name: grid[name] for name in ("k", "dims", "gate_losses")} == {
        "k": 3,
        "dims": [4, 16, 64],
        "gate_losses": [5],
    }
    assert (grid["query_widths"], grid["gallery_widths"]) == (["full", "1/8"], ["full", "1/8"])
    count = results["images"]["queries"]
    assert "over single-shot" in printed
    assert f"{count} queries are too few for gates that may lose 5 points" in printed


def test_the_help_explains_what_tables_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    words = capsys.readouterr().out.split()
    assert set(RULES) <= set(words)
    assert {"surely:", "again:", "expanded"} <= set(words)


@pytest.mark.parametrize(("loss", "said"), [(1, False), (0.5, True)])
def test_queries_too_few_for_a_target_are_said_once(loss: float, said: bool) -> None:
    gate = Strategy.gated(width="1/8", dim=8, length=5)
    told: list[Any] = []
    job.say_few(Reporter(told.append), [(gate, loss), (gate, loss)], 100)
    assert len(told) == said
    assert all(isinstance(event, Notice) and "100 queries are too few" in event.text for event in told)


def test_a_gate_that_falls_back_is_counted_and_not_listed(
    evaluate: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """All that a report lists as a gate saves something; the others are in the file, with the reason."""
    results = evaluate()
    gates = [row for row in results["rows"] if row["strategy"] == "gated"]
    kept, fallen = gates[0] | {"falls_back": ""}, gates[1] | {"falls_back": SENDS_ALL, "query_width": "1/7"}
    single_shots = [row for row in results["rows"] if row["strategy"] == "single-shot"]
    for rows, listed in (([kept, fallen], True), ([fallen], False)):
        made = study.Study(
            **{"checkpoint": Path("file"), "digest": "", "data": {}, "environment": {}, "exact": []},  # type: ignore[arg-type]
            settings=results["settings"],
            images=results["images"],
            rows=[*single_shots, *rows],
            notes=notes_of(rows),
        )
        capsys.readouterr()
        _print(Console(), made)
        printed = capsys.readouterr().out
        assert "1/7" not in printed
        assert bool(re.search(r"^ *gated$", printed, re.MULTILINE)) == listed
        assert f"1 of {len(rows)} gates fall back to single-shot: 1 would send every query" in printed


def check_rows(results: dict[str, Any]) -> None:
    images, rows = results["images"], results["rows"]
    reference = next(row for row in rows if row["strategy"] == "single-shot")
    exact = {
        (cell["query_width"], cell["gallery_width"]): cell for cell in results["exact"] if cell["dim"] == 32
    }
    for row in rows:
        macs = (known["encoder_macs"] + known["search_macs"] for known in (row, reference))
        assert row["macs_over_single_shot"] == pytest.approx(truediv(*macs))
        assert row["ms_over_single_shot"] == pytest.approx(row["ms"] / reference["ms"])
        assert set(row["saves"]) == {cost for cost in ("ms", "macs") if row[f"{cost}_over_single_shot"] < 1}
        low, high = row["map_interval"]
        assert low <= row["map"] <= high
        assert row["knn1_loss"] == pytest.approx(reference["knn1"] - row["knn1"], abs=1e-6)
        assert row["queries_per_second"] > 0
        if row["strategy"] == "single-shot":
            assert row["knn1"] == pytest.approx(exact[row["query_width"], "full"]["knn1"])
        elif row["strategy"] == "shortlist" and row["lengths"] == [images["gallery"]]:
            # The shortlist is the gallery: law 6.
            assert (row["recall"], row["knn1_loss"]) == (1, 0)
        elif row["strategy"] == "gated":
            assert row["calibrated"]["qualities"] == ["knn1", "map"]
            small = next(
                other
                for other in rows
                if other["strategy"] == "single-shot" and other["query_width"] == row["query_width"]
            )
            macs = small["encoder_macs"] + row["by_full"] * reference["encoder_macs"]
            assert row["encoder_macs"] == pytest.approx(macs)


def test_what_was_done_is_not_done_again(
    evaluate: Callable[..., dict[str, Any]], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is encoded, only rows that lack are tried: here the last one, which a kill cut short."""
    first = evaluate()
    kept = checkpoint / "evaluate" / "encoded" / "rows.jsonl"
    kept.write_text(kept.read_text()[:-40])

    def fail(*_: object) -> None:
        raise AssertionError("done again")

    tried: list[str] = []
    trial = Bench.gated_trial

    def counted(bench: Bench, strategy: Strategy, *more: Any) -> Any:
        tried.append(strategy.kind)
        return trial(bench, strategy, *more)

    monkeypatch.setattr(Bench, "gated_trial", counted)
    monkeypatch.setattr(Bench, "trial", fail)

    monkeypatch.setattr(experiment, "embed_images", fail)
    monkeypatch.setattr(study, "PLOTS", {})
    second = evaluate()
    assert tried == [first["rows"][-1]["strategy"]]
    assert second["rows"][:-1] == first["rows"][:-1]
    assert second["rows"][-1]["recall"] == first["rows"][-1]["recall"]


def test_an_interrupted_study_says_how_to_go_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "trial", interrupted)
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--threads", "1"]) == 130
    said = " ".join(capsys.readouterr().err.split())
    assert f"kept in {checkpoint}/evaluate/encoded; the same command goes on from there" in said
    # Before there is anything, there is nothing to go on from.
    monkeypatch.setattr(job, "embedder_at", interrupted)
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--output", str(checkpoint / "new")]) == 130
    assert "goes on" not in capsys.readouterr().err


def test_images_of_other_classes_can_be_asked(
    evaluate: Callable[..., dict[str, Any]],
    checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """More classes than the classifier has: retrieval does not ask it; who judges its answers refuses."""
    others = tmp_path / "others"
    for number, file in enumerate(sorted(photos.rglob("*.*"))):
        (others / str(number % 4)).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, others / str(number % 4))
    results = evaluate("--root", str(others))
    reference = next(row for row in results["rows"] if row["strategy"] == "single-shot")
    assert 0 < reference["map"] < 1
    flags = ["--checkpoint", str(checkpoint), "--root", str(others)]
    assert main(["select", "--budget", "gmacs=1", *flags]) == 2
    assert "trained on other classes" in capsys.readouterr().err
    assert main(["validate", *flags, "--output", str(tmp_path / "v")]) == 0
    assert "top-1 was skipped" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed: 3", "speed"),
        ("dims: [eight]", "dims"),
        ("strategies: [magic]", "'magic'"),
        ("query_widths: [1/3]", "1/3"),
    ],
)
def test_a_grid_that_cannot_be_is_named(
    checkpoint: Path, tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "wrong.yaml"
    grid.write_text(text)
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--grid", str(grid)]) == 2
    assert message in capsys.readouterr().err
    assert not (checkpoint / "evaluate").exists()


def test_a_flag_that_cannot_work_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--queries", "1"]) == 2
    assert "queries is 1: it can be 2 or more" in capsys.readouterr().err
