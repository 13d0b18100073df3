"""The variants known to `timm.create_model`."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from .matmamba import MatMamba


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


default_cfgs = generate_default_cfgs(
    {
        "matmamba_nano_patch4_32": _cfg(32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3),
        "matmamba_tiny_patch16_224": _cfg(224),
        "matmamba_small_patch16_224": _cfg(224),
        "matmamba_base_patch16_224": _cfg(224),
    }
)


def _create(variant: str, pretrained: bool, **arguments: Any) -> MatMamba:
    model: MatMamba = build_model_with_cfg(
        MatMamba, variant, pretrained, feature_cfg={"out_indices": 3, "feature_cls": "getter"}, **arguments
    )
    return model


@register_model
def matmamba_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> MatMamba:
    """0.45M parameters without the head, for 32 px images and for trying things out on a CPU."""
    size = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 128,
        "depth": 4,
        "num_heads": 16,
        "head_dim": 16,
        "d_state": 32,
    }
    return _create("matmamba_nano_patch4_32", pretrained, **{**size, **kwargs})


@register_model
def matmamba_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> MatMamba:
    """D 192, 20 blocks of 24 heads of 16, state 64."""
    size = {"embed_dim": 192, "depth": 20, "num_heads": 24, "head_dim": 16, "d_state": 64}
    return _create("matmamba_tiny_patch16_224", pretrained, **{**size, **kwargs})


@register_model
def matmamba_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> MatMamba:
    """The published 35M model (MatMamba, table 1): D 512, 20 blocks of 64 heads of 16, state 128."""
    size = {"embed_dim": 512, "depth": 20, "num_heads": 64, "head_dim": 16, "d_state": 128}
    return _create("matmamba_small_patch16_224", pretrained, **{**size, **kwargs})


@register_model
def matmamba_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> MatMamba:
    """The published 135M model (MatMamba, table 1): D 1024, 20 blocks of 64 heads of 32, state 128."""
    size = {"embed_dim": 1024, "depth": 20, "num_heads": 64, "head_dim": 32, "d_state": 128}
    return _create("matmamba_base_patch16_224", pretrained, **{**size, **kwargs})
