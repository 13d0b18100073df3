"""Parameters and multiply-adds of a width."""

from __future__ import annotations

from ..layers import Mixer
from ..models import MatMamba
from ..ops import scan_macs
from ..submodel import extract
from ..width import WidthLike


def count_parameters(model: MatMamba, width: WidthLike = "full") -> int:
    """Parameters of the extracted submodel."""
    return sum(parameter.numel() for parameter in extract(model, width).parameters())


def count_macs(model: MatMamba, width: WidthLike = "full") -> int:
    """Multiply-adds to classify one image: all products and convolutions, the scan in its largest chunks."""
    tokens, dim = model.pos_embed.shape[1:]
    patches = (tokens - 1) * model.patch_embed.proj.weight.numel()
    blocks = zip(model.stack, model.width(width).heads, strict=True)
    head = model.num_features * model.num_classes
    return (
        patches + head + sum(_block_macs(block.mixer, heads, tokens, dim) for block, heads in blocks if heads)
    )


def _block_macs(mixer: Mixer, heads: int, tokens: int, dim: int) -> int:
    weights = mixer.weights().first(heads)
    channels, state = weights.norm.numel(), weights.in_BC.shape[0] // 2
    projections = dim * (2 * channels + 2 * state + heads) + channels * dim
    convolutions = weights.conv_x.numel() + weights.conv_BC.numel()
    scan = scan_macs(tokens, channels, state, mixer.chunk_size)
    return tokens * (projections + convolutions) + scan
