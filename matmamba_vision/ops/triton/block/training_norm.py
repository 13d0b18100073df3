"""RMSNorm behind the projection that follows it, forward and backward, as one custom operation each."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
import triton
from torch import Tensor

from ..chosen import launch_of
from ..conv_and_norm_kernels import shapes_of_rows
from ..launch import on_device_of
from . import training_norm_kernels


def rows_options(kernel: str, dtype: torch.dtype, dim: int, device: torch.device) -> dict[str, int]:
    """How a kernel of whole rows of D numbers is launched, for a block whose products take that type."""
    return dict(launch_of(kernel, shapes_of_rows(dtype, dim), device))


@on_device_of
def rows_forward(
    t: Tensor,
    sums: Tensor,
    stream: Tensor | None,
    width: int,
    epsilon: float,
    dtype: torch.dtype,
) -> Tensor:
    """Launches the forward; see `scale_rows`."""
    batch, length, channels = t.shape
    out, options = (
        torch.empty_like(t, dtype=dtype),
        rows_options("scale_rows_kernel", dtype, channels, t.device),
    )
    training_norm_kernels.scale_rows_kernel[(ceil(length / options["ROWS"]), batch)](
        t, sums, stream, out, length, channels, sums.shape[1], width, epsilon, **options,
        BLOCK=triton.next_power_of_2(channels),
    )  # fmt: skip
    return out


@on_device_of
def rows_backward(dout: Tensor, t: Tensor, sums: Tensor, width: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Launches the backward; see `scale_rows_backward`."""
    batch, length, channels = t.shape
    dt, dsums = torch.empty_like(t), torch.empty_like(sums[:, 0])
    options = rows_options("scale_rows_backward_kernel", dout.dtype, channels, t.device)
    training_norm_kernels.scale_rows_backward_kernel[(ceil(length / options["ROWS"]), batch)](
        t, sums, dout, dt, dsums, length, channels, sums.shape[1], width, epsilon, *dout.stride()[:2],
        **options, BLOCK=triton.next_power_of_2(channels),
    )  # fmt: skip
    return dt, dsums


@torch.library.custom_op("matmamba::scale_rows", mutates_args=())
def scale_rows(
    t: Tensor, sums: Tensor, stream: Tensor | None, width: int, epsilon: float, dtype: torch.dtype
) -> Tensor:
    """Tokens by the factors of their RMSNorm, which commute with the projection in between.

    Args:
        t: (B, L, D) projected tokens, contiguous.
        sums: (B, places, L) float32, contiguous: sums over places are sums of squares over `width` channels.
        stream: (B, L, D), contiguous, to which they are added; None for none.
        width: channels of the norm.
        epsilon: added to the mean square.
        dtype: of the result.
    """
    return rows_forward(t, sums, stream, width, epsilon, dtype)


@torch.library.custom_op("matmamba::scale_rows_backward", mutates_args=())
def scale_rows_backward(
    dout: Tensor, t: Tensor, sums: Tensor, width: int, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Gradients of t, and of each of a token's sums (B, L)."""
    dout = dout if dout.stride(-1) == 1 else dout.contiguous()
    return rows_backward(dout, t, sums, width, epsilon)


@scale_rows.register_fake
def _scaled_shape(
    t: Tensor, sums: Tensor, stream: Tensor | None, width: int, epsilon: float, dtype: torch.dtype
) -> Tensor:
    return torch.empty_like(t, dtype=dtype)


@scale_rows_backward.register_fake
def _scaled_gradient_shapes(dout: Tensor, t: Tensor, sums: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(t), sums.new_empty(sums.shape[0], sums.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    t, sums, stream, ctx.width, ctx.epsilon, _ = inputs
    ctx.stream_type = None if stream is None else stream.dtype
    ctx.save_for_backward(t, sums)


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    t, sums = ctx.saved_tensors
    dt, dsums = scale_rows_backward(dout, t, sums, ctx.width, ctx.epsilon)
    dstream = None if ctx.stream_type is None else dout.to(ctx.stream_type)
    return dt, dsums[:, None].expand_as(sums), dstream, None, None, None


scale_rows.register_autograd(_gradients, setup_context=_keep)
