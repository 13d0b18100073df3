"""Models made without timm are what timm makes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from matmamba_vision import load_checkpoint, save_checkpoint
from matmamba_vision.layers.depth import DropPath
from matmamba_vision.models import make_model
from matmamba_vision.models.backbone import Noted
from matmamba_vision.models.patches import PatchEmbed, fill_normal
from matmamba_vision.models.shipped import shipped_variants
from matmamba_vision.models.variants import CFGS, SIZES
from small import create
from timm.data import resolve_data_config
from timm.layers import DropPath as TimmDropPath
from timm.layers import PatchEmbed as TimmPatchEmbed
from timm.layers import trunc_normal_

OVERLAY = {"mean": (0.4, 0.5, 0.6), "crop_pct": 0.8}
GIVEN: dict[str, Any] = {
    "img_size": 32, "in_chans": 3, "num_classes": 7, "global_pool": "avg", "depth": 2, "num_heads": 16,
    "attention_blocks": (),
}  # fmt: skip


@pytest.mark.parametrize("variant", ["matmamba_nano_patch4_32", "mamba2_nano_patch4_32"])
def test_a_model_made_is_timms_to_the_bit(variant: str) -> None:
    torch.manual_seed(1)
    ours = make_model(variant, OVERLAY, **GIVEN)
    torch.manual_seed(1)
    theirs = create(variant, pretrained_cfg_overlay=OVERLAY, **GIVEN)
    assert isinstance(ours._noted, Noted), "timm was asked"
    assert ours.arguments == theirs.arguments
    assert ours.trained_widths == theirs.trained_widths
    assert ours.input == theirs.input == resolve_data_config({}, model=theirs)  # type: ignore[no-untyped-call]
    assert ours.pretrained_cfg == ours.default_cfg == theirs.pretrained_cfg
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize("missing", ["img_size", "num_classes", "global_pool", "in_chans"])
def test_what_timm_would_fill_in_is_left_to_timm(missing: str) -> None:
    given = {name: value for name, value in GIVEN.items() if name != missing}
    ours = make_model("matmamba_nano_patch4_32", OVERLAY, **given)
    theirs = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=OVERLAY, **given)
    assert ours.arguments == theirs.arguments
    assert ours.pretrained_cfg == theirs.pretrained_cfg


@pytest.mark.parametrize("name", shipped_variants())
def test_a_shipped_model_is_prepared_for_as_timm_says(name: str) -> None:
    theirs: Any = timm.create_model(name, pretrained=True)
    assert load_checkpoint(name).model.input == theirs.input


def test_a_checkpoint_of_a_loaded_model_is_the_same(tmp_path: Any) -> None:
    """What timm noted is found out when it is written."""
    first = load_checkpoint("matmamba_nano_patch4_32")
    save_checkpoint(tmp_path, first.model, first.classes, first.run)
    again = load_checkpoint(tmp_path)
    assert again.model.input == first.model.input
    assert again.model.pretrained_cfg == first.model.pretrained_cfg


def test_every_variant_is_described() -> None:
    assert SIZES.keys() == CFGS.keys()


def test_weights_start_as_timms() -> None:
    ours, theirs = torch.empty(300), torch.empty(300)
    torch.manual_seed(0)
    fill_normal(ours, 0.02)
    torch.manual_seed(0)
    trunc_normal_(theirs, std=0.02)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_stochastic_depth_is_timms(training: bool) -> None:
    x = torch.randn(64, 3, 2)
    torch.manual_seed(0)
    ours = DropPath(0.4).train(training)(x)
    torch.manual_seed(0)
    assert torch.equal(ours, TimmDropPath(0.4).train(training)(x))


def test_patches_are_timms_of_another_size_too() -> None:
    ours, theirs = PatchEmbed((16, 24), (4, 8), 3, 5), TimmPatchEmbed((16, 24), (4, 8), 3, 5)  # type: ignore[arg-type]
    theirs.load_state_dict(ours.state_dict())
    for size, patch in (((16, 24), (4, 8)), ((20, 20), (4, 8)), ((18, 24), (6, 6))):
        ours.set_input_size(size, patch)
        theirs.set_input_size(size, patch)
        x = torch.randn(2, 3, *size)
        assert torch.equal(ours(x), theirs(x))
        assert (ours.grid_size, ours.num_patches) == (theirs.grid_size, theirs.num_patches)
