"""Extraction: a width of a nested model as an ordinary smaller model."""

from __future__ import annotations

import copy

from torch import Tensor

from ..width import WidthLike
from .matmamba import MatMamba


def extract(model: MatMamba, width: WidthLike) -> MatMamba:
    """A model that computes what `model(x, width=width)` computes, with no other weights and no nesting left.

    Blocks of width 0 are dropped. Device, dtype, mode and input settings are those of `model`; nothing is
    shared.

    Raises:
        WidthError: `model` has no such width.
    """
    heads, states = zip(*active, strict=True) if (active := model.active(width)) else ((), ())
    like = model.pos_embed
    small = MatMamba(
        **model.architecture.of_blocks(heads, states).as_arguments(),
        trained_widths=("full",),
        ssd_backend=model.ssd_backend,
        device=like.device,
        dtype=like.dtype,
    )
    small.load_state_dict(leading_tensors(model, width))
    small.pretrained_cfg = copy.deepcopy(model._noted)
    return small.train(model.training)


def leading_tensors(model: MatMamba, width: WidthLike) -> dict[str, Tensor]:
    """State dict of the extracted model, as views of that of `model` wherever memory allows."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("blocks.")}
    kept = (block for block in zip(model.stack, model.active(width), strict=True) if block[1][0])
    for index, (block, active) in enumerate(kept):
        state |= {f"blocks.{index}.{name}": tensor for name, tensor in block.leading(*active).items()}
    return state
