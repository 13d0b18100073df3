"""The table of backends: what computes the part of a mixer between its projections."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from matmamba_errors import MatMambaError
from torch import Tensor

from . import fused, pointwise
from .chunked import ssd_chunked
from .reference import conv_silu_reference, gated_rms_norm_reference, ssd_reference


class Scan(Protocol):
    """Signature of every scan; see `ssd_reference` for the shapes."""

    def __call__(
        self,
        x_BLHP: Tensor,
        dt_BLH: Tensor,
        A_H: Tensor,
        B_BLN: Tensor,
        C_BLN: Tensor,
        D_H: Tensor,
        *,
        chunk_size: int,
    ) -> Tensor: ...


class BackendError(MatMambaError):
    """A backend that does not exist or cannot work here; the message gives the reason."""


@dataclass(frozen=True)
class Setting:
    """What a backend is asked to work on."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    head_dim: int = 16
    state_dim: int = 128

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.device}, {dtype}, head dim {self.head_dim}, state {self.state_dim}"


def _no_inner(taps: int, channels: int, row: int) -> None:
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of what a mixer computes between its projections.

    Attributes:
        name: how it is asked for.
        scan: the recurrence. conv_silu, gated_rms_norm: as in `pointwise`.
        refusal: why it cannot serve a setting, or None.
        gpu: whether it is made for a GPU; "auto" takes it there alone.
        inner: finds what does all of it at once from a packed projection, see `fused.inner_where_it_fits`.
    """

    name: str
    scan: Scan
    conv_silu: Callable[[Tensor, Tensor, Tensor], Tensor]
    gated_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    refusal: Callable[[Setting], str | None]
    gpu: bool = False
    inner: Callable[[int, int, int], Callable[..., Tensor] | None] = _no_inner


def never_refuses(setting: Setting) -> None:
    """The refusal of a backend that serves everything."""
    return


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function of a module here that is imported when first called: what it needs may not be installed."""

    def call(*arguments: Any, **options: Any) -> Any:
        return _function(module, name)(*arguments, **options)

    return call


@lru_cache
def _function(module: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(importlib.import_module(f".{module}", __package__), name)
    return found


HALVES = (torch.bfloat16, torch.float16)


def _refusal_of_kernels(setting: Setting, head_dims: range, state_dims: range) -> str | None:
    if setting.dtype not in (torch.float32, *HALVES):
        return f"it takes float32, bfloat16 and float16, not {str(setting.dtype).removeprefix('torch.')}"
    if setting.head_dim not in head_dims:
        return f"it takes head dims of {head_dims[0]} to {head_dims[-1]}, not {setting.head_dim}"
    if setting.state_dim not in state_dims:
        return f"it takes states of {state_dims[0]} to {state_dims[-1]}, not {setting.state_dim}"
    return None


def _refusal_of_triton(setting: Setting) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if setting.device != "cuda" and not _function("launch", "is_interpreted")():
        return f"its kernels run on a GPU, or slowly in Triton's interpreter, not on {setting.device}"
    return _refusal_of_kernels(setting, range(8, 129), range(16, 257))


def _refusal_of_mamba_ssm(setting: Setting) -> str | None:
    if setting.device != "cuda":
        return f"its kernels run on a GPU, not on {setting.device}"
    return fused.missing() or _refusal_of_kernels(setting, range(8, 129), range(16, 257))


def _conv_silu_beside_mamba_ssm(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    channels = t_BLX.shape[2:].numel()
    if fused.inner_where_it_fits(kernel_XK.shape[-1], channels, channels):
        return fused.conv_silu_cuda(t_BLX, kernel_XK, bias_X)
    convolve = _function("triton_pointwise", "conv_silu_triton")
    result: Tensor = convolve(t_BLX, kernel_XK, bias_X)
    return result


# In order of preference for "auto".
BACKENDS: dict[str, Backend] = {
    "triton": Backend(
        "triton",
        _late("triton_ssd", "ssd_triton"),
        _late("triton_pointwise", "conv_silu_triton"),
        _late("triton_pointwise", "gated_rms_norm_triton"),
        _refusal_of_triton,
        gpu=True,
    ),
    "mamba_ssm": Backend(
        "mamba_ssm",
        fused.ssd_mamba_ssm,
        _conv_silu_beside_mamba_ssm,
        fused.gated_rms_norm_mamba_ssm,
        _refusal_of_mamba_ssm,
        gpu=True,
        inner=fused.inner_where_it_fits,
    ),
    "chunked": Backend("chunked", ssd_chunked, pointwise.conv_silu, pointwise.gated_rms_norm, never_refuses),
    "reference": Backend(
        "reference", ssd_reference, conv_silu_reference, gated_rms_norm_reference, never_refuses
    ),
}
