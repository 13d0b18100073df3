"""The product of tokens with a matrix of weights, by the faster of the CPU's two libraries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Multiply-adds from which a 1x1 convolution is faster; below it costs more to call than it saves.
_WORTHWHILE_MACS = 2**26


def linear(t_BLD: Tensor, weight_ED: Tensor, bias_E: Tensor | None = None) -> Tensor:
    """(B, L, E): `torch.nn.functional.linear`, in large float32 inference on a CPU as a convolution.

    PyTorch hands a linear layer to MKL and a convolution to oneDNN. With channels last a 1x1 convolution is
    the same product of the same memory; oneDNN packs the weights for each call and is faster all the same.
    The choice depends on shapes, never on strides: leading heads of a matrix give what their copy gives.
    """
    if not _by_convolution(t_BLD, weight_ED):
        return F.linear(t_BLD, weight_ED, bias_E)
    row_BD1L = t_BLD.mT[:, :, None]
    return F.conv2d(row_BD1L, weight_ED[:, :, None, None], bias_E)[:, :, 0].mT


def _by_convolution(t_BLD: Tensor, weight_ED: Tensor) -> bool:
    if not (t_BLD.device.type == "cpu" and t_BLD.dtype == weight_ED.dtype == torch.float32):
        return False
    if torch.is_grad_enabled() and (t_BLD.requires_grad or weight_ED.requires_grad):
        return False
    # A recorded model says what it means; whoever runs it chooses the library.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return False
    return t_BLD.numel() * len(weight_ED) >= _WORTHWHILE_MACS and torch.backends.mkldnn.is_available()
