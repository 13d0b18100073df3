"""The ablation of a student's terms: it runs, goes on, and its table says what it found."""

from __future__ import annotations

import json
from pathlib import Path

import distill_ablation as script
import nested_students
import pytest
from matmamba_vision import load_checkpoint
from teachers import write_photos, write_teacher

ROWS = ("regression", "all")


def test_it_goes_on_and_its_gains_are_over_regression_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    monkeypatch.setattr(script, "TERMS", {name: script.TERMS[name] for name in ROWS})
    monkeypatch.setattr(script, "REGRESSION", script.REGRESSION | {"anchor_count": 8})
    monkeypatch.setattr(script, "DATA", script.DATA | {"batch_size": 8})
    photos, teacher = write_photos(tmp_path / "photos"), write_teacher(tmp_path / "teacher")
    runs = tmp_path / "runs"
    script.main(["--photos", str(photos), "--teacher", teacher, "--runs", str(runs), "--epochs", "1"])
    result = json.loads((tmp_path / "distill_ablation.json").read_text())
    assert [row["name"] for row in result["rows"]] == [*ROWS]
    assert result["settings"]["queries"] == 3
    first, second = (row["values"] for row in result["rows"])
    for key in ("full in teacher, 128, knn1", "1/8 in student, 32, map10"):
        assert first[f"{key}, gained"] == 0
        assert second[f"{key}, gained"] == pytest.approx(second[key] - first[key])
    table = (tmp_path / "distill_ablation.md").read_text()
    assert table in capsys.readouterr().out
    assert f"{100 * first['full in teacher, 128, knn1']:.1f} |" in table
    # Both rows followed the same kept vectors, and are not trained again.
    assert len([*runs.glob("teacher/*/part-00000.safetensors")]) == 1
    before = {file: file.stat().st_mtime_ns for file in runs.rglob("*") if file.is_file()}
    script.main(["--photos", str(photos), "--teacher", teacher, "--runs", str(runs), "--epochs", "1"])
    assert {file: file.stat().st_mtime_ns for file in runs.rglob("*") if file.is_file()} == before
    script.main(["--table"])
    assert (tmp_path / "distill_ablation.md").read_text() == table


def test_a_student_alone_trains_its_one_width_in_as_many_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nested_students, "RESULTS", tmp_path)
    monkeypatch.setattr(script, "REGRESSION", script.REGRESSION | {"anchor_count": 8})
    terms = script.TERMS["all"]
    monkeypatch.setitem(script.TERMS, "all", terms | {"follow": terms["follow"] | {"anchors": 0.0}})
    monkeypatch.setattr(script, "DATA", script.DATA | {"batch_size": 8})
    photos, teacher = write_photos(tmp_path / "photos"), write_teacher(tmp_path / "teacher")
    runs = tmp_path / "runs"
    given = ["--photos", str(photos), "--teacher", teacher, "--runs", str(runs), "--epochs", "1"]
    nested_students.main([*given, "--seeds", "0"])
    result = json.loads((tmp_path / "nested_students.json").read_text())
    (row,) = result["rows"]
    for gallery in nested_students.GALLERIES:
        nested, alone = (
            row[f"{gallery}, {side}"] for side in (nested_students.NESTED, nested_students.ALONE)
        )
        assert row[f"{gallery}, gained"] == pytest.approx(nested - alone)
    assert nested_students.table(result) in capsys.readouterr().out
    weights = {run.name: load_checkpoint(run).run["objective"]["width_weights"] for run in runs.glob("all*")}
    assert sorted(map(tuple, weights.values())) == [(), (0.0, 1.0)]
    steps = [(run / "metrics.jsonl").read_text().count('"step"') for run in runs.glob("all*")]
    assert len(set(steps)) == 1
