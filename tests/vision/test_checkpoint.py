"""Checkpoints: what is saved comes back, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_vision import (
    CheckpointError,
    MatMamba,
    extract,
    load_checkpoint,
    load_official,
    save_checkpoint,
)
from matmamba_vision.models.shipped import HEADER, read_header
from matmamba_vision.width import WidthLike
from safetensors.torch import load_file, save_file
from small import SMALL, create

GOLDEN = Path(__file__).parents[1] / "data" / "official_tiny.safetensors"


@pytest.fixture
def nano() -> MatMamba:
    torch.manual_seed(0)
    return create(
        "matmamba_nano_patch4_32",
        num_classes=3,
        img_size=16,
        trained_widths=("full", "1/2", [2, 4, 8, 8]),
        pretrained_cfg_overlay={"input_size": (3, 16, 16)},
    ).eval()


def test_a_checkpoint_comes_back_whole(nano: MatMamba, tmp_path: Path) -> None:
    file = save_checkpoint(tmp_path / "run", nano, ("a", "b", "c"), {"seed": 5})
    loaded = load_checkpoint(tmp_path / "run")
    assert (loaded.path, loaded.classes, loaded.run) == (file, ("a", "b", "c"), {"seed": 5})
    assert loaded.model.trained_widths == nano.trained_widths
    assert loaded.model.input == nano.input
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded.model(images, width="1/4"), nano(images, width="1/4"))
    assert load_checkpoint(file).digest == loaded.digest


def test_weights_in_half_precision_take_half_the_space(nano: MatMamba, tmp_path: Path) -> None:
    whole = save_checkpoint(tmp_path / "whole", nano)
    half = save_checkpoint(tmp_path / "half", nano, dtype=torch.float16)
    numbers = sum(tensor.numel() for tensor in nano.state_dict().values())
    assert whole.stat().st_size - half.stat().st_size >= 2 * numbers
    found = load_checkpoint(half).model.state_dict()
    for name, tensor in nano.state_dict().items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], tensor, rtol=2**-11, atol=2**-25)


def test_trained_widths_of_states_come_back(tmp_path: Path) -> None:
    model = MatMamba(**SMALL, trained_widths=("full", "1/2:1/2", "8-0-2"))
    save_checkpoint(tmp_path, model)
    assert load_checkpoint(tmp_path).model.trained_widths == model.trained_widths


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(
    nano: MatMamba, tmp_path: Path, value: float
) -> None:
    nano.get_parameter("blocks.1.mixer.norm").data[3, 0] = value
    save_checkpoint(tmp_path, nano)
    with pytest.raises(CheckpointError, match=r"blocks.1.mixer.norm .*not finite"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("width", ["1/4", [2, 0, 8, 16]], ids=str)
def test_an_extracted_model_is_a_checkpoint_too(nano: MatMamba, tmp_path: Path, width: WidthLike) -> None:
    save_checkpoint(tmp_path / "small.safetensors", extract(nano, width), ("a", "b", "c"))
    loaded = load_checkpoint(tmp_path / "small.safetensors").model
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(images), nano(images, width=width))
    assert loaded.trained_widths == (loaded.width("full"),)


def test_a_model_made_without_timm_can_be_saved(
    model: MatMamba, images: torch.Tensor, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, model)
    assert torch.equal(load_checkpoint(tmp_path).model(images), model(images))


def test_saving_replaces_all_or_nothing(
    nano: MatMamba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save_checkpoint(tmp_path, nano).read_bytes()

    def full_disk(file: Path, content: bytes) -> None:
        with file.open("wb") as opened:
            opened.write(content[:100])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, nano)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    load_checkpoint(tmp_path)


def test_damage_is_named(nano: MatMamba, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere")
    file = save_checkpoint(tmp_path, nano)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=file.name):
        load_checkpoint(tmp_path)
    file.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match=file.name):
        load_checkpoint(tmp_path)


def test_a_file_of_somebody_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="official_tiny"):
        load_checkpoint(GOLDEN)
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"matmamba": json.dumps({})})
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "config"])
def test_an_official_checkpoint_that_does_not_fit_is_named(change: str) -> None:
    weights = {k.removeprefix("param."): v for k, v in load_file(GOLDEN).items() if k.startswith("param.")}
    config: dict[str, Any] = {"d_model": 64, "n_layer": 4, "n_classes": 10, "patch_size": 8}
    config |= {"image_size": 32, "ssm_cfg": {"d_state": 16}}
    culprit = {
        "missing": "layers.2.mixer.D",
        "extra": "layers.9.x",
        "shape": "head.weight",
        "config": "n_layer",
    }[change]
    if change == "missing":
        del weights[culprit]
    elif change == "extra":
        weights[culprit] = torch.zeros(1)
    elif change == "shape":
        weights[culprit] = torch.zeros(7, 64)
    else:
        del config[culprit]
    with pytest.raises(ValueError, match=culprit):
        load_official(weights, config)


def test_names_that_wrappers_prefixed_are_read(nano: MatMamba, tmp_path: Path) -> None:
    """Those of DistributedDataParallel, of torch.compile, and of both."""
    file = save_checkpoint(tmp_path / "run", nano)
    header = read_header(file)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        state = {f"{prefix}{name}": tensor.clone() for name, tensor in nano.state_dict().items()}
        save_file(state, file, {HEADER: json.dumps(header)})
        found = load_checkpoint(file).model.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in nano.state_dict().items())


def test_tensors_that_do_not_fit_are_named_the_first_few(nano: MatMamba, tmp_path: Path) -> None:
    file = save_checkpoint(tmp_path / "run", nano)
    header = json.dumps(read_header(file))
    state = {f"other.{name}": tensor.clone() for name, tensor in nano.state_dict().items()}
    save_file(state, file, {HEADER: header})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(file)
    said = str(caught.value)
    assert "the state dict lacks" in said
    assert "it has besides other." in said
    assert said.count(f"and {len(state) - 5} more") == 2
    assert len(said) < 900
    wrong = {**nano.state_dict(), "head.weight": torch.zeros(2, 2)}
    save_file({name: tensor.clone() for name, tensor in wrong.items()}, file, {HEADER: header})
    with pytest.raises(CheckpointError, match=r"in another shape head\.weight \(2, 2\), not \(3, 128\)"):
        load_checkpoint(file)
