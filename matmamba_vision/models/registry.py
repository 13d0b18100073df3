"""The variants known to `timm.create_model`.

Every variant takes the attributes of `Architecture` as arguments, and `width`: with it, the extracted
submodel is made. Pretrained weights of some variants come with the package, see `shipped`.
"""

from __future__ import annotations

from typing import Any

from timm.layers import resample_patch_embed
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
)
from timm.models._builder import resolve_pretrained_cfg
from torch import Tensor, nn

from ..layers import Block
from ..width import WidthLike
from .backbone import positions_for
from .matmamba import MatMamba
from .shipped import shipped_arguments, shipped_cfg
from .submodel import extract
from .variants import CFGS, SIZES

# Where timm can find weights.
_SOURCES = ("url", "file", "state_dict", "hf_hub_id")
# torch.fx takes a block as a whole: what a mixer does depends on its input.
register_notrace_module(Block)
default_cfgs = generate_default_cfgs({variant: cfg | shipped_cfg(variant) for variant, cfg in CFGS.items()})


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: MatMamba) -> dict[str, Tensor]:
    """A state dict for `model` from that of a model for other images or patches, by interpolation."""
    fitted = dict(state_dict)
    patches, positions = state_dict["patch_embed.proj.weight"], state_dict["pos_embed"]
    if patches.shape[-2:] != model.patch_embed.proj.weight.shape[-2:]:
        fitted["patch_embed.proj.weight"] = resample_patch_embed(patches, list(model.patch_embed.patch_size))
    if positions.shape != model.pos_embed.shape:
        # Trained on squares: a state dict does not say anything else.
        side = round((positions.shape[1] - 1) ** 0.5)
        fitted["pos_embed"] = positions_for(positions, (side, side), model.patch_embed.grid_size)
    return fitted


def _create(variant: str, pretrained: bool, width: WidthLike | None = None, **given: Any) -> nn.Module:
    size = SIZES[variant]
    if pretrained and not _has_own_source(given):
        size = size | shipped_arguments(variant)
    if given.get("expand") is not None:
        # Instead of the variant's own number of heads.
        size = {name: value for name, value in size.items() if name != "num_heads"}
    if width is None:
        return _build(MatMamba, variant, pretrained, **{**size, **given})
    # What timm makes of a model is made of the submodel: weights are loaded before it is taken out.
    wrapped = {
        name: given.pop(name) for name in ("features_only", "out_indices", "feature_cls") if name in given
    }
    small = extract(_build(MatMamba, variant, pretrained, **{**size, **given}), width)
    cfg = {"pretrained_cfg": small.pretrained_cfg, "num_classes": small.num_classes}
    return _build(lambda **_: small, variant, False, **cfg, **wrapped)


def known_to_timm(variant: str, overlay: dict[str, Any]) -> dict[str, Any]:
    """What timm notes of a model of a variant that was made with an overlay."""
    noted: dict[str, Any] = resolve_pretrained_cfg(variant, pretrained_cfg_overlay=overlay).to_dict()  # type: ignore[no-untyped-call]
    return noted


def _has_own_source(given: dict[str, Any]) -> bool:
    """Whether the weights are other ones than the variant's."""
    overlay = given.get("pretrained_cfg_overlay") or {}
    return bool(given.get("pretrained_cfg")) or any(overlay.get(key) for key in _SOURCES)


def _build(model_cls: Any, variant: str, pretrained: bool, **given: Any) -> Any:
    features = {"out_indices": 3, "feature_cls": "getter"}
    return build_model_with_cfg(
        model_cls,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=features,
        **given,
    )


@register_model
def matmamba_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """0.46M parameters without the head, flipped scans, for 32 px images and for trying things on a CPU."""
    return _create("matmamba_nano_patch4_32", pretrained, **kwargs)


@register_model
def matmamba_mini_patch8_64(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """D 256, 12 blocks of 32 heads of 16, state 64; flipped scans, for 64 px images."""
    return _create("matmamba_mini_patch8_64", pretrained, **kwargs)


@register_model
def matmamba_mini_patch16_128(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The mini model for photos at 128 px: as many patches, so as many multiply-adds in its blocks."""
    return _create("matmamba_mini_patch16_128", pretrained, **kwargs)


@register_model
def matmamba_small_patch16_128(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The small model for photos at 128 px, with flipped scans."""
    return _create("matmamba_small_patch16_128", pretrained, **kwargs)


@register_model
def matmamba_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """D 192, 20 blocks of 24 heads of 16, state 64; flipped scans."""
    return _create("matmamba_tiny_patch16_224", pretrained, **kwargs)


@register_model
def matmamba_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The published 35M model (MatMamba, table 1): D 512, 20 blocks of 64 heads of 16, state 128."""
    return _create("matmamba_small_patch16_224", pretrained, **kwargs)


@register_model
def matmamba_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The published 135M model (MatMamba, table 1): D 1024, 20 blocks of 64 heads of 32, state 128."""
    return _create("matmamba_base_patch16_224", pretrained, **kwargs)


@register_model
def matmamba_hybrid_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The nano model, one block of four with attention."""
    return _create("matmamba_hybrid_nano_patch4_32", pretrained, **kwargs)


@register_model
def matmamba_hybrid_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The tiny model, one block of eight with attention."""
    return _create("matmamba_hybrid_tiny_patch16_224", pretrained, **kwargs)


@register_model
def matmamba_hybrid_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The small model, one block of eight with attention."""
    return _create("matmamba_hybrid_small_patch16_224", pretrained, **kwargs)


@register_model
def matvit_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A ViT with nested MLPs and as many parameters as the nano model."""
    return _create("matvit_nano_patch4_32", pretrained, **kwargs)


@register_model
def matvit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-Ti/16 with nested MLPs."""
    return _create("matvit_tiny_patch16_224", pretrained, **kwargs)


@register_model
def matvit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-S/16 with nested MLPs."""
    return _create("matvit_small_patch16_224", pretrained, **kwargs)


@register_model
def matvit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/16 with nested MLPs: the published MatViT."""
    return _create("matvit_base_patch16_224", pretrained, **kwargs)


@register_model
def mamba2_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The nano model, to be trained at full width alone."""
    return _create("mamba2_nano_patch4_32", pretrained, **kwargs)


@register_model
def mamba2_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The tiny model, to be trained at full width alone."""
    return _create("mamba2_tiny_patch16_224", pretrained, **kwargs)


@register_model
def mamba2_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The small model, to be trained at full width alone."""
    return _create("mamba2_small_patch16_224", pretrained, **kwargs)
