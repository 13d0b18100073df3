"""Weights that come with the package, stood in for by a small random checkpoint in another folder."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from matmamba_vision import CheckpointError, MatMamba, load_checkpoint, save_checkpoint
from matmamba_vision.cli.main import main
from matmamba_vision.config_file import load_into
from matmamba_vision.models import registry, shipped
from matmamba_vision.runs import DistillConfig, TrainConfig
from small import create

NAME = "matmamba_nano_patch4_32"
CLASSES = tuple("abcdefghij")


def register_again() -> None:
    """Registration reads which weights are there; timm warns that names are registered already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.reload(registry)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MatMamba]:
    """What is shipped: of the variant's shape, but for its scan, and trained with dropout."""
    torch.manual_seed(0)
    overlay = {"mean": (0.1, 0.2, 0.3), "crop_pct": 0.8}
    changed: dict[str, Any] = {
        "num_classes": 10,
        "scan": "raster",
        "proj_drop_rate": 0.1,
        "trained_widths": ("full", "1/2"),
    }
    model = create(NAME, pretrained_cfg_overlay=overlay, **changed).eval()
    save_checkpoint(tmp_path / "weights" / f"{NAME}.safetensors", model, CLASSES)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    register_again()
    yield model
    monkeypatch.undo()
    register_again()


@pytest.fixture
def photos32() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_timm_makes_the_model_that_was_saved(saved: MatMamba, photos32: torch.Tensor) -> None:
    assert timm.list_pretrained("matmamba*") == [NAME]
    model = create(NAME, pretrained=True)
    assert model.arguments | {"proj_drop_rate": 0.1} == saved.arguments
    assert model.arguments["proj_drop_rate"] == 0
    assert model.trained_widths == saved.trained_widths
    assert model.input == saved.input
    assert model.pretrained_cfg is not None
    assert model.pretrained_cfg["label_names"] == CLASSES
    assert torch.equal(model.eval()(photos32, "1/2"), saved(photos32, "1/2"))
    small = create(NAME, pretrained=True, width="1/4").eval()
    assert torch.equal(small(photos32), saved(photos32, "1/4"))


@torch.no_grad()
def test_the_weights_fit_other_classes_sizes_and_uses(saved: MatMamba, photos32: torch.Tensor) -> None:
    model = create(NAME, pretrained=True, num_classes=7).eval()
    assert model(photos32).shape == (2, 7)
    assert torch.equal(model.embed(photos32), saved.embed(photos32))
    larger = create(NAME, pretrained=True, img_size=48).eval()
    assert larger(torch.randn(1, 3, 48, 48)).shape == (1, 10)
    assert torch.equal(*(one.get_parameter("blocks.0.mixer.out") for one in (larger, saved)))
    features = timm.create_model(NAME, pretrained=True, features_only=True).eval()
    assert torch.equal(features(photos32)[-1], saved.forward_intermediates(photos32)[1][-1])


def test_other_weights_for_the_name_are_taken_as_they_are(saved: MatMamba) -> None:
    """A state dict of the variant's own architecture, which shipped arguments would not fit."""
    given = {name: tensor + 1 for name, tensor in saved.state_dict().items()}
    overlay = {"state_dict": given, "num_classes": 10}
    model = create(NAME, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.get_parameter("head.bias"), saved.get_parameter("head.bias") + 1)
    assert model.architecture.scan == "flip"


@pytest.mark.usefixtures("saved")
def test_a_variant_without_weights_says_so() -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist for matmamba_hybrid_nano_patch4_32"):
        create("matmamba_hybrid_nano_patch4_32", pretrained=True)


def test_a_name_stands_for_its_checkpoint(
    saved: MatMamba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_checkpoint(NAME)
    assert (loaded.path, loaded.classes) == (tmp_path / "weights" / f"{NAME}.safetensors", CLASSES)
    before = loaded.path.read_bytes()
    # A folder of that name goes before, and saving never reaches the shipped file.
    file = save_checkpoint(NAME, saved, tuple("klmnopqrst"))
    assert file == Path(NAME) / "model.safetensors"
    assert load_checkpoint(NAME).classes == tuple("klmnopqrst")
    assert loaded.path.read_bytes() == before
    with pytest.raises(CheckpointError, match=f"no checkpoint at runs/none.*shipped: {NAME}"):
        load_checkpoint("runs/none")


def test_images_can_be_indexed_before_any_training(photos: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    assert main(["index", "--images", str(photos), "--gallery", str(gallery)]) == 0
    assert main(["search", "--gallery", str(gallery), str(photos / "dark" / "00.jpg")]) == 0


def test_some_weights_are_shipped() -> None:
    assert NAME in shipped.shipped_variants()


@pytest.mark.parametrize("variant", shipped.shipped_variants())
def test_shipped_weights_have_their_card_config_and_results(variant: str) -> None:
    """Results are those of these very weights, and no file names a folder of the machine that trained."""
    file = shipped.FOLDER / f"{variant}.safetensors"
    assert file.stat().st_size <= 16 * 2**20
    checkpoint = load_checkpoint(variant)
    results = json.loads(file.with_suffix(".json").read_text())
    assert results["digest"] == checkpoint.digest
    assert [row["width"] for row in results["widths"]] == ["full", "1/2", "1/4", "1/8"]
    card = file.with_suffix(".md").read_text()
    assert all(f"{row['top1']:.4f}" in card for row in results["widths"])
    kind = DistillConfig if "teacher" in checkpoint.run else TrainConfig
    config = load_into(kind, file.with_suffix(".yaml"))
    assert yaml.safe_load(file.with_suffix(".yaml").read_text()) == checkpoint.run
    assert config.model.name == variant
    assert not Path(config.output).is_absolute()
    assert not Path(config.data.root).is_absolute()
    assert not any(Path(folder).is_absolute() for folder in checkpoint.run.get("images", []))
    model = create(variant, pretrained=True)
    assert all(
        torch.equal(tensor, model.state_dict()[name])
        for name, tensor in checkpoint.model.state_dict().items()
    )
