"""The variants known to `timm.create_model`.

Every variant takes the attributes of `Architecture` as arguments, and `width`: with it, the extracted
submodel is made. Pretrained weights of some variants come with the package, see `shipped`.
"""

from __future__ import annotations

from typing import Any

from timm.layers import resample_patch_embed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..width import WidthLike
from .backbone import positions_for
from .matmamba import MatMamba
from .shipped import shipped_arguments, shipped_cfg
from .submodel import extract


def _cfg(size: int, **overrides: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
        **overrides,
    }


# Where timm can find weights.
_SOURCES = ("url", "file", "state_dict", "hf_hub_id")
_NANO = _cfg(32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
_CFGS = {
    "matmamba_nano_patch4_32": _NANO,
    "matmamba_mini_patch8_64": _cfg(64, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3),
    "matmamba_mini_patch16_128": _cfg(128, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3),
    "matmamba_small_patch16_128": _cfg(128, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3),
    "matmamba_tiny_patch16_224": _cfg(224),
    "matmamba_small_patch16_224": _cfg(224),
    "matmamba_base_patch16_224": _cfg(224),
    "matmamba_hybrid_nano_patch4_32": _NANO,
    "matmamba_hybrid_tiny_patch16_224": _cfg(224),
    "matmamba_hybrid_small_patch16_224": _cfg(224),
    "matvit_nano_patch4_32": _NANO,
    "matvit_tiny_patch16_224": _cfg(224),
    "matvit_small_patch16_224": _cfg(224),
    "matvit_base_patch16_224": _cfg(224),
    "mamba2_nano_patch4_32": _NANO,
    "mamba2_tiny_patch16_224": _cfg(224),
    "mamba2_small_patch16_224": _cfg(224),
}
default_cfgs = generate_default_cfgs({variant: cfg | shipped_cfg(variant) for variant, cfg in _CFGS.items()})


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


def _create(
    variant: str, pretrained: bool, size: dict[str, Any], width: WidthLike | None = None, **given: Any
) -> nn.Module:
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


# The best of benchmarks/ablation.py; the published sizes keep the published raster.
_FLIP = {"scan": "flip"}
_MAMBA_NANO = {
    "img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 4,
    "num_heads": 16, "head_dim": 16, "d_state": 32, **_FLIP,
}  # fmt: skip
# As many parameters as tiny in fewer and wider blocks, which a GPU is quicker at.
_MAMBA_MINI = {
    "img_size": 64, "patch_size": 8, "embed_dim": 256, "depth": 12,
    "num_heads": 32, "head_dim": 16, "d_state": 64, **_FLIP,
}  # fmt: skip
_AT_128 = {"img_size": 128, "patch_size": 16}
_MAMBA_TINY = {"embed_dim": 192, "depth": 20, "num_heads": 24, "head_dim": 16, "d_state": 64, **_FLIP}
_MAMBA_SMALL = {"embed_dim": 512, "depth": 20, "num_heads": 64, "head_dim": 16, "d_state": 128}
_MAMBA_BASE = {"embed_dim": 1024, "depth": 20, "num_heads": 64, "head_dim": 32, "d_state": 128}


def _hybrid(size: dict[str, Any], period: int, attn_head_dim: int) -> dict[str, Any]:
    """One block in `period` mixes by attention with 8 heads, in the middle (Jamba, arXiv 2403.19887)."""
    attention = list(range(period // 2, size["depth"], period))
    heads = [8 if block in attention else size["num_heads"] for block in range(size["depth"])]
    return {**size, "num_heads": heads, "attention_blocks": attention, "attn_head_dim": attn_head_dim}


def _matvit(dim: int, depth: int, attn_head_dim: int) -> dict[str, Any]:
    """Attention everywhere, never cut, and MLPs in 8 nested parts (MatFormer, arXiv 2310.07707)."""
    return {
        "embed_dim": dim, "depth": depth, "attention_blocks": list(range(depth)), "num_heads": 8,
        "attn_head_dim": attn_head_dim, "nested_attention": False, "mlp_ratio": 4.0,
    }  # fmt: skip


_ALONE = {"trained_widths": ("full",)}


@register_model
def matmamba_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """0.46M parameters without the head, flipped scans, for 32 px images and for trying things on a CPU."""
    return _create("matmamba_nano_patch4_32", pretrained, _MAMBA_NANO, **kwargs)


@register_model
def matmamba_mini_patch8_64(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """D 256, 12 blocks of 32 heads of 16, state 64; flipped scans, for 64 px images."""
    return _create("matmamba_mini_patch8_64", pretrained, _MAMBA_MINI, **kwargs)


@register_model
def matmamba_mini_patch16_128(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The mini model for photos at 128 px: as many patches, so as many multiply-adds in its blocks."""
    return _create("matmamba_mini_patch16_128", pretrained, _MAMBA_MINI | _AT_128, **kwargs)


@register_model
def matmamba_small_patch16_128(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The small model for photos at 128 px, with flipped scans."""
    return _create("matmamba_small_patch16_128", pretrained, _MAMBA_SMALL | _FLIP | _AT_128, **kwargs)


@register_model
def matmamba_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """D 192, 20 blocks of 24 heads of 16, state 64; flipped scans."""
    return _create("matmamba_tiny_patch16_224", pretrained, _MAMBA_TINY, **kwargs)


@register_model
def matmamba_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The published 35M model (MatMamba, table 1): D 512, 20 blocks of 64 heads of 16, state 128."""
    return _create("matmamba_small_patch16_224", pretrained, _MAMBA_SMALL, **kwargs)


@register_model
def matmamba_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The published 135M model (MatMamba, table 1): D 1024, 20 blocks of 64 heads of 32, state 128."""
    return _create("matmamba_base_patch16_224", pretrained, _MAMBA_BASE, **kwargs)


@register_model
def matmamba_hybrid_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The nano model, one block of four with attention."""
    return _create("matmamba_hybrid_nano_patch4_32", pretrained, _hybrid(_MAMBA_NANO, 4, 16), **kwargs)


@register_model
def matmamba_hybrid_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The tiny model, one block of eight with attention."""
    return _create("matmamba_hybrid_tiny_patch16_224", pretrained, _hybrid(_MAMBA_TINY, 8, 24), **kwargs)


@register_model
def matmamba_hybrid_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The small model, one block of eight with attention."""
    return _create(
        "matmamba_hybrid_small_patch16_224", pretrained, _hybrid(_MAMBA_SMALL | _FLIP, 8, 64), **kwargs
    )


@register_model
def matvit_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A ViT with nested MLPs and as many parameters as the nano model."""
    size = _matvit(96, 4, 32) | {"img_size": 32, "patch_size": 4}
    return _create("matvit_nano_patch4_32", pretrained, size, **kwargs)


@register_model
def matvit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-Ti/16 with nested MLPs."""
    return _create("matvit_tiny_patch16_224", pretrained, _matvit(192, 12, 64), **kwargs)


@register_model
def matvit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-S/16 with nested MLPs."""
    return _create("matvit_small_patch16_224", pretrained, _matvit(384, 12, 64), **kwargs)


@register_model
def matvit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/16 with nested MLPs: the published MatViT."""
    return _create("matvit_base_patch16_224", pretrained, _matvit(768, 12, 64), **kwargs)


@register_model
def mamba2_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The nano model, to be trained at full width alone."""
    return _create("mamba2_nano_patch4_32", pretrained, _MAMBA_NANO | _ALONE, **kwargs)


@register_model
def mamba2_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The tiny model, to be trained at full width alone."""
    return _create("mamba2_tiny_patch16_224", pretrained, _MAMBA_TINY | _ALONE, **kwargs)


@register_model
def mamba2_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The small model, to be trained at full width alone."""
    return _create("mamba2_small_patch16_224", pretrained, _MAMBA_SMALL | _ALONE, **kwargs)
