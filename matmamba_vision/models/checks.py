"""What constructor arguments must be, each refusal naming its argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from timm.layers import to_2tuple

POOLS = ("token", "avg", "")


def _all(fits: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(fits, value))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Arguments, what their values must be, and that in words.
_KINDS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (
        (
            "embed_dim",
            "depth",
            "in_chans",
            "num_classes",
            "projection",
            "head_dim",
            "d_conv",
            "reg_tokens",
            "attn_head_dim",
            "chunk_size",
        ),
        _is_whole,
        "a whole number",
    ),
    (("heads_per_group",), lambda value: value is None or _is_whole(value), "a whole number"),
    (("attention_blocks",), lambda value: _all(_is_whole, value), "a list of whole numbers"),
    (
        ("img_size", "patch_size"),
        lambda value: _is_whole(value) or (_all(_is_whole, value) and len(value) == 2),
        "a whole number, or two",
    ),
    (
        ("d_state", "num_heads"),
        lambda value: value is None or _is_whole(value) or _all(_is_whole, value),
        "a whole number, or one for each block",
    ),
    (("bias", "mean_token", "nested_attention", "dynamic_img_size"), _is_bool, "True or False"),
    (("drop_rate", "proj_drop_rate", "drop_path_rate"), _is_number, "a finite number"),
    (("expand",), lambda value: value is None or _is_number(value), "a finite number"),
    (
        ("mlp_ratio",),
        lambda value: _is_number(value) or _all(_is_number, value),
        "a finite number, or one for each block",
    ),
    (
        ("scan",),
        lambda value: isinstance(value, str) or _all(_is_text, value),
        "a name, or one for each block",
    ),
)


def check_types(known: object) -> None:
    """Raise `TypeError` naming the first argument of a wrong type."""
    for names, fits, wanted in _KINDS:
        for name in names:
            if not fits(value := getattr(known, name)):
                raise TypeError(f"{name} is {value!r}: it must be {wanted}")


def require_pool(global_pool: str) -> str:
    """The name of a pooling, if there is one like that."""
    if global_pool not in POOLS:
        raise ValueError(f"global_pool {global_pool!r} is none of {POOLS}")
    return global_pool


def require_whole_patches(img_size: Any, patch_size: Any) -> None:
    """Raise `ValueError` unless patches fill the image."""
    size, patch = to_2tuple(img_size), to_2tuple(patch_size)
    for name, value in (("img_size", size), ("patch_size", patch)):
        if min(value) < 1:
            raise ValueError(f"{name} {value}: it can be 1 pixel or more")
    if any(whole < part or whole % part for whole, part in zip(size, patch, strict=True)):
        raise ValueError(f"img_size {img_size} is not a multiple of patch_size {patch_size}")
