"""Parameters and multiply-adds of a width."""

from __future__ import annotations

from ..models import MatMamba, leading_tensors
from ..width import WidthLike


def count_parameters(model: MatMamba, width: WidthLike = "full") -> int:
    """Parameters of the extracted submodel."""
    return sum(tensor.numel() for tensor in leading_tensors(model, width).values())


def count_macs(model: MatMamba, width: WidthLike = "full") -> int:
    """Multiply-adds to classify one image: all products and convolutions, the scan in its largest chunks."""
    patches = model.patch_embed.num_patches
    tokens = model.num_prefix_tokens + patches + 1
    blocks = zip(model.stack, model.active(width), strict=True)
    in_blocks = sum(block.macs(tokens, *active) for block, active in blocks)
    embedding = model.num_features * model.architecture.projection
    head = model.embedding_dim * model.num_classes
    return patches * model.patch_embed.proj.weight.numel() + in_blocks + embedding + head
