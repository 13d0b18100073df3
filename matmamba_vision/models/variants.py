"""The variants: how large they are, and how their images are prepared, as timm is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# timm's, of weights that say nothing about it.
_INPUT: dict[str, Any] = {
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
}


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


_NANO = _cfg(32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
CFGS = {
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
"""What timm is told of each variant without weights."""

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
SIZES: dict[str, dict[str, Any]] = {
    "matmamba_nano_patch4_32": _MAMBA_NANO,
    "matmamba_mini_patch8_64": _MAMBA_MINI,
    "matmamba_mini_patch16_128": _MAMBA_MINI | _AT_128,
    "matmamba_small_patch16_128": _MAMBA_SMALL | _FLIP | _AT_128,
    "matmamba_tiny_patch16_224": _MAMBA_TINY,
    "matmamba_small_patch16_224": _MAMBA_SMALL,
    "matmamba_base_patch16_224": _MAMBA_BASE,
    "matmamba_hybrid_nano_patch4_32": _hybrid(_MAMBA_NANO, 4, 16),
    "matmamba_hybrid_tiny_patch16_224": _hybrid(_MAMBA_TINY, 8, 24),
    "matmamba_hybrid_small_patch16_224": _hybrid(_MAMBA_SMALL | _FLIP, 8, 64),
    "matvit_nano_patch4_32": _matvit(96, 4, 32) | {"img_size": 32, "patch_size": 4},
    "matvit_tiny_patch16_224": _matvit(192, 12, 64),
    "matvit_small_patch16_224": _matvit(384, 12, 64),
    "matvit_base_patch16_224": _matvit(768, 12, 64),
    "mamba2_nano_patch4_32": _MAMBA_NANO | _ALONE,
    "mamba2_tiny_patch16_224": _MAMBA_TINY | _ALONE,
    "mamba2_small_patch16_224": _MAMBA_SMALL | _ALONE,
}
"""Constructor arguments of each variant."""


def data_config(size: tuple[int, int, int], noted: Mapping[str, Any]) -> dict[str, Any]:
    """How images are to be prepared, as `timm.data.resolve_data_config` says it.

    Args:
        size: channels, height and width.
        noted: what is known of the weights, as timm notes it.
    """
    return {"input_size": size} | {key: noted.get(key) or default for key, default in _INPUT.items()}
