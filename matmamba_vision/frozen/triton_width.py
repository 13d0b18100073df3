"""A packed width by the kernels of `ops.triton.block`, on a GPU."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.order import Orders
from ..ops.triton.block.chosen_configs import chosen_config
from ..ops.triton.block.configs import BlockConfig, BlockShape, Choice
from ..ops.triton.block.mixed import mixed, shape_of
from ..ops.triton.block.norm_residual import norm_residual
from ..ops.triton.block.packing import BlockWeights, pack_block, refusal
from .captured_batches import CapturedBatches, memory_of
from .packed import KeptBlock, PackedMixer, PackedWidth
from .place import Place
from .straight import End, Patches


def why_not_triton(packed: PackedWidth, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot compute a width, or None."""
    mixers = [block for block in packed.blocks if isinstance(block, PackedMixer)]
    if not mixers:
        return "no block is a Mamba2 mixer of one order"
    reasons = (refusal(mixer.head_dim, mixer.state, dtype) for mixer in mixers)
    return next(filter(None, reasons), None)


@dataclass(frozen=True, eq=False)
class _Mixer:
    """A block of the kernels; `order` is as in `PackedMixer`."""

    order: Tensor | None
    weights: BlockWeights
    norm_epsilon: float


@dataclass(frozen=True, eq=False)
class _Kept:
    """A block that runs as the model has it."""

    order: Tensor | None
    block: nn.Module
    scans: Orders


@dataclass(frozen=True, eq=False)
class _Stream:
    """The residual stream, and the update that is not yet added to it.

    Attributes:
        x_BLD: without the update.
        update: as `norm_residual` takes it, or None.
        of: the block whose update it is.
    """

    x_BLD: Tensor
    update: tuple[Tensor, Tensor] | None = None
    of: BlockWeights | None = None

    def settled(
        self, order: Tensor | None, epsilon: float | None, config: BlockConfig
    ) -> tuple[Tensor, Tensor]:
        """The stream with its update in another order, and its LayerNorm unless `epsilon` is None."""
        return norm_residual(
            self.x_BLD,
            self.update,
            None if self.of is None else self.of.out_bias,
            order,
            inner=0 if self.of is None else self.of.heads * self.of.head_dim,
            gate_epsilon=0.0 if self.of is None else self.of.gate_epsilon,
            epsilon=epsilon,
            candidate=config.norm,
        )


class TritonNetwork:
    """Embeddings of images at a packed width: five launches for each block that is a mixer.

    Decays of any strength, any batch. The weights stay on the device, packed once.

    Args:
        packed: what is computed.
        place: where, and in which numbers.
        choose: how blocks are launched.
    """

    def __init__(self, packed: PackedWidth, place: Place, choose: Choice = chosen_config) -> None:
        self._choose, self._ends_alone = choose, packed.pool == "token"
        self._blocks = [_block_at(block, place) for block in packed.blocks]
        # Then nobody reads more of the last block than the last token.
        self._ends_alone &= isinstance(packed.blocks[-1], PackedMixer)
        self._patches = Patches(packed).to(place.device, place.dtype)
        self._end = End(packed, alone=True).to(place.device, place.dtype)
        self._pooled = packed.pooled.to(place.device)

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """(B, E) float32, L2-normalised, of images (B, C, H, W) of the network's place."""
        stream = _Stream(self._patches(images).contiguous())
        for number, block in enumerate(self._blocks):
            last = number == len(self._blocks) - 1
            if isinstance(block, _Mixer):
                stream = self._through_mixer(stream, block, last and self._ends_alone)
            else:
                stream = self._through_kept(stream, block)
        # The last token alone has come, or those that are pooled are taken.
        order = None if self._ends_alone else self._pooled
        x_BLD, _ = stream.settled(order, None, BlockConfig())
        return F.normalize(self._end(x_BLD).float(), dim=-1)

    def _through_mixer(self, stream: _Stream, block: _Mixer, last_alone: bool) -> _Stream:
        config = self._choose(_shape_behind(stream, block))
        x_BLD, u_BLD = stream.settled(block.order, block.norm_epsilon, config)
        update = mixed(u_BLD, block.weights, config, last_alone=last_alone)
        return _Stream(x_BLD[:, -1:].contiguous() if last_alone else x_BLD, update, block.weights)

    def _through_kept(self, stream: _Stream, block: _Kept) -> _Stream:
        x_BLD, _ = stream.settled(block.order, None, BlockConfig())
        return _Stream(block.block(x_BLD, None, None, block.scans))


def _shape_behind(stream: _Stream, block: _Mixer) -> BlockShape:
    shape = shape_of(stream.x_BLD, block.weights)
    return shape if block.order is None else replace(shape, length=len(block.order))


def _block_at(block: PackedMixer | KeptBlock, place: Place) -> _Mixer | _Kept:
    order = None if block.order is None else block.order.to(place.device)
    if isinstance(block, PackedMixer):
        return _Mixer(order, _weights_of(block, place), block.norm_epsilon)
    moved = copy.deepcopy(block.block).to(place.device, place.dtype)
    scans = tuple(
        scan and replace(scan, index=scan.index.to(place.device), inverse=scan.inverse.to(place.device))
        for scan in block.scans
    )
    return _Kept(order, moved, scans)


def _weights_of(mixer: PackedMixer, place: Place) -> BlockWeights:
    weights = pack_block(
        project=mixer.project,
        project_bias=mixer.project_bias,
        conv=mixer.conv,
        conv_bias=mixer.conv_bias,
        rates=mixer.rates,
        skip=mixer.skip,
        out=mixer.out,
        out_bias=mixer.out_bias,
        heads=mixer.heads,
        head_dim=mixer.head_dim,
        state=mixer.state,
        heads_per_group=mixer.groups[0],
        gate_epsilon=mixer.gate_epsilon,
        dtype=place.dtype,
    )
    return weights.to(place.device)


class TritonEngine:
    """A width by the kernels, with a CUDA graph for each size of batch; see `frozen_width.Engine`.

    Args:
        packed: what is computed.
        place: the GPU, and the numbers in which it computes.
        choose: how blocks are launched.
    """

    name = "triton"

    def __init__(self, packed: PackedWidth, place: Place, choose: Choice = chosen_config) -> None:
        network = TritonNetwork(packed, place, choose)
        self._batches = CapturedBatches(network.embed, memory_of(place.device), f"width {packed.name}")

    def wake(self) -> None:
        """As `Engine.wake`: nothing sleeps."""

    def embed(self, images: Tensor) -> Tensor:
        """(B, E) float32, L2-normalised."""
        return self._batches(images)
