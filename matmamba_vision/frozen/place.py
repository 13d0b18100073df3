"""Where a frozen width computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..models import MatMamba
from .packed import has_embedding

# What engines on a GPU compute in.
ON_A_GPU = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Place:
    """Device and type of a model's numbers.

    Attributes:
        device: where.
        dtype: in which numbers.
    """

    device: torch.device
    dtype: torch.dtype


def place_of(model: MatMamba) -> Place | None:
    """Where a packed copy of a model can compute as the model does; None where only the model itself can."""
    like = model.pos_embed
    place = Place(like.device, like.dtype)
    if model.training or not has_embedding(model):
        return None
    if place.device.type == "cuda":
        return place if place.dtype in ON_A_GPU else None
    return place if place.device.type == "cpu" and place.dtype == torch.float32 else None
