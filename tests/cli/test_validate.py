"""`matmamba validate` as a user runs it: its numbers against naive ones, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matmamba_datasets import DataConfig, eval_transform, open_splits
from matmamba_vision import load_checkpoint, save_checkpoint
from matmamba_vision.cli.main import main
from PIL import Image
from small import SMALL, create

FILES = {"results.json", "results.csv", "heatmap.png", "calibration.png"}


@pytest.fixture
def checkpoint(photos: Path, tmp_path: Path) -> Path:
    """Of an untrained model, of a run on the photos."""
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    sizes = SMALL | {"num_classes": 2}
    model = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **sizes)
    run = {
        "data": {"name": "folder", "root": str(photos), "max_broken": 1.0},
        "objective": {"mrl_dims": [4, 16, 64]},
    }
    save_checkpoint(tmp_path / "run", model, ("bright", "dark"), run)
    return tmp_path / "run"


@pytest.fixture
def validate(checkpoint: Path) -> Callable[..., dict[str, Any]]:
    """Run the command on the checkpoint; returns its results.json."""

    def run(*flags: str) -> dict[str, Any]:
        assert main(["validate", "--checkpoint", str(checkpoint), "--threads", "1", *flags]) == 0
        return json.loads((checkpoint / "validate" / "results.json").read_text())

    return run


@torch.no_grad()
def embedded(
    checkpoint: Path, photos: Path, part: str, width: str, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    loaded = load_checkpoint(checkpoint)
    images = getattr(open_splits(DataConfig(name="folder", root=str(photos))), part)
    transform = eval_transform(loaded.model.input)
    batch = torch.stack([transform(images[index].image) for index in range(len(images))])
    return loaded.model.embed(batch, width=width, dim=dim).numpy(), images.labels


def naive(xq: np.ndarray, asked: np.ndarray, xb: np.ndarray, stored: np.ndarray) -> dict[str, float]:
    """Query by query, hit by hit."""
    found: dict[str, list[float]] = {"knn1": [], "knn3": [], "map10": [], "hit10": []}
    for x, label in zip(xq, asked, strict=True):
        order = np.argsort(-(xb @ x), kind="stable")
        right = stored[order] == label
        votes = np.zeros(2)
        for key in order[:3]:
            votes[stored[key]] += np.exp(xb[key] @ x / 0.07)
        found["knn1"].append(right[0])
        found["knn3"].append(votes.argmax() == label)
        found["map10"].append(sum(right[: k + 1].mean() for k in range(10) if right[k]) / 10)
        found["hit10"].append(right[:10].any())
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_every_pair_of_widths_and_every_dim_is_searched(
    validate: Callable[..., dict[str, Any]], checkpoint: Path, photos: Path
) -> None:
    queries, galleries, dims = ["full", "2-0-8"], ["1/4", "full"], [4, 32]
    flags = ["--widths", *queries, "--gallery-widths", *galleries, "--dims", *map(str, dims), "--knn", "3"]
    rows = validate(*flags)["retrieval"]
    wanted = list(product(queries, galleries, dims))
    assert [(row["query_width"], row["gallery_width"], row["dim"]) for row in rows] == wanted
    for row, (query, gallery, dim) in zip(rows, wanted, strict=True):
        xq, asked = embedded(checkpoint, photos, "held_out", query, dim)
        xb, stored = embedded(checkpoint, photos, "train", gallery, dim)
        for name, value in naive(xq, asked, xb, stored).items():
            assert row[name] == pytest.approx(value), (query, gallery, dim, name)
            low, high = row[f"{name}_interval"]
            assert low <= row[name] <= high


def test_defaults_come_from_the_checkpoint(validate: Callable[..., dict[str, Any]]) -> None:
    results = validate()
    widths = ["full", "1/2", "1/4", "1/8"]
    assert [row["width"] for row in results["widths"]] == widths
    assert results["settings"]["dims"] == [4, 16, 32]
    assert {row["gallery_width"] for row in results["retrieval"]} == set(widths)
    assert [(row["first"], row["second"]) for row in results["comparisons"]] == [
        ("full", width) for width in widths[1:]
    ]
    assert "probes" not in results
    assert "commit" in results
    last = {(row["query_width"], row["gallery_width"], row["dim"]): row for row in results["retrieval"]}
    for row in results["widths"]:
        assert (row["knn1"], row["map10"]) == tuple(
            last[row["width"], "full", 32][name] for name in ("knn1", "map10")
        )
        assert {"params", "gmacs", "encode_ms", "top1", "top5", "ece", "nll", "brier"} <= set(row)


def test_a_gallery_of_other_widths_is_full_width_unless_named(
    validate: Callable[..., dict[str, Any]],
) -> None:
    rows = validate("--widths", "1/4")["retrieval"]
    assert {row["gallery_width"] for row in rows} == {"full", "1/4"}


@pytest.mark.usefixtures("really_drawn")
def test_the_files_say_the_same(
    validate: Callable[..., dict[str, Any]], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = validate("--json", "--widths", "full", "1/2", "--probe", "--dims", "32")
    assert json.loads(capsys.readouterr().out) == results
    folder = checkpoint / "validate"
    assert {file.name for file in folder.iterdir()} == FILES
    lines = list(csv.DictReader((folder / "results.csv").open()))
    for table in ("widths", "retrieval", "comparisons", "probes"):
        numbers = [v for row in results[table] for k, v in row.items() if isinstance(v, float)]
        written = [float(line["value"]) for line in lines if line["table"] == table]
        assert set(numbers) <= set(written), table
    (top1,) = (line for line in lines if line["metric"] == "top1" and line["width"] == "1/2")
    assert [float(top1["low"]), float(top1["high"])] == results["widths"][1]["top1_interval"]
    for name in ("heatmap.png", "calibration.png"):
        with Image.open(folder / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_tables_for_people(
    validate: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    results = validate("--widths", "full", "1/2", "--compare", "1/2", "full", "--probe")
    said = capsys.readouterr().out
    for title in ("1-NN by embedding dim", "mAP@10 by embedding dim", "differences", "linear probe"):
        assert title in said
    assert f"{results['widths'][1]['top1']:.3f} ±" in said
    (pair,) = results["comparisons"]
    assert (pair["first"], pair["second"]) == ("1/2", "full")
    assert pair["top1_difference"] == pytest.approx(
        results["widths"][1]["top1"] - results["widths"][0]["top1"]
    )


def test_a_capped_gallery_is_the_same_for_the_same_seed(validate: Callable[..., dict[str, Any]]) -> None:
    first, again = (validate("--gallery-images", "12", "--seed", "3") for _ in range(2))
    assert first["images"]["gallery"] == 12
    assert first["retrieval"] == again["retrieval"]
    assert first["retrieval"] != validate("--gallery-images", "12", "--seed", "4")["retrieval"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--dims", "8", "33"], "dims 33: embeddings of this checkpoint have 32 dims"),
        (["--dims", "0"], "dims is 0"),
        (["--knn", "10", "0"], "knn is 0"),
        (["--gallery-images", "0"], "gallery_images is 0"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--compare", "1/2", "3/8"], "compare 3/8: it can be one of the widths full, 1/2, 1/4, 1/8"),
        (["--widths", "1/3"], "'1/3'"),
        (["--gallery-widths", "nowhere.yaml"], "nowhere.yaml"),
        (["--device", "abacus"], "'abacus'"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    flags: list[str], named: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--checkpoint", str(checkpoint), *flags]) == 2
    assert named in capsys.readouterr().err
    assert not (checkpoint / "validate").exists()


def test_a_probe_without_scikit_learn_names_what_is_missing(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["validate", "--checkpoint", str(checkpoint), "--probe"]) == 2
    assert "pip install 'matmamba-vision[data]'" in capsys.readouterr().err


def test_unreadable_images_are_an_error(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in photos.rglob("*.*"):
        file.write_bytes(b"no image")
    assert main(["validate", "--checkpoint", str(checkpoint)]) == 2
    assert "no image of the queries can be read" in capsys.readouterr().err


def test_an_output_that_is_a_file_stays(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    assert main(["validate", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "taken")]) == 2
    assert (tmp_path / "taken").read_text() == "mine"
