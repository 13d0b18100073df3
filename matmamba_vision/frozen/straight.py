"""A packed width in PyTorch: one straight run of few calls, without a question about values.

Shape suffixes as in `ops`. X are the convolved channels (x, B and C), I = H P, D those of the stream.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import linear
from .packed import KeptBlock, PackedMixer, PackedWidth
from .straight_scan import last_of_scan, scan


class Straight(nn.Module):
    """Embeddings of images at a packed width, equal to those of the model up to rounding.

    Right for decays of any strength, of a fixed length and any batch, and made to be recorded by
    `torch.export`.

    Args:
        packed: what is computed; its tensors are shared.
    """

    def __init__(self, packed: PackedWidth) -> None:
        super().__init__()
        self.packed, self.patches = packed, Patches(packed)
        blocks: list[nn.Module] = [
            _Kept(block) if isinstance(block, KeptBlock) else _Mixed(block) for block in packed.blocks
        ]
        last = packed.blocks[-1] if packed.blocks and packed.pool == "token" else None
        # Then nobody reads more of the last block than the last token.
        alone = isinstance(last, PackedMixer)
        if isinstance(last, PackedMixer):
            blocks[-1] = _MixedLast(last)
        self.blocks, self.end = nn.ModuleList(blocks), End(packed, alone)

    def forward(self, images: Tensor) -> Tensor:
        """(B, E) float32, L2-normalised, of images (B, C, H, W)."""
        return F.normalize(self.features(images), dim=-1)

    def features(self, images: Tensor) -> Tensor:
        """(B, E) embeddings before they are normalised: what a head reads."""
        x_BLD = self.patches(images)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        features: Tensor = self.end(x_BLD)
        return features


class _Constants(nn.Module):
    """A module whose tensors are constants."""

    def keep(self, **tensors: Tensor | None) -> None:
        """Register each tensor by its name; None stays None."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


class Patches(_Constants):
    """Images to tokens in the order of the first block."""

    weight: Tensor
    positions: Tensor
    places: Tensor

    def __init__(self, packed: PackedWidth) -> None:
        super().__init__()
        self.size = packed.patch_size
        patches, positions = len(packed.patch_places), packed.positions.clone()
        positions[packed.patch_places] += packed.patch_bias
        # Behind the patches stands a row of zeros, to which class token and registers are added.
        places = torch.full((len(positions),), patches)
        places[packed.patch_places] = torch.arange(patches)
        self.missing = len(positions) - patches
        self.moves = not torch.equal(places[:patches], torch.arange(patches))
        weight = packed.patch.unflatten(1, (packed.channels, *packed.patch_size))
        self.keep(weight=weight, positions=positions, places=places)

    def forward(self, images: Tensor) -> Tensor:
        patches_BLD = F.conv2d(images, self.weight, None, self.size).flatten(2).mT
        filled_BLD = F.pad(patches_BLD, (0, 0, 0, 1 if self.moves else self.missing))
        return (filled_BLD.index_select(1, self.places) if self.moves else filled_BLD) + self.positions


class _Kept(_Constants):
    """A block that is run as the model has it."""

    order: Tensor | None

    def __init__(self, kept: KeptBlock) -> None:
        super().__init__()
        self.block, self.scans = kept.block, kept.scans
        self.keep(order=kept.order)

    def forward(self, x_BLD: Tensor) -> Tensor:
        tokens: Tensor = self.block(_arranged(x_BLD, self.order), None, None, self.scans)
        return tokens


class _Mixed(_Constants):
    """A Mamba2 block: (B, L, D) to (B, L, D)."""

    order: Tensor | None
    project: Tensor
    project_bias: Tensor
    conv: Tensor
    conv_bias: Tensor
    rates: Tensor
    skip: Tensor
    out: Tensor
    out_bias: Tensor | None
    ones: Tensor
    zeros: Tensor
    tap0: Tensor

    def __init__(self, packed: PackedMixer) -> None:
        super().__init__()
        self.packed = packed
        self.heads = (packed.heads, packed.head_dim)
        self.states = 2 * packed.state * len(packed.groups)
        self.keep(
            order=packed.order,
            project=packed.project,
            project_bias=packed.project_bias,
            conv=packed.conv,
            conv_bias=packed.conv_bias,
            rates=packed.rates[:, None],
            skip=packed.skip[:, None],
            # The norm divides by the root of a mean: of the sum, with this.
            out=packed.out * packed.inner**0.5,
            out_bias=packed.out_bias,
            # PyTorch takes longer for a norm without weights.
            ones=packed.out.new_ones(len(packed.out)),
            zeros=packed.out.new_zeros(len(packed.out)),
        )
        # By how many tokens ago the token was that they read.
        for ago, weight in enumerate(reversed(packed.conv.unbind(1))):
            self.keep(**{f"tap{ago}": weight.contiguous()})

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = _arranged(x_BLD, self.order)
        row_BLE = linear(self._normal(x_BLD), self.project, self.project_bias)
        sizes = [self.packed.inner, len(self.conv_bias), self.packed.heads]
        z_BLI, convolved_BLX, dt_BLH = row_BLE.split(sizes, dim=-1)
        x_BLHP, states_BLG, dt_BLH1 = self._scanned(convolved_BLX, dt_BLH)
        y_BLHP = scan(x_BLHP, dt_BLH1, self.rates, states_BLG, self.skip, self.packed.groups)
        return self._added(x_BLD, z_BLI, y_BLHP)

    def _normal(self, x_BLD: Tensor) -> Tensor:
        return F.layer_norm(x_BLD, x_BLD.shape[-1:], self.ones, self.zeros, self.packed.norm_epsilon)

    def _scanned(self, convolved_BLX: Tensor, dt_BLH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (B, L, H, P), B and C of all groups, and steps (B, L, H, 1): what a scan reads."""
        x_BLI, states_BLG = self._convolved(convolved_BLX).split([self.packed.inner, self.states], dim=-1)
        return x_BLI.unflatten(-1, self.heads), states_BLG, F.softplus(dt_BLH)[..., None]

    def _convolved(self, t_BLX: Tensor) -> Tensor:
        """Causal convolution and SiLU."""
        if torch.compiler.is_compiling():
            # A graph has no sums in place, and says what is meant: whoever runs it chooses how.
            padded_BXL = F.pad(t_BLX.mT, (self.packed.taps - 1, 0))
            return F.silu(F.conv1d(padded_BXL, self.conv[:, None], self.conv_bias, groups=len(self.conv)).mT)
        # As sums, because a library's convolution takes longer for so few numbers.
        sum_BLX, length = torch.addcmul(self.conv_bias, t_BLX, self.tap0), t_BLX.shape[1]
        for ago in range(1, min(self.packed.taps, length)):
            sum_BLX[:, ago:].addcmul_(t_BLX[:, : length - ago], getattr(self, f"tap{ago}"))
        return F.silu(sum_BLX, inplace=True)

    def _added(self, x_BLD: Tensor, z_BLI: Tensor, y_BLHP: Tensor) -> Tensor:
        """The stream with the gated, normalised and projected output of the scan."""
        gated_BLI = F.silu(z_BLI).mul_(y_BLHP.flatten(2))
        # Each token is divided by its root behind the projection, where there are fewer channels.
        sum_BL1 = (gated_BLI * gated_BLI).sum(-1, keepdim=True)
        scale_BL1 = sum_BL1.add_(self.packed.gate_epsilon * self.packed.inner).rsqrt_()
        if self.out_bias is not None:
            x_BLD = x_BLD + self.out_bias
        return torch.addcmul(x_BLD, linear(gated_BLI, self.out), scale_BL1)


class _MixedLast(_Mixed):
    """A Mamba2 block of which only the last token is wanted: (B, L, D) to (B, 1, D)."""

    gate: Tensor
    gate_bias: Tensor

    def __init__(self, packed: PackedMixer) -> None:
        super().__init__(packed)
        inner = packed.inner
        self.keep(gate=packed.project[:inner], gate_bias=packed.project_bias[:inner])
        self.keep(project=packed.project[inner:], project_bias=packed.project_bias[inner:])

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = _arranged(x_BLD, self.order)
        u_BLD = self._normal(x_BLD)
        row_BLE = linear(u_BLD, self.project, self.project_bias)
        convolved_BLX, dt_BLH = row_BLE.split([len(self.conv_bias), self.packed.heads], dim=-1)
        x_BLHP, states_BLG, dt_BLH1 = self._scanned(convolved_BLX, dt_BLH)
        y_B1HP = last_of_scan(x_BLHP, dt_BLH1, self.rates, states_BLG, self.skip, self.packed.groups)
        z_B1I = linear(u_BLD[:, -1:], self.gate, self.gate_bias)
        return self._added(x_BLD[:, -1:], z_B1I, y_B1HP)


class End(_Constants):
    """Tokens to an embedding that is not yet normalised.

    Args:
        packed: what is computed.
        alone: whether the pooled token is the only one that comes.
    """

    norm: Tensor
    norm_bias: Tensor
    projection: Tensor | None
    projection_bias: Tensor | None
    pooled: Tensor

    def __init__(self, packed: PackedWidth, alone: bool) -> None:
        super().__init__()
        self.epsilon, self.selects = packed.norm_epsilon, not alone
        self.keep(norm=packed.norm, norm_bias=packed.norm_bias, pooled=packed.pooled)
        self.keep(projection=packed.projection, projection_bias=packed.projection_bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD.index_select(1, self.pooled) if self.selects else x_BLD
        x_BLD = F.layer_norm(x_BLD, x_BLD.shape[-1:], self.norm, self.norm_bias, self.epsilon)
        pooled_BD = x_BLD[:, 0] if x_BLD.shape[1] == 1 else x_BLD.mean(1)
        if self.projection is None:
            return pooled_BD
        return F.linear(pooled_BD, self.projection, self.projection_bias)


def _arranged(x_BLD: Tensor, order: Tensor | None) -> Tensor:
    return x_BLD if order is None else x_BLD.index_select(1, order)
