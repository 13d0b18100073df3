"""`matmamba plan` as a user runs it: what it saves, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from matmamba_retrieval import Gallery, Plan
from matmamba_vision import save_checkpoint
from matmamba_vision.cli.main import main
from PIL import Image
from small import SMALL


@pytest.fixture
def indexed(photos: Path, tmp_path: Path) -> Path:
    """A gallery of the photos by an untrained model."""
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    model = timm.create_model(
        "matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **SMALL | {"num_classes": 2}
    )
    save_checkpoint(tmp_path / "run", model, ("bright", "dark"), {})
    flags = ["--checkpoint", str(tmp_path / "run"), "--images", str(photos), "--gallery", str(tmp_path / "G")]
    assert main(["index", *flags, "--threads", "1", "--dims", "8"]) == 0
    return tmp_path / "G"


def plan(gallery: Path, photos: Path, *flags: str) -> int:
    return main(["plan", "--gallery", str(gallery), "--queries", str(photos), "--threads", "1", *flags])


def test_a_plan_is_measured_saved_and_shown(
    indexed: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plan.png"
    capsys.readouterr()
    assert plan(indexed, photos, "--target", "recall=0.99", "--k", "3", "--plot", str(plot), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    Image.open(plot).verify()
    with Gallery(indexed) as gallery:
        assert gallery.plan == printed["plan"]
        saved = Plan.from_json(gallery.plan)
        saved.strategy(gallery)
        assert saved.spec == gallery.spec
    assert saved.measured["recall"] >= 0.99
    assert saved.goal == "recall >= 0.99"
    assert saved.measured["ms"] <= max(row["ms"] for row in printed["front"] if row["recall"] >= 0.99)
    assert [row["ms"] for row in printed["front"]] == sorted(row["ms"] for row in printed["front"])


def test_labels_of_folders_are_a_target_too(
    indexed: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert plan(indexed, photos, "--target", "knn1=0.1", "--dims", "4", "--k", "2") == 0
    printed = capsys.readouterr().out
    assert "knn1 >= 0.1" in printed
    assert "→" in printed
    with Gallery(indexed) as gallery:
        assert gallery.shortlist_dims() == [4, 8]


def test_indexes_are_tried_in_turn_and_the_chosen_one_stays(
    indexed: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    flags = ("--indexes", "HNSW4", "Flat", "--budget", "memory_mb=1", "--k", "3", "--json")
    assert plan(indexed, photos, *flags) == 0
    settings = json.loads(capsys.readouterr().out)["plan"]["settings"]
    with Gallery(indexed) as gallery:
        assert Plan.from_json(gallery.plan).settings.index == settings["index"]
        assert settings["index"] in ("", *(record.recipe for record in gallery.shortlists()))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "a plan needs a target"),
        (["--target", "speed=3"], "unknown target 'speed'"),
        (["--budget", "ms=0.000001"], "nothing that was tried reaches ms <= 1e-06"),
        (["--target", "recall=0.9", "--k", "0"], "--k is 0"),
        (["--target", "recall=0.9", "--k", "25"], "k = 25"),
        (["--target", "recall=0.9", "--plot", "/no/such/folder/plan.png"], "no folder"),
        (["--target", "recall=0.9", "--widths", "1/3"], "1/3"),
    ],
)
def test_what_cannot_be_planned_is_named_and_nothing_saved(
    indexed: Path, photos: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(indexed, photos, *flags) == 2
    assert message in capsys.readouterr().err
    with Gallery(indexed) as gallery:
        assert gallery.plan is None
