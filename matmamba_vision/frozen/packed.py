"""The weights of one width as inference reads them: contiguous, without nesting, constants computed once.

LayerNorm's weight and bias are part of the projection that reads its output, the weight of the gated norm is
part of the output projection, and decay rates are exponentiated. Tokens are kept in the order in which the
next block reads them, so that a block permutes them once at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..layers import Block, Mixer, scan_orders
from ..layers.mixer import NORM_EPSILON
from ..layers.order import Orders
from ..models import MatMamba, leading_tensors
from ..width import WidthLike


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedMixer:
    """A block that is a LayerNorm and a Mamba2 mixer of one order; its update is added to the stream.

    H heads of P channels, I = H P; G groups of heads with a B and a C of N states each; D of the stream. All
    tensors are contiguous float32 on the CPU.

    Attributes:
        order: (L,) int64, for each place of this block's order the place in the order of the block before
            from which its token comes; None where the tokens stand as they did.
        project: (2 I + 2 N G + H, D) rows of z, of x, of B and C of each group in turn, and of dt.
        project_bias: (2 I + 2 N G + H,) added to the products; for dt it is what goes into softplus.
        conv: (I + 2 N G, K) taps of the causal convolution of x, B and C, the last one for the token itself.
        conv_bias: (I + 2 N G,) added before SiLU.
        rates: (H,) A, negative: a step dt decays a state by exp(dt A).
        skip: (H,) the weight of x in a scan's output.
        out: (D, I) what reads the normalised, gated output of the scan.
        out_bias: (D,), or None.
        heads: H.
        head_dim: P.
        state: N.
        groups: heads of each group, G numbers.
        norm_epsilon: of the LayerNorm before the projection, which has neither weight nor bias any more.
        gate_epsilon: of the RMSNorm over I of the gated output, which has no weight any more.
    """

    order: Tensor | None
    project: Tensor
    project_bias: Tensor
    conv: Tensor
    conv_bias: Tensor
    rates: Tensor
    skip: Tensor
    out: Tensor
    out_bias: Tensor | None
    heads: int
    head_dim: int
    state: int
    groups: tuple[int, ...]
    norm_epsilon: float
    gate_epsilon: float

    @property
    def inner(self) -> int:
        """I, all channels of the heads."""
        return self.heads * self.head_dim

    @property
    def taps(self) -> int:
        """K of the convolution."""
        return self.conv.shape[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptBlock:
    """A block that is run as the model has it: attention, an MLP, a mean token, or two directions.

    Attributes:
        order: as of `PackedMixer`; the block reads registers, patches in raster order, class token.
        block: with the active heads and states alone, on the CPU, without gradients.
        scans: the orders of its scan, as `Block.forward` takes them.
    """

    order: Tensor | None
    block: Block
    scans: Orders

    def __call__(self, x_BLD: Tensor) -> Tensor:
        """Tokens (B, L, D) to tokens."""
        tokens: Tensor = self.block(x_BLD, None, None, self.scans)
        return tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedWidth:
    """All that is needed to make embeddings of images at one width.

    All tensors are contiguous float32 on the CPU. Images are (B, channels, *image_size).

    Attributes:
        name: label of the width, such as "1/4".
        image_size: height and width in pixels.
        channels: of an image.
        patch_size: height and width of a patch in pixels.
        patch: (D, channels p_h p_w) what reads a patch, its pixels in the order channel, row, column.
        patch_bias: (D,)
        patch_places: (patches,) int64, where each patch, in raster order, stands in the first block's order.
        positions: (L, D) what is added to the patches, and the whole class token and registers, in the order
            of the first block.
        blocks: first to last.
        norm: (D,) weight of the last LayerNorm.
        norm_bias: (D,)
        norm_epsilon: of it.
        pool: "token", or "avg": the mean of the tokens.
        pooled: (tokens,) int64, where the tokens that are pooled stand in the last block's order.
        projection: (E, D) of the pooled token, or None.
        projection_bias: (E,), or None.
        embedding_dim: E, or D where there is no projection.
    """

    name: str
    image_size: tuple[int, int]
    channels: int
    patch_size: tuple[int, int]
    patch: Tensor
    patch_bias: Tensor
    patch_places: Tensor
    positions: Tensor
    blocks: tuple[PackedMixer | KeptBlock, ...]
    norm: Tensor
    norm_bias: Tensor
    norm_epsilon: float
    pool: str
    pooled: Tensor
    projection: Tensor | None
    projection_bias: Tensor | None
    embedding_dim: int

    def require_images(self, shape: tuple[int, ...]) -> None:
        """Raise `ConfigError` unless images of this shape are those that the width was frozen for."""
        if len(shape) != 4 or tuple(shape[1:]) != (self.channels, *self.image_size):
            wanted = ", ".join(map(str, (self.channels, *self.image_size)))
            raise ConfigError(f"images of shape {tuple(shape)}: this width was frozen for (B, {wanted})")


def has_embedding(model: MatMamba) -> bool:
    """Whether a model ends as `PackedWidth` does: with a LayerNorm and a pooling."""
    return bool(model.global_pool) and isinstance(model.norm, nn.LayerNorm)


def is_plain(model: MatMamba) -> bool:
    """Whether a packed width of a model computes in the same numbers and place as the model does."""
    like = model.pos_embed
    return has_embedding(model) and like.device.type == "cpu" and like.dtype == torch.float32


@torch.no_grad()
def pack(model: MatMamba, width: WidthLike) -> PackedWidth:
    """The weights of `model` at a width, for images of the model's own size; nothing is shared with it.

    Args:
        model: on any device, of any dtype.
        width: as `MatMamba.width` takes it.

    Raises:
        WidthError: the model has no such width.
        ConfigError: the model has no pooling, or something else in place of its last norm, and so no
            embedding that could be packed.
    """
    if not has_embedding(model):
        raise ConfigError("only a model with pooling and a last LayerNorm can be frozen")
    small = _extracted(model, width)
    scans, as_stored = _scans(small), torch.arange(_tokens(small))
    # The token that stands at each place, of each block; behind the last one nothing moves any more.
    orders = [_order(block, scans, as_stored) for block in small.stack] or [as_stored]
    changes = [None, *map(_change, orders, orders[1:])]
    blocks = [_packed_block(*of_block, scans) for of_block in zip(small.stack, changes, strict=False)]
    return PackedWidth(
        name=model.label(width),
        blocks=tuple(blocks),
        **_packed_patches(small, orders[0]),
        **_packed_end(small, orders[-1]),
    )


def _extracted(model: MatMamba, width: WidthLike) -> MatMamba:
    """As `extract`, in float32 on the CPU; without drawing random weights that nobody needs."""
    heads, states = zip(*active, strict=True) if (active := model.active(width)) else ((), ())
    arguments = model.architecture.of_blocks(heads, states).as_arguments()
    small = MatMamba(**arguments, trained_widths=("full",), device="meta")
    copies = {name: _own(tensor) for name, tensor in leading_tensors(model, width).items()}
    small.load_state_dict(copies, assign=True)
    return small.eval().requires_grad_(False)


def _own(tensor: Tensor) -> Tensor:
    """A contiguous copy in float32 on the CPU."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _tokens(model: MatMamba) -> int:
    """L: registers, patches and the class token."""
    return model.num_prefix_tokens + model.patch_embed.num_patches + 1


def _scans(model: MatMamba) -> dict[str, Orders]:
    known, scans = model.architecture, [block.scan for block in model.stack]
    return scan_orders(scans, model.grid, known.reg_tokens, int(known.mean_token), torch.device("cpu"))


def _is_mixer(block: Block) -> bool:
    """Whether a block is what a `PackedMixer` can be."""
    is_scan = isinstance(block.mixer, Mixer) and block.scan != "both"
    return is_scan and block.mlp is None and block.mean_of is None


def _order(block: Block, scans: dict[str, Orders], as_stored: Tensor) -> Tensor:
    order = scans[block.scan][0]
    return order.index if _is_mixer(block) and order is not None else as_stored


def _change(before: Tensor, after: Tensor) -> Tensor | None:
    """For each place of an order the place in the order before; None if they are one."""
    return None if torch.equal(before, after) else before.argsort()[after]


def _packed_block(block: Block, change: Tensor | None, scans: dict[str, Orders]) -> PackedMixer | KeptBlock:
    if not _is_mixer(block):
        return KeptBlock(order=change, block=block, scans=scans[block.scan])
    assert isinstance(block.mixer, Mixer)
    return _packed_mixer(block.norm, block.mixer, change)


def _packed_mixer(norm: nn.LayerNorm, mixer: Mixer, order: Tensor | None) -> PackedMixer:
    w = mixer.weights()
    heads, head_dim = w.norm.shape
    groups = tuple(len(range(heads)[group]) for group in mixer.setting.groups(heads))
    parts = [w.in_z.flatten(0, 1), w.in_x.flatten(0, 1), w.in_BC, w.in_dt]
    biases = [w.in_z_bias, w.in_x_bias, w.in_BC_bias, w.dt_bias]
    project, project_bias = _behind(norm, torch.cat(parts), _joined(biases, parts))
    return PackedMixer(
        order=order,
        project=project,
        project_bias=project_bias,
        conv=torch.cat([w.conv_x.flatten(0, 1), w.conv_BC]),
        conv_bias=torch.cat([w.conv_x_bias.flatten(), w.conv_BC_bias]),
        rates=_own(-w.A_log.double().exp()),
        skip=w.D.detach(),
        out=_own(w.out.flatten(1).double() * w.norm.flatten().double()),
        out_bias=None if w.out_bias is None else w.out_bias.detach(),
        heads=heads,
        head_dim=head_dim,
        state=len(w.in_BC) // (2 * len(groups)),
        groups=groups,
        norm_epsilon=norm.eps,
        gate_epsilon=NORM_EPSILON,
    )


def _joined(biases: list[Tensor | None], parts: list[Tensor]) -> Tensor:
    """One bias for all parts, 0 where a part has none."""
    pairs = zip(biases, parts, strict=True)
    return torch.cat([part.new_zeros(len(part)) if bias is None else bias.flatten() for bias, part in pairs])


def _behind(norm: nn.LayerNorm, weight_ED: Tensor, bias_E: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias that give the same of normalised tokens before the norm's own weight and bias."""
    # In double precision, so that each number is rounded once.
    weight, wide = norm.weight.double(), weight_ED.double()
    return _own(wide * weight), _own(bias_E.double() + wide @ norm.bias.double())


def _packed_patches(model: MatMamba, order: Tensor) -> dict[str, Any]:
    """What makes tokens of images, in the order of the first block."""
    embed, registers = model.patch_embed, model.num_prefix_tokens
    assert embed.proj.bias is not None
    positions = model.pos_embed[0].clone()
    positions[-1] += model.cls_token[0, 0]
    if registers:
        positions = torch.cat([model.reg_token[0], positions])
    height, width = embed.img_size
    return {
        "image_size": (height, width),
        "channels": model.in_chans,
        "patch_size": tuple(embed.patch_size),
        "patch": embed.proj.weight.detach().flatten(1),
        "patch_bias": embed.proj.bias.detach(),
        "patch_places": order.argsort()[registers:-1].contiguous(),
        "positions": positions[order].contiguous(),
    }


def _packed_end(model: MatMamba, order: Tensor) -> dict[str, Any]:
    """What makes an embedding of tokens in the order of the last block."""
    places, is_token = order.argsort(), model.global_pool == "token"
    projection = model.projection if model.architecture.projection else None
    assert isinstance(model.norm, nn.LayerNorm)
    return {
        "norm": model.norm.weight.detach(),
        "norm_bias": model.norm.bias.detach(),
        "norm_epsilon": model.norm.eps,
        "pool": model.global_pool,
        "pooled": (places[-1:] if is_token else places[model.num_prefix_tokens : -1]).contiguous(),
        "projection": None if projection is None else projection.weight.detach(),
        "projection_bias": None if projection is None else projection.bias.detach(),
        "embedding_dim": model.embedding_dim,
    }
