"""The passes of a scan over its tokens, between its products.

The scan takes them as an argument: here they are by PyTorch's operations, in `ops.native` by kernels.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Weigh(Protocol):
    """Multiplies each head by a factor of its own: into = factors values + skip more."""

    def __call__(
        self,
        values_BSHP: Tensor,
        factors_BSH: Tensor,
        into_BSHP: Tensor,
        *,
        more_BSHP: Tensor | None = None,
        skip_H: Tensor | None = None,
        added: int = 0,
    ) -> Tensor:
        """Fills in and returns `into_BSHP`.

        Args:
            values_BSHP: heads side by side, as in all of these.
            factors_BSH: of values.
            into_BSHP: where the result goes.
            more_BSHP: what else is added, times `skip_H`; not together with `added`.
            skip_H: (H,), or (B, 1, H) one for each image.
            added: leading tokens at which the result is added to what `into_BSHP` has.
        """


class ScanEnd(NamedTuple):
    """What the gradients of a scan are made of; sums are over the channels of a head.

    Attributes:
        dx_BLHP: gradient of x.
        dinput_x_BLH: <gradient of dt x, x>.
        dy_x_BLH: <dy, x>.
        dy_y_BLH: <dy, y>.
    """

    dx_BLHP: Tensor
    dinput_x_BLH: Tensor
    dy_x_BLH: Tensor
    dy_y_BLH: Tensor


class EndScan(Protocol):
    """What remains of a scan's backward behind its products."""

    def __call__(
        self,
        dinput_BLHP: Tensor,
        x_BLHP: Tensor,
        dy_BLHP: Tensor,
        y_BLHP: Tensor,
        dt_BLH: Tensor,
        D_H: Tensor,
        *,
        free_BLHP: Tensor,
    ) -> ScanEnd:
        """Sums and gradients; `dinput_BLHP` and `free_BLHP` are memory to use."""


class Passes(NamedTuple):
    """Who makes the passes.

    Attributes:
        weigh: inputs, outputs and their gradients by their decays.
        end: sums over channels, and the gradient of x.
    """

    weigh: Weigh
    end: EndScan


def weigh(
    values_BSHP: Tensor,
    factors_BSH: Tensor,
    into_BSHP: Tensor,
    *,
    more_BSHP: Tensor | None = None,
    skip_H: Tensor | None = None,
    added: int = 0,
) -> Tensor:
    """See `Weigh`."""
    factors_BSH1 = factors_BSH[..., None]
    if added:
        into_BSHP[:, :added].addcmul_(values_BSHP[:, :added], factors_BSH1[:, :added])
    if added < into_BSHP.shape[1]:
        torch.mul(values_BSHP[:, added:], factors_BSH1[:, added:], out=into_BSHP[:, added:])
    if more_BSHP is not None and skip_H is not None:
        into_BSHP.addcmul_(more_BSHP, skip_H[..., None])
    return into_BSHP


def end_scan(
    dinput_BLHP: Tensor,
    x_BLHP: Tensor,
    dy_BLHP: Tensor,
    y_BLHP: Tensor,
    dt_BLH: Tensor,
    D_H: Tensor,
    *,
    free_BLHP: Tensor,
) -> ScanEnd:
    """See `EndScan`."""
    dinput_x_BLH = torch.mul(dinput_BLHP, x_BLHP, out=free_BLHP).sum(-1)
    dy_x_BLH = torch.mul(dy_BLHP, x_BLHP, out=free_BLHP).sum(-1)
    dy_y_BLH = torch.mul(dy_BLHP, y_BLHP, out=free_BLHP).sum(-1)
    dx_BLHP = dinput_BLHP.mul_(dt_BLH[..., None]).addcmul_(dy_BLHP, D_H[:, None])
    return ScanEnd(dx_BLHP, dinput_x_BLH, dy_x_BLH, dy_y_BLH)


BY_PYTORCH = Passes(weigh, end_scan)
