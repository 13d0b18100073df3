"""Inference of one block against its own matrix products, against attention, part by part, and by backend.

The products are the five projections of the mixer with the same weights: what a block has to cost at least.
Writes results/block_time.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from matmamba_vision import MatMamba, freeze
from matmamba_vision.layers import Block, MixerWeights
from matmamba_vision.layers.mixer import NORM_EPSILON
from matmamba_vision.ops import linear, resolve_for
from measuring import Case, Plan, Ratio, compare, run, timed
from peers import SMALL, BlockShape, attention, backends_case, by_backend, mixer_of, vit_block
from torch import Tensor
from torch.nn import functional as F

# Of the model of such blocks: pixels of a patch's side, and blocks.
PATCH, DEPTH = 16, 20


def main(arguments: Sequence[str] | None = None, shape: BlockShape = SMALL) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, shape=shape), arguments)


@torch.no_grad()
def cases(plan: Plan, shape: BlockShape) -> Iterator[Case]:
    """The block at each width against its products, then against attention, its parts, and its backends."""
    block, x_BLD = shape.block().eval(), shape.tokens_BLD()
    for width, heads in shape.widths().items():
        yield against_products(f"width {width}", block, x_BLD, heads, plan, shape)
    transformer, attend = vit_block(shape), attention(shape)
    yield compare(
        "attention",
        {"block": lambda: block(x_BLD), "ViT block": lambda: transformer(x_BLD), "attention alone": attend},
        [
            Ratio("block / ViT block", "block", "ViT block"),
            Ratio("block / attention", "block", "attention alone"),
        ],
        plan,
        shape.settings(),
    )
    parts = block_parts(block, x_BLD)
    shares = [Ratio(name, name, "block") for name in parts]
    yield compare("parts", {"block": lambda: block(x_BLD), **parts}, shares, plan, shape.settings())
    yield frozen_against_products(plan, shape)
    for larger in (shape, replace(shape, batch=8 * shape.batch)):
        tokens_BLD = larger.tokens_BLD()
        versions = {name: partial(version, tokens_BLD) for name, version in by_backend(block).items()}
        yield backends_case({name: timed(work) for name, work in versions.items()}, plan.at_most(10), larger)


def frozen_against_products(plan: Plan, shape: BlockShape) -> Case:
    """A frozen model of such blocks, with patches and embedding, against all of its products."""
    model = MatMamba(
        img_size=(PATCH, PATCH * (shape.tokens - 1)), patch_size=PATCH, num_classes=0, embed_dim=shape.dim,
        depth=DEPTH, num_heads=shape.heads, head_dim=shape.head_dim, d_state=shape.state_dim,
    ).eval()  # fmt: skip
    images, frozen, x_BLD = model.random_images(shape.batch), freeze(model, "full"), shape.tokens_BLD()
    mixers = [mixer_of(block).weights() for block in model.stack]
    y_BLI = torch.randn(*x_BLD.shape[:2], mixers[0].norm.numel())
    patches = torch.randn(shape.batch, shape.tokens - 1, model.patch_embed.proj.weight[0].numel())

    def all_products() -> None:
        linear(patches, model.patch_embed.proj.weight.flatten(1))
        for weights in mixers:
            products(weights, x_BLD, y_BLI)

    sides = {"frozen": lambda: frozen.embed(images), "products": all_products}
    settings = shape.settings(depth=DEPTH, encoded_by=frozen.by)
    return compare("frozen", sides, [Ratio("frozen / products", "frozen", "products")], plan, settings)


def against_products(
    name: str, block: Block, x_BLD: Tensor, heads: int, plan: Plan, shape: BlockShape
) -> Case:
    """One width of the block, and the projections of its leading heads."""
    weights, u_BLD = mixer_of(block).weights(heads), block.norm(x_BLD)
    y_BLI = torch.randn(*x_BLD.shape[:2], weights.norm.numel())
    sides = {"block": lambda: block(x_BLD, heads), "products": lambda: products(weights, u_BLD, y_BLI)}
    ratio = Ratio("block / products", "block", "products")
    return compare(name, sides, [ratio], plan, shape.settings(active_heads=heads))


def products(weights: MixerWeights, u_BLD: Tensor, y_BLI: Tensor) -> None:
    """The matrix products of a mixer: four of its input (B, L, D), one of its channels (B, L, I)."""
    linear(u_BLD, weights.in_x.flatten(0, 1))
    linear(u_BLD, weights.in_BC)
    linear(u_BLD, weights.in_dt, weights.dt_bias)
    linear(u_BLD, weights.in_z.flatten(0, 1))
    linear(y_BLI, weights.out.flatten(1))


def block_parts(block: Block, x_BLD: Tensor) -> dict[str, Callable[[], object]]:
    """What a block does, in parts that can be run alone, on random channels."""
    weights = mixer_of(block).weights()
    heads, head_dim = weights.norm.shape
    x_BLHP = torch.randn(*x_BLD.shape[:2], heads, head_dim)
    y_BLI, BC_BLN = torch.randn_like(x_BLHP).flatten(2), torch.randn(*x_BLD.shape[:2], len(weights.in_BC))
    # Steps as the initialisation makes them.
    raw_BLH = 0.1 * torch.randn(x_BLHP.shape[:3]) + weights.dt_bias
    ops = resolve_for(mixer_of(block).setting.backend, x_BLD, head_dim, BC_BLN.shape[-1] // 2)

    def convolve() -> None:
        ops.conv_silu(BC_BLN, weights.conv_BC, weights.conv_BC_bias)
        ops.conv_silu(x_BLHP, weights.conv_x, weights.conv_x_bias)

    def scan() -> None:
        dt_BLH, A_H = F.softplus(raw_BLH), -weights.A_log.exp()
        B_BLN, C_BLN = BC_BLN.chunk(2, dim=-1)
        ops.scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, weights.D, chunk_size=mixer_of(block).setting.chunk_size)

    def residual() -> None:
        block.norm(x_BLD).add_(x_BLD)

    return {
        "products": lambda: products(weights, x_BLD, y_BLI),
        "convolutions": convolve,
        "scan": scan,
        "gate and norm": lambda: ops.gated_rms_norm(x_BLHP, x_BLHP, weights.norm, NORM_EPSILON),
        "residual": residual,
    }


if __name__ == "__main__":
    main()
