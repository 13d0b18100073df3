"""LayerNorm in training, its result in the type that products take: one launch instead of three."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
import triton
from torch import Tensor, nn

from ..launch import on_device_of
from . import training_layer_norm_kernels
from .training_configs import TrainingConfig, default_training_config

# Rows whose gradients of weight and bias are one partial sum.
_SUMMED = 64


def _options(t: Tensor, config: TrainingConfig) -> dict[str, int]:
    return {"ROWS": config.rows, "BLOCK": triton.next_power_of_2(t.shape[-1])} | config.norm.options()


@on_device_of
def layer_norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, dtype: torch.dtype, config: TrainingConfig
) -> Tensor:
    """Launches the forward; see `layer_norm`."""
    count, dim = x.numel() // x.shape[-1], x.shape[-1]
    out = torch.empty_like(x, dtype=dtype)
    training_layer_norm_kernels.layer_norm_kernel[(ceil(count / config.rows),)](
        x, weight, bias, out, count, dim, epsilon, **_options(x, config)
    )
    return out


@on_device_of
def layer_norm_backward(
    dout: Tensor, x: Tensor, weight: Tensor, epsilon: float, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """Launches the backward; see `layer_norm_gradients`."""
    count, dim = x.numel() // x.shape[-1], x.shape[-1]
    dx = torch.empty_like(x)
    partial = x.new_empty(ceil(count / _SUMMED), 2, dim, dtype=torch.float32)
    training_layer_norm_kernels.layer_norm_backward_kernel[(len(partial),)](
        x, weight, dout, dx, partial, count, dim, epsilon, SUMMED=_SUMMED, **_options(x, config)
    )
    return dx, partial.sum(0)


@torch.library.custom_op("matmamba::layer_norm", mutates_args=())
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """LayerNorm of the last dimension, computed in float32.

    Args:
        x: (..., D) of any type, contiguous.
        weight: (D,)
        bias: (D,)
        epsilon: added to the variance.
        dtype: of the result.
    """
    return layer_norm_forward(x, weight, bias, epsilon, dtype, default_training_config(dtype))


@torch.library.custom_op("matmamba::layer_norm_gradients", mutates_args=())
def layer_norm_gradients(dout: Tensor, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Gradients of x, and (2, D) of weight and bias."""
    return layer_norm_backward(dout.contiguous(), x, weight, epsilon, default_training_config(x.dtype))


@layer_norm.register_fake
def _normal_shape(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=dtype)


@layer_norm_gradients.register_fake
def _gradient_shapes(dout: Tensor, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(2, x.shape[-1], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.epsilon, _ = inputs
    ctx.bias_type = bias.dtype
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    dx, (dweight, dbias) = layer_norm_gradients(dout, x, weight, ctx.epsilon)
    return dx, dweight.to(weight.dtype), dbias.to(ctx.bias_type), None, None


layer_norm.register_autograd(_gradients, setup_context=_keep)


def trained_layer_norm(x_BLD: Tensor, norm: nn.LayerNorm) -> Tensor:
    """What `norm` makes of tokens, by `layer_norm`: in autocast's type, or else that of the tokens."""
    device = x_BLD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BLD.dtype
    return layer_norm(x_BLD.contiguous(), norm.weight, norm.bias, norm.eps, dtype)
