"""The backend for given tensors, eagerly and in graphs of torch.compile.

In a compiled graph the scan is one opaque operation, so that it may look at its data as it does eagerly; what
stands beside it is given as its definition, which the compiler fuses with its neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..chunked import ssd_chunked
from ..reference import conv_silu_reference, gated_rms_norm_reference
from .backends import BACKENDS, Backend, Scan, Setting, never_refuses
from .by_name import require_known, resolve


def resolve_for(name: str, like: Tensor, head_dim: int, state_dim: int, taps: int = 4) -> Backend:
    """The backend for projections of `like`; a dictionary look-up after the first time.

    Raises:
        BackendError: no such backend, or it refuses such inputs.
    """
    if torch.compiler.is_exporting():
        return _EXPORTED
    if torch.compiler.is_compiling():
        return _COMPILED[name]
    device = like.device.type
    # Tensors without data know no autocast.
    autocasts = not like.is_meta and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocasts else like.dtype
    sizes = {"head_dim": head_dim, "state_dim": state_dim, "taps": taps}
    return resolve(require_known(name), Setting(device=device, dtype=dtype, **sizes))


def _scan_of(backend: str, x: Tensor, B: Tensor) -> Scan:
    setting = Setting(device=x.device.type, dtype=x.dtype, head_dim=x.shape[-1], state_dim=B.shape[-1])
    return resolve(backend, setting).scan


@torch.library.custom_op("matmamba::scan", mutates_args=())
def _scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, chunk_size: int, backend: str
) -> Tensor:
    return _scan_of(backend, x, B)(x, dt, A, B, C, D, chunk_size=chunk_size)


@torch.library.custom_op("matmamba::scan_gradients", mutates_args=())
def _scan_gradients(
    dy: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    chunk_size: int,
    backend: str,
) -> list[Tensor]:
    inputs = [tensor.detach().requires_grad_() for tensor in (x, dt, A, B, C, D)]
    with torch.enable_grad():
        y = _scan_of(backend, x, B)(*inputs, chunk_size=chunk_size)
    return [gradient.contiguous() for gradient in torch.autograd.grad(y, inputs, dy)]


@_scan.register_fake
def _like_input(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_scan_gradients.register_fake
def _like_inputs(dy: Tensor, *inputs: Any) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs[:6]]


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.chunk_size, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return *_scan_gradients(dy, *ctx.saved_tensors, ctx.chunk_size, ctx.backend), None, None


_scan.register_autograd(_backward, setup_context=_keep_inputs)


def _opaque(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk_size: int, backend: str
) -> Tensor:
    return _scan(x, dt, A, B, C, D, chunk_size, backend)


def _as_defined(name: str, scan: Scan) -> Backend:
    """A backend of that scan, with the definitions of what stands beside it."""
    return Backend(
        name=name,
        scan=scan,
        conv_silu=conv_silu_reference,
        gated_rms_norm=gated_rms_norm_reference,
        refusal=never_refuses,
    )


_COMPILED = {name: _as_defined(name, partial(_opaque, backend=name)) for name in ("auto", *BACKENDS)}
# What is trained by operations of ours, which a graph takes as they are, is so there, too.
_COMPILED |= {
    name: replace(_COMPILED[name], trained=backend.trained)
    for name, backend in BACKENDS.items()
    if backend.gpu
}
# What is exported knows no operation of ours.
_EXPORTED = _as_defined("exported", ssd_chunked)
