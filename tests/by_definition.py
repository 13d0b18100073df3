"""Embeddings of packed weights by the definition: the recurrence token by token, in double precision."""

from __future__ import annotations

import torch
from matmamba_vision.frozen.packed import KeptBlock, PackedMixer, PackedWidth
from matmamba_vision.ops.reference import conv_silu_reference, gated_rms_norm_reference, ssd_reference
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def embedded(packed: PackedWidth, images: Tensor) -> Tensor:
    """(B, E) float64, L2-normalised; nothing is left out that pooling does not need."""
    patch = packed.patch.double().unflatten(1, (packed.channels, *packed.patch_size))
    patches = F.conv2d(images.double(), patch, packed.patch_bias.double(), stride=packed.patch_size)
    x = packed.positions.double().expand(len(images), -1, -1).clone()
    x[:, packed.patch_places] += patches.flatten(2).mT
    for block in packed.blocks:
        x = x if block.order is None else x[:, block.order]
        x = block(x.float()).double() if isinstance(block, KeptBlock) else x + updated(block, x)
    norm = (packed.norm.double(), packed.norm_bias.double(), packed.norm_epsilon)
    pooled = F.layer_norm(x[:, packed.pooled], x.shape[-1:], *norm).mean(1)
    if packed.projection is not None and packed.projection_bias is not None:
        pooled = F.linear(pooled, packed.projection.double(), packed.projection_bias.double())
    return F.normalize(pooled, dim=-1)


def updated(block: PackedMixer, x_BLD: Tensor) -> Tensor:
    """(B, L, D): what a mixer adds to the stream."""
    u = F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=block.norm_epsilon)
    row = F.linear(u, block.project.double(), block.project_bias.double())
    z, convolved, dt = row.split([block.inner, len(block.conv), block.heads], dim=-1)
    convolved = conv_silu_reference(convolved, block.conv.double(), block.conv_bias.double())
    x, B_and_C = convolved.split([block.inner, 2 * block.state * len(block.groups)], dim=-1)
    x, dt = x.unflatten(-1, (block.heads, block.head_dim)), F.softplus(dt)
    rates, skip = block.rates.double(), block.skip.double()
    outputs: list[Tensor] = []
    for heads, of_group in zip(block.groups, B_and_C.split(2 * block.state, dim=-1), strict=True):
        first = sum(output.shape[2] for output in outputs)
        h, (B, C) = slice(first, first + heads), of_group.chunk(2, dim=-1)
        outputs.append(ssd_reference(x[:, :, h], dt[..., h], rates[h], B, C, skip[h]))
    y = torch.cat(outputs, dim=2).flatten(2)
    normal = gated_rms_norm_reference(y, z, torch.ones_like(y[0, 0]), block.gate_epsilon)
    return F.linear(normal, block.out.double(), None if block.out_bias is None else block.out_bias.double())
