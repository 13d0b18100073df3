"""The scan of `chunked` with its passes over tokens by the kernels; the products are PyTorch's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...native import ScanEndStruct, WeighingStruct, library
from .. import chunked
from ..chunked import ScanEnd
from .serving import are_plain


def ssd_native(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
) -> Tensor:
    """Scan of any length; arguments and result as in `ssd_chunked`."""
    inputs = (x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H)
    passes = _PASSES if library() and are_plain(*inputs) else chunked.BY_PYTORCH
    return chunked.ssd_chunked(*inputs, chunk_size=chunk_size, passes=passes)


def _weigh(
    values_BSHP: Tensor,
    factors_BSH: Tensor,
    into_BSHP: Tensor,
    *,
    more_BSHP: Tensor | None = None,
    skip_H: Tensor | None = None,
    added: int = 0,
) -> Tensor:
    factors_BSH = factors_BSH.contiguous()
    pass_ = WeighingStruct(*values_BSHP.shape, added)
    _place(pass_, "values", values_BSHP)
    _place(pass_, "into", into_BSHP)
    pass_.factors, pass_.factors_image = factors_BSH.data_ptr(), factors_BSH[0].numel()
    if more_BSHP is not None and skip_H is not None:
        _place(pass_, "more", more_BSHP)
        assert skip_H.stride(-1) == 1
        pass_.skip, pass_.skip_image = skip_H.data_ptr(), skip_H.stride(0) if skip_H.dim() > 1 else 0
    kernels = library()
    assert kernels is not None
    kernels.weigh(pass_)
    return into_BSHP


def _place(pass_: WeighingStruct, name: str, tensor_BSHP: Tensor) -> None:
    """Where a tensor lies; its heads lie side by side."""
    image, row, *inner = tensor_BSHP.stride()
    assert inner == [tensor_BSHP.shape[3], 1] or tensor_BSHP.shape[2:].numel() == 1
    setattr(pass_, name, tensor_BSHP.data_ptr())
    setattr(pass_, f"{name}_image", image)
    setattr(pass_, f"{name}_row", row)


def _end_scan(
    dinput_BLHP: Tensor,
    x_BLHP: Tensor,
    dy_BLHP: Tensor,
    y_BLHP: Tensor,
    dt_BLH: Tensor,
    D_H: Tensor,
    *,
    free_BLHP: Tensor,
) -> ScanEnd:
    tensors = dinput_BLHP, x_BLHP, dy_BLHP, y_BLHP, dt_BLH.contiguous(), D_H.contiguous()
    assert all(tensor.is_contiguous() for tensor in tensors)
    sums = [torch.empty_like(tensors[4]) for _ in range(3)]
    batch, length, heads, head_dim = x_BLHP.shape
    into: list[Any] = [tensor.data_ptr() for tensor in (dinput_BLHP, *sums)]
    pass_ = ScanEndStruct(batch * length, heads, head_dim, *(tensor.data_ptr() for tensor in tensors), *into)
    kernels = library()
    assert kernels is not None
    kernels.end_scan(pass_)
    return ScanEnd(dinput_BLHP, *sums)


_PASSES = chunked.Passes(_weigh, _end_scan)
