"""A student and its teacher in the three ways to use them, by `evaluate`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import figures
import matmamba_vision as mv
import numpy as np
import pytest
import torch
from encoders_made import coloured, student_run, timm_folder
from matmamba_datasets import eval_transform, read_image
from matmamba_retrieval.planning.grid import Grid
from matmamba_vision.cli.main import main
from matmamba_vision.rotation import FILE_NAME, load_rotation
from matmamba_vision.studies.modes import MODES
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

DIM = 16
CLASSES = ("one", "three", "two")
GRID: dict[str, Any] = {"k": 5, "dims": [4], "shortlists": [10], "strategies": ["single-shot", "shortlist"]}


def mixed(root: Path, count: int, seed: int) -> Path:
    """Noise around colours that say nothing of the class, so that queries are wrong often."""
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(rng.normal(rng.integers(0, 256, 3), 50, (40, 50, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    mixed(root / "train", 8, 0)
    mixed(root / "val", 6, 1)
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return timm_folder(tmp_path_factory.mktemp("timm"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Path:
    photos = coloured(tmp_path_factory.mktemp("photos"))
    return student_run(tmp_path_factory.mktemp("runs") / "student", teacher, photos)


@pytest.fixture(scope="module")
def study(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> mv.Study:
    output = tmp_path_factory.mktemp("study")
    known: dict[str, Any] = {"data": "folder", "root": data, "grid": Grid(**GRID), "threads": 1}
    with figures.drawn():
        return mv.evaluate(mv.with_teacher(run), output=output, **known)


def side(data: Path, part: str) -> tuple[list[Image.Image], NDArray[np.int64]]:
    files = sorted((data / part).rglob("*.png"))
    labels = np.array([CLASSES.index(file.parent.name) for file in files])
    return [read_image(file) for file in files], labels


def first_of(xq: torch.Tensor, xb: torch.Tensor, dim: int) -> NDArray[np.int64]:
    xq, xb = (F.normalize(x[:, :dim], dim=-1) for x in (xq, xb))
    return (xq @ xb.T).argmax(1).numpy()


def test_every_mode_is_exact_search_by_its_own_vectors(
    study: mv.Study, data: Path, run: Path, teacher: str
) -> None:
    encoder, model = mv.open_encoder(teacher), mv.load_checkpoint(run).model
    rotation = load_rotation(run / FILE_NAME, encoder.digest)
    vectors: dict[tuple[str, str], torch.Tensor] = {}
    known = {part: side(data, part) for part in ("train", "val")}
    for part, (images, _) in known.items():
        for width in ("full", "student", "student 1/8"):
            transform = eval_transform(encoder.input if width == "full" else model.input)
            prepared = torch.stack([transform(image) for image in images])
            with torch.no_grad():
                vectors[part, width] = (
                    rotation(encoder.embed(prepared), DIM)
                    if width == "full"
                    else model.embed(prepared, width.removeprefix("student").strip() or "full")
                )
    labels = {part: known[part][1] for part in known}
    checked = set()
    for row in study.exact:
        query, gallery = row["query_width"], row["gallery_width"]
        if ("val", query) not in vectors:
            continue
        found = first_of(vectors["val", query], vectors["train", gallery], row["dim"])
        right = (labels["train"][found] == labels["val"]).mean()
        # One query may have two neighbours that are equally near but for rounding.
        assert abs(row["knn1"] - right) <= 1 / len(labels["val"]) + 1e-6, row
        checked.add((row["mode"], row["dim"]))
    assert checked == {(mode, dim) for mode in MODES for dim in (4, DIM)}
    assert any(0 < row["knn1"] < 1 for row in study.exact)


def test_losses_are_against_teacher_teacher_and_costs_are_the_querys(study: mv.Study) -> None:
    best = next(row for row in study.exact if row["mode"] == MODES[0] and row["dim"] == DIM)
    assert best["knn1_loss"] == best["map10_loss"] == 0
    for row in study.exact:
        assert row["knn1_loss"] == pytest.approx(best["knn1"] - row["knn1"], abs=1e-6)
        low, high = row["knn1_loss_interval"]
        assert low - 1e-6 <= row["knn1_loss"] <= high + 1e-6
        assert row["encoder_ms"] > 0
    macs = {row["query_width"]: row["encoder_macs"] for row in study.exact}
    assert macs["full"] > macs["student"] > macs["student 1/8"]
    # The strategies are those of the student in its teacher's gallery.
    assert {row["query_width"] for row in study.rows} == {*macs}
    single = {row["query_width"]: row["knn1"] for row in study.rows if row["strategy"] == "single-shot"}
    across = {row["query_width"]: row["knn1"] for row in study.exact if row["gallery_width"] == "full"
              and row["dim"] == DIM}  # fmt: skip
    for width, found in single.items():
        assert abs(found - across[width]) <= 1 / 18 + 1e-6


def test_what_is_written_says_the_modes(study: mv.Study) -> None:
    assert study.output is not None
    results = json.loads((study.output / "results.json").read_text())
    assert results["modes"] == list(MODES)
    with (study.output / "modes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mode"] for row in rows] == [row["mode"] for row in results["exact"]]
    assert (study.output / "modes.png").stat().st_size > 10_000


def test_modes_are_chosen_by_the_command(
    data: Path, run: Path, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(json.dumps(GRID))
    command = [
        "evaluate",
        "--checkpoint",
        str(run),
        "--teacher",
        teacher,
        "--grid",
        str(grid),
        "--threads",
        "1",
    ]
    command += ["--name", "folder", "--root", str(data), "--output", str(tmp_path / "out")]
    assert main([*command, "--modes", "student-student"]) == 0
    said = capsys.readouterr().out
    assert "exact search by mode" in said
    assert "modes.png" in said
    assert main([*command, "--modes", "student-student", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["modes"] == ["teacher-teacher", "student-student"]
    assert {row["mode"] for row in found["exact"]} == {"teacher-teacher", "student-student"}
    assert {row["query_width"] for row in found["rows"]} == {"full"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--teacher", "auto", "--modes", "student-pupil"], "it can be teacher-teacher, student-student"),
        (["--modes", "student-teacher"], "has no teacher here"),
        (["--teacher", "timm:no_such_network"], "weights cannot be had"),
    ],
)
def test_modes_that_cannot_be_are_one_line_and_write_nothing(
    data: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    output = tmp_path / "out"
    command = ["evaluate", "--checkpoint", str(run), "--name", "folder", "--root", str(data)]
    assert main([*command, "--output", str(output), "--threads", "1", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("matmamba: error: ") == 1
    assert error.strip().count("\n") == 0
    assert not output.exists()


def test_a_validation_takes_each_width_as_it_wants_its_images(data: Path, run: Path) -> None:
    found = mv.validate(mv.with_teacher(run), data="folder", root=data, threads=1)
    widths = [row["width"] for row in found.widths]
    assert widths == ["full", "student", "student 1/2", "student 1/4", "student 1/8"]
    assert {row["gallery_width"] for row in found.retrieval} == set(widths)


@pytest.mark.usefixtures("really_drawn")
def test_embeddings_shorter_than_every_dim_of_the_grid_are_drawn(
    data: Path, run: Path, tmp_path: Path
) -> None:
    study = mv.evaluate(run, data="folder", root=data, output=tmp_path / "out", threads=1)
    assert {row["strategy"] for row in study.rows} == {"single-shot"}
    assert study.modes == ()
    assert "modes" not in study.to_dict()
    assert "mode" not in study.exact[0]
    assert not (tmp_path / "out" / "modes.png").exists()
