"""Features behind blocks: which are wanted, and in which form (timm's `forward_intermediates`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def blocks_asked_for(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Blocks by number: the last n, those of a list (negative ones from the end), or all.

    Raises:
        ValueError: there is no such block.
    """
    asked = depth if indices is None else indices
    blocks = range(-asked, 0) if isinstance(asked, int) else asked
    if not blocks or not all(-depth <= block < depth for block in blocks):
        raise ValueError(f"indices {indices}: the model has blocks 0 to {depth - 1}")
    return [block % depth for block in blocks]


def as_asked(tokens: Tensor | None, features: list[Any], others: list[Tensor] | None, by_name: bool) -> Any:
    """Tokens and features, with other tokens beside each feature, or all by name; None is left out."""
    if by_name:
        names = ("image_features", "image_intermediates", "image_intermediates_prefix")
        named = dict(zip(names, (tokens, features, others), strict=True))
        return {name: value for name, value in named.items() if value is not None}
    if others is not None:
        features = list(zip(features, others, strict=True))
    return features if tokens is None else (tokens, features)
