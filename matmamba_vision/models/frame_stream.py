"""A video frame by frame: the state of every block goes on from each frame to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from ..layers import BLOCK_SCANS, Attention, Mixer, MixerState, MixerStates, Orders
from ..ops import carried_macs
from ..width import Width, WidthLike
from .backbone import Backbone


class FrameStream:
    """Embeds the frames of B videos as they come, in memory that does not grow.

    What it computes is defined by one long sequence (`one_sequence`): the tokens of the first frame, then
    those of the second, and so on, all blocks reading all of it. Each frame has all tokens of an image:
    registers, patches in raster order, class token, with the positions of an image, which begin anew in every
    frame. A frame's embedding is pooled from its own tokens as that of an image is; its class token has seen
    all frames so far. So the first frame has the embedding that it has as an image: on a CPU to the bit.

    A block's state is the scan's, and the last inputs of its convolution, of the width's heads alone. The
    first block's state at a width is the leading heads of its state at full width. Behind it that is not so,
    because what a width adds to the tokens is something else: a stream keeps to its width.

    Only one direction in time can be carried on. In raster order that is the order of the tokens. Where a
    block reads in another, or in both, `within_frames` lets it: frames follow in time, and each is read in
    the block's own order; the state goes from where a frame's reading ended to where the next one's begins.

    Args:
        backbone: the network; its mode and weights are those at each step.
        embed: from its tokens (B, L, D) to embeddings (B, E).
        width: at which all frames are embedded.
        within_frames: let every block keep its order within a frame.
        through_time: whether gradients flow back into earlier frames, which are then kept until `detach`.

    Raises:
        ConfigError: an order that is not causal, or a block without a state of fixed size, by name.
        WidthError: no such width.
    """

    def __init__(
        self,
        backbone: Backbone,
        embed: Callable[[Tensor], Tensor],
        width: WidthLike | None = None,
        *,
        within_frames: bool = False,
        through_time: bool = False,
    ) -> None:
        require_causal(backbone, width, within_frames)
        self.width: Width = backbone.full if width is None else backbone.width(width)
        self._backbone, self._embed, self._through_time = backbone, embed, through_time
        self._states: list[MixerStates] = []

    def step(self, frames: Tensor) -> Tensor:
        """Embeddings (B, dim), float32, L2-normalised, of the next frame (B, C, S, S) of B videos.

        Raises:
            ConfigError: frames of a size that the model does not take, or of another number of videos than
                before.
        """
        return self._embed(self.step_features(frames))

    def step_features(self, frames: Tensor) -> Tensor:
        """Normalised tokens (B, L, D) of the next frame, as `forward_features` gives them; else as `step`."""
        self._require_as_many(len(frames))
        backbone = self._backbone
        x, grid = backbone._tokens(frames)
        orders = backbone._orders(grid, x)
        states = self._states or [()] * len(backbone.stack)
        left = []
        for block, active, carried in zip(backbone.stack, backbone.active(self.width), states, strict=True):
            x, carried = block.step(x, *active, orders[block.scan], carried)
            left.append(carried)
        # Only when all has gone well, so that a frame that was refused has changed nothing.
        self._states = left
        if not self._through_time:
            self.detach()
        return backbone.norm(x)

    def _require_as_many(self, videos: int) -> None:
        known = next((states[0].scan_BHPN.shape[0] for states in self._states if states), videos)
        if known != videos:
            raise ConfigError(f"frames of {videos} videos: this stream has seen {known} until reset()")

    def reset(self, videos: Sequence[int] | None = None) -> None:
        """Forget all that was seen, as at a cut; of all videos, or of those with these numbers."""
        if videos is None:
            self._states = []
            return
        self._changed(lambda tensor: tensor.index_fill(0, torch.tensor(videos, device=tensor.device), 0))

    def detach(self) -> None:
        """Let no gradient flow into the frames so far, and keep nothing of them but the state."""
        self._changed(Tensor.detach)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> None:
        self._states = [tuple(MixerState(*map(change, state)) for state in states) for states in self._states]

    @property
    def states(self) -> list[MixerStates]:
        """For each block what it carries, one entry for each order that it reads in; none before a frame."""
        return self._states

    @property
    def state_bytes(self) -> int:
        """Memory of what is carried for one video, however many frames it has."""
        return sum(scan + convolution for scan, convolution in self._sizes())

    def _sizes(self) -> list[tuple[int, int]]:
        """Bytes of the scan's state and of the convolution's inputs in each block."""
        sizes = []
        for block, (heads, state) in zip(
            self._backbone.stack, self._backbone.active(self.width), strict=True
        ):
            if not heads or not isinstance(block.mixer, Mixer):
                continue
            weights, orders = block.mixer.weights(heads, state), len(BLOCK_SCANS[block.scan])
            dtype = weights.conv_x.dtype
            scan = weights.norm.numel() * state * torch.promote_types(dtype, torch.float32).itemsize
            rows = weights.norm.numel() + len(weights.in_BC)
            sizes.append((orders * scan, orders * (weights.conv_x.shape[-1] - 1) * rows * dtype.itemsize))
        return sizes

    @property
    def carrying_macs(self) -> int:
        """Multiply-adds that a frame takes beyond those of an image by itself."""
        tokens = self._backbone.num_prefix_tokens + self._backbone.patch_embed.num_patches + 1
        return sum(
            len(BLOCK_SCANS[block.scan]) * carried_macs(tokens, block.mixer.norm[:heads].numel(), state)
            for block, (heads, state) in zip(
                self._backbone.stack, self._backbone.active(self.width), strict=True
            )
            if isinstance(block.mixer, Mixer)
        )


def one_sequence(
    backbone: Backbone, clips: Tensor, width: WidthLike | None = None, within_frames: bool = False
) -> Tensor:
    """Normalised tokens (B, T, L, D) of clips (B, T, C, S, S), each read as one long sequence of T L tokens.

    The definition of what `FrameStream` computes frame by frame, and faster where all frames are there.

    Raises:
        ConfigError: as for `FrameStream`.
        WidthError: no such width.
    """
    require_causal(backbone, width, within_frames)
    frames = clips.shape[1]
    x, grid = backbone._tokens(clips.flatten(0, 1))
    length = x.shape[1]
    orders = {scan: _in_frames(found, frames) for scan, found in backbone._orders(grid, x).items()}
    x = x.reshape(len(clips), frames * length, -1)
    for block, active in zip(backbone.stack, backbone.active(width), strict=True):
        x = backbone._through(block, x, active, orders)
    return backbone.norm(x).unflatten(1, (frames, length))


def _in_frames(orders: Orders, frames: int) -> Orders:
    return tuple(None if order is None else order.in_frames(frames) for order in orders)


def require_causal(backbone: Backbone, width: WidthLike | None, within_frames: bool) -> None:
    """Raise `ConfigError` unless what the blocks of a width have read can be carried on."""
    given = zip(backbone.stack, backbone.active(width), strict=True)
    active = [block for block, (heads, _) in given if heads]
    if any(isinstance(block.mixer, Attention) for block in active):
        raise ConfigError("attention_blocks: attention has no state of fixed size to carry to the next frame")
    if any(block.mean_of is not None for block in active):
        raise ConfigError("mean_token: every token sees the whole frame, so that no state can be carried on")
    others = sorted({block.scan for block in active} - {"rows"})
    if others and not within_frames:
        scan = backbone.architecture.scan
        named = f"scan {scan!r}" if isinstance(scan, str) else "scan"
        raise ConfigError(
            f"{named}: blocks read in the order {', '.join(others)}, which is not causal; state is carried in"
            " raster order alone, or with within_frames=True"
        )
