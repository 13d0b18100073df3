"""`evaluate_gallery` and `matmamba evaluate --gallery`: a gallery measured as it is, wherever it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_retrieval.planning.grid import Grid
from matmamba_vision.cli.main import main
from PIL import Image
from small import SMALL, create, unit_vectors

COUNT, ASKED, DIM, K = 60, 20, 16, 5
LABELS = "abc"
GRID = Grid(k=K, dims=[4, 8], shortlists=[10, 30], gate_losses=[10], gate_expands=[0], folds=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of labelled vectors made elsewhere, with indexes over 4 and 8 dims."""
    with Gallery.create(tmp_path / "G", EmbeddingSpec("vectors:toy", "full", DIM)) as gallery:
        rows = [Row(f"id{n}", f"/p/{n}", LABELS[n % 3], {}) for n in range(COUNT)]
        gallery.add(rows, unit_vectors(COUNT, DIM))
        for dim in (4, 8):
            gallery.build_shortlist(dim, "flat")
    return tmp_path / "G"


@pytest.fixture
def place(folder: Path) -> str:
    """Where it was pushed to."""
    with mv.open_gallery(folder) as gallery:
        gallery.push(f"edge:{folder.parent / 'P'}", dims=[4, 8])
    return f"edge:{folder.parent / 'P'}"


def queries() -> dict[str, Any]:
    """Vectors with labels, as a study takes them."""
    return {"vectors": unit_vectors(ASKED, DIM, seed=1), "labels": [LABELS[n % 3] for n in range(ASKED)]}


def figures(study: mv.Study) -> dict[str, dict[str, float]]:
    """What each strategy reaches and compares, by what it is."""
    names = ("knn1", "map", "recall", "same1", "knn1_interval", "encoder_macs", "candidates", "by_full")
    # Scores differ in their last digits, and with them thresholds of gates.
    form = mv.Strategy.single_shot().to_json().keys() - {"gate"}
    return {
        json.dumps({name: row[name] for name in sorted(form)}): {name: row[name] for name in names}
        for row in study.rows
    }


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_and_an_engine_give_the_same_figures(folder: Path, place: str) -> None:
    before = bytes_of(folder)
    here, there = (mv.evaluate_gallery(each, grid=GRID, **queries()) for each in (folder, place))
    assert bytes_of(folder) == before
    assert {row["strategy"] for row in here.rows} == {"single-shot", "shortlist", "funnel"}
    assert figures(there) == figures(here)
    assert (here.gallery, there.gallery) == (str(folder), place)
    assert here.images == there.images == {"gallery": COUNT, "queries": ASKED}


def test_figures_are_those_of_arithmetic(folder: Path) -> None:
    asked = queries()
    rows = mv.evaluate_gallery(folder, grid=GRID, **asked).rows
    with Gallery(folder) as gallery:
        xb = np.asarray(gallery.vectors(np.arange(COUNT)), np.float32)
    order = np.argsort(-asked["vectors"] @ xb.T, axis=1)[:, :K]
    same = np.array(
        [
            [LABELS[key % 3] == label for key in keys]
            for keys, label in zip(order, asked["labels"], strict=True)
        ]
    )
    exact = next(row for row in rows if row["strategy"] == "single-shot")
    ranks = np.arange(1, K + 1)
    assert exact["knn1"] == pytest.approx(same[:, 0].mean())
    assert exact["map"] == pytest.approx((same * same.cumsum(1) / ranks).sum(1).mean() / K)
    assert exact["recall"] == exact["same1"] == 1
    first = next(row for row in rows if (row["dims"], row["lengths"]) == ([4], [10]))
    listed = np.argsort(
        -asked["vectors"][:, :4] @ (xb[:, :4] / np.linalg.norm(xb[:, :4], axis=1, keepdims=True)).T, axis=1
    )
    found = [len({*keys} & {*list_[:10]}) / K for keys, list_ in zip(order, listed, strict=True)]
    assert first["recall"] == pytest.approx(np.mean(found), abs=0.02)
    assert first["recall"] < 1


def test_without_labels_recall_and_the_first_hit_are_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "asked.npy", queries()["vectors"])
    (tmp_path / "grid.yaml").write_text(f"k: {K}\ndims: [4]\nshortlists: [10]\n")
    command = ["evaluate", "--gallery", str(folder), "--vectors", str(tmp_path / "asked.npy")]
    command += ["--model-name", "toy", "--grid", str(tmp_path / "grid.yaml"), "--threads", "1"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the queries have no labels: 1-NN and mAP are left out" in printed
    assert "same first" in printed
    assert "1-NN lost" not in printed
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {
        "results.json",
        "results.csv",
        "quality_macs.png",
        "quality_ms.png",
        "recall_qps.png",
        "memory.png",
    }
    for file in (tmp_path / "out").glob("*.png"):
        Image.open(file).verify()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["gallery"] == str(folder)
    with (tmp_path / "out" / "results.csv").open() as opened:
        assert [float(line["recall"]) for line in csv.DictReader(opened)] == [
            row["recall"] for row in results["rows"]
        ]
    assert all("knn1" not in row for row in results["rows"])


def test_the_plan_is_measured_and_marked(folder: Path, place: str) -> None:
    for where in (str(folder), place):
        with pytest.raises(mv.MatMambaError, match=r"has no plan: `plan` \(`matmamba plan`\) makes one"):
            mv.evaluate_gallery(where, grid="plan", **queries())
        with mv.open_gallery(where, write=True) as gallery:
            plan = gallery.plan(vectors=queries()["vectors"], target="recall=0.8", k=K, dims=[8]).plan
        alone = mv.evaluate_gallery(where, grid="plan", **queries())
        (row,) = (row for row in alone.rows if row["planned"])
        assert {name: row[name] for name in plan.strategy.to_json()} == plan.strategy.to_json()
        assert row["recall"] >= 0.7
        whole = mv.evaluate_gallery(where, grid=GRID, **queries())
        assert [row["planned"] for row in whole.rows].count(True) == 1
        assert len(whole.rows) > len(alone.rows)


def test_images_ask_by_all_widths(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    model = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **SMALL | {"num_classes": 2})
    mv.save_checkpoint(tmp_path / "run", model.eval(), ("bright", "dark"), {})
    mv.index(photos, tmp_path / "G", model=tmp_path / "run", dims=[8], threads=1)
    with mv.open_gallery(tmp_path / "G") as gallery:
        gallery.push(f"edge:{tmp_path / 'P'}", dims=[8, 16])
    grid = Grid(k=3, dims=[8], shortlists=[10], gate_losses=[10], gate_expands=[0], folds=2)
    studies = [
        mv.evaluate_gallery(where, photos, grid=grid, threads=1, device="cpu")
        for where in (tmp_path / "G", f"edge:{tmp_path / 'P'}")
    ]
    rows = studies[0].rows
    assert {row["strategy"] for row in rows} == {"single-shot", "shortlist", "funnel", "gated"}
    assert {row["query_width"] for row in rows} == {"full", "1/2", "1/4", "1/8"}
    # A gate that is drawn by the same queries falls alike, too.
    assert figures(studies[1]) == figures(studies[0])
    exact = next(row for row in rows if row["strategy"] == "single-shot")
    assert exact["knn1"] == 1  # they find themselves


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vectors": None, "labels": None}, "either queries, images, or vectors"),
        ({"queries": "x"}, "either queries, images, or vectors"),
        ({"vectors": unit_vectors(3, 8), "labels": None}, "vectors has 8 dims"),
        ({"labels": ["z"] * ASKED}, "no query is of a class of .*G: a, b, c there, z asked"),
        ({"labels": ["a"]}, "labels has 1 for 20 vectors"),
        ({"grid": "fast"}, "grid is 'fast': it can be quick, full, of a gallery plan, or a YAML file"),
        ({"grid": Grid(strategies=["magic"])}, "'magic'"),
        ({"most": 1}, "most is 1: it can be 2 or more"),
        ({"output": "x.json"}, "x.json is the name of a file"),
        ({"gallery": "edge:nowhere"}, "edge:nowhere holds no gallery"),
        ({"gallery": "qdrant://127.0.0.1:9/photos"}, "the server cannot be reached"),
    ],
)
def test_what_cannot_be_is_one_line(
    change: dict[str, Any], said: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = {"gallery": folder, "output": "out", **queries()} | change
    with pytest.raises(mv.MatMambaError, match=said) as raised:
        mv.evaluate_gallery(wanted.pop("gallery"), **wanted)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--images x", "--images asks a gallery: name it with --gallery"),
        ("--gallery G", "--gallery is asked by either --images, or --vectors"),
        ("--gallery G --images x --vectors y", "--gallery is asked by either --images, or --vectors"),
        ("--gallery G --images x --teacher auto", "--teacher means nothing with --gallery"),
        ("--gallery G --images x --root y", "--root means nothing with --gallery"),
        ("--gallery G --images x --gallery-images 5", "--gallery-images means nothing with --gallery"),
        ("--gallery G --vectors x.npy", "say which model made x.npy"),
    ],
)
def test_flags_without_a_meaning_are_refused(
    flags: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    np.save("x.npy", queries()["vectors"])
    assert main(["evaluate", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
