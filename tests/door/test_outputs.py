"""Folders that calls write: refused before any work where they cannot be, or would be read as images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from matmamba_vision import MatMambaError
from PIL import Image
from small import create

OUTPUTS: dict[str, Callable[[str, str], Any]] = {
    "train": lambda photos, output: mv.train(settings(photos, output)),
    "distill": lambda photos, output: mv.distill({"teacher": "model", "images": [photos], "output": output}),
    "validate": lambda photos, output: mv.validate("model", output=output, data="folder", root=photos),
    "select": lambda photos, output: mv.select("model", "gmacs=2", output=output, data="folder", root=photos),
    "evaluate": lambda photos, output: mv.evaluate("model", output=output, data="folder", root=photos),
    "evaluate_gallery": lambda photos, output: mv.evaluate_gallery("g", photos, output=output),
    "extract": lambda photos, output: mv.extract("model", "1/2", output=output),
    "index": lambda photos, output: mv.index(photos, output, model="model"),
    "merge": lambda photos, output: mv.merge(["g"], output),
    "prepare_shards": lambda photos, output: mv.prepare_shards({"name": "folder", "root": photos}, output),
    "demo": lambda photos, output: mv.demo(output),
}
DRAWN = ("train", "distill", "validate", "select", "evaluate", "evaluate_gallery")


def settings(photos: str, output: str) -> dict[str, Any]:
    """Of the shortest run that there is."""
    return {
        "output": output,
        "data": {"name": "folder", "root": photos, "batch_size": 4},
        "model": {"name": "matmamba_nano_patch4_32", "img_size": 16},
        "optim": {"epochs": 1},
        "trackers": [],
        "threads": 1,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a model of random weights, and a gallery of the photos by it."""
    root, rng = tmp_path_factory.mktemp("outputs"), np.random.default_rng(0)
    for number in range(8):
        file = root / "photos" / ("dark" if number % 2 else "bright") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(file)
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    model = create("matmamba_nano_patch4_32", img_size=16, num_classes=2, pretrained_cfg_overlay=cfg)
    mv.save_checkpoint(root / "model", model.eval(), ("bright", "dark"))
    mv.index(root / "photos", root / "g", model=root / "model", threads=1)
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def names(place: Path) -> set[str]:
    return {str(file.relative_to(place)) for file in place.rglob("*")}


@pytest.mark.parametrize("call", OUTPUTS)
def test_a_folder_below_a_file_is_refused(call: str, place: Path) -> None:
    (place / "file").write_text("mine")
    before = names(place)
    with pytest.raises(MatMambaError, match=r"^(output|gallery|into) file/x: \S+/file is a file, and holds"):
        OUTPUTS[call]("photos", "file/x")
    assert names(place) == before


@pytest.mark.parametrize("output", ["photos", "photos/dark", "photos/../photos"])
@pytest.mark.parametrize("call", DRAWN)
def test_a_folder_among_the_images_is_refused(call: str, output: str, place: Path) -> None:
    before = names(place)
    with pytest.raises(MatMambaError, match=rf"^output {output} lies in photos, whose images are read"):
        OUTPUTS[call]("photos", output)
    assert names(place) == before


@pytest.mark.parametrize("call", [call for call in DRAWN if call not in ("train", "distill")])
def test_a_new_folder_of_pictures_is_refused_there(call: str, place: Path) -> None:
    before = names(place)
    with pytest.raises(MatMambaError, match=r"^output photos/new lies in photos"):
        OUTPUTS[call]("photos", "photos/new")
    assert names(place) == before


def test_a_run_may_lie_among_its_images(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `cd photos`: it makes no class, goes on, and is measured."""
    monkeypatch.chdir(place / "photos")
    first = mv.train(settings(".", "run"))
    again = mv.train(settings(".", "run"), resume="auto")
    assert again.loss == first.loss
    assert mv.load_checkpoint("run").classes == ("bright", "dark")
    mv.validate("run", output="run/validate", threads=1)
    assert Path("run/validate/results.json").is_file()


def test_pictures_beside_the_split_hurt_nothing(place: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree("photos", f"split/{part}")
    mv.validate("model", output="split/new", data="folder", root="split", threads=1)
    with pytest.raises(MatMambaError, match=r"^output split/val lies in split/val"):
        mv.validate("model", output="split/val", data="folder", root="split")
