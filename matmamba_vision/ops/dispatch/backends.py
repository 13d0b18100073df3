"""The table of backends: what computes the part of a mixer between its projections."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from matmamba_common.errors import MatMambaError
from torch import Tensor

from .. import chunked, mamba_ssm, native
from ..reference import conv_silu_reference, gated_rms_norm_reference, ssd_reference


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


class InTraining(NamedTuple):
    """What computes a mixer, and what may stand before it, where gradients are wanted.

    Attributes:
        mix: see `triton.block.training_mixer.trained_mixer`.
        layer_norm: see `triton.block.training_start.trained_layer_norm`.
    """

    mix: Callable[..., Tensor]
    layer_norm: Callable[..., Tensor]


class BackendError(MatMambaError):
    """A backend that does not exist or cannot work here; the message gives the reason."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a backend is asked to work on.

    Attributes:
        device: type of the device, such as "cpu" or "cuda".
        dtype: of inputs, B and C.
        head_dim: P.
        state_dim: N.
        taps: K of the convolution.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    head_dim: int = 16
    state_dim: int = 128
    taps: int = 4

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.device}, {dtype}, head dim {self.head_dim}, state {self.state_dim}"


def _no_inner(taps: int, channels: int, row: int) -> None:
    return None


def _no_trained(head_dim: int, state_dim: int, taps: int) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One implementation of what a mixer computes between its projections.

    Attributes:
        name: how it is asked for.
        scan: the recurrence.
        conv_silu: causal convolution and SiLU, as `chunked.conv_silu`.
        gated_rms_norm: gate and norm, as `chunked.gated_rms_norm`.
        refusal: why it cannot serve a setting, or None.
        gpu: whether it is made for a GPU; "auto" takes it there alone.
        inner: finds what does all of it at once from a packed projection, see
            `mamba_ssm.inner_where_it_fits`.
        trained: finds what does all of it, and the projections, where gradients are wanted, from head dim,
            state dim and taps.
    """

    name: str
    scan: Scan
    conv_silu: Callable[[Tensor, Tensor, Tensor], Tensor]
    gated_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    refusal: Callable[[Setting], str | None]
    gpu: bool = False
    inner: Callable[[int, int, int], Callable[..., Tensor] | None] = _no_inner
    trained: Callable[[int, int, int], InTraining | None] = _no_trained


def never_refuses(setting: Setting) -> None:
    """The refusal of a backend that serves everything."""
    return


def _late(find: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    """A function that is found, and its module imported, when first called: it may not be installed."""
    find = cache(find)

    def call(*arguments: Any, **options: Any) -> Any:
        return find()(*arguments, **options)

    return call


def _ssd_triton() -> Callable[..., Any]:
    from ..triton.ssd import ssd_triton

    return ssd_triton


def _conv_silu_triton() -> Callable[..., Any]:
    from ..triton.conv_and_norm_kernels import conv_silu_triton

    return conv_silu_triton


def _gated_rms_norm_triton() -> Callable[..., Any]:
    from ..triton.conv_and_norm_kernels import gated_rms_norm_triton

    return gated_rms_norm_triton


def _mix_by_triton(*arguments: Any, **options: Any) -> Tensor:
    # Imported each time: compilers follow that, but no cache.
    from ..triton.block.training_mixer import trained_mixer

    return trained_mixer(*arguments, **options)


def _normalise_by_triton(*arguments: Any) -> Tensor:
    from ..triton.block.training_start import trained_layer_norm

    return trained_layer_norm(*arguments)


def trained_by_triton(head_dim: int, state_dim: int, taps: int) -> InTraining | None:
    """See `Backend.trained`."""
    fits = head_dim in (16, 32, 64) and state_dim in (16, 32, 64, 128) and taps == 4
    return InTraining(_mix_by_triton, _normalise_by_triton) if fits else None


def _is_interpreted() -> bool:
    from ..triton.launch import is_interpreted

    return is_interpreted()


def _triton_too_old() -> str | None:
    from ..triton.oldest import too_old

    return too_old()


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
    # First, because launching asks what an old version lacks.
    if reason := _triton_too_old():
        return reason
    if setting.device != "cuda" and not _is_interpreted():
        return f"its kernels run on a GPU, or slowly in Triton's interpreter, not on {setting.device}"
    return _refusal_of_kernels(setting, range(8, 129), range(16, 257))


def _refusal_of_mamba_ssm(setting: Setting) -> str | None:
    if setting.device != "cuda":
        return f"its kernels run on a GPU, not on {setting.device}"
    return mamba_ssm.missing() or _refusal_of_kernels(setting, range(8, 129), range(16, 257))


def _refusal_of_native(setting: Setting) -> str | None:
    return native.refusal(setting.device, setting.dtype, setting.taps)


_convolve_by_triton = _late(_conv_silu_triton)


def _conv_silu_beside_mamba_ssm(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """By causal-conv1d where it can, otherwise by our own kernel."""
    channels = t_BLX.shape[2:].numel()
    if mamba_ssm.inner_where_it_fits(kernel_XK.shape[-1], channels, channels):
        return mamba_ssm.conv_silu_cuda(t_BLX, kernel_XK, bias_X)
    result: Tensor = _convolve_by_triton(t_BLX, kernel_XK, bias_X)
    return result


_ALL = (
    Backend(
        name="triton",
        scan=_late(_ssd_triton),
        conv_silu=_convolve_by_triton,
        gated_rms_norm=_late(_gated_rms_norm_triton),
        refusal=_refusal_of_triton,
        gpu=True,
        trained=trained_by_triton,
    ),
    Backend(
        name="mamba_ssm",
        scan=mamba_ssm.ssd_mamba_ssm,
        conv_silu=_conv_silu_beside_mamba_ssm,
        gated_rms_norm=mamba_ssm.gated_rms_norm_mamba_ssm,
        refusal=_refusal_of_mamba_ssm,
        gpu=True,
        inner=mamba_ssm.inner_where_it_fits,
    ),
    Backend(
        name="native",
        scan=native.ssd_native,
        conv_silu=native.conv_silu,
        gated_rms_norm=native.gated_rms_norm,
        refusal=_refusal_of_native,
    ),
    Backend(
        name="chunked",
        scan=chunked.ssd_chunked,
        conv_silu=chunked.conv_silu,
        gated_rms_norm=chunked.gated_rms_norm,
        refusal=never_refuses,
    ),
    Backend(
        name="reference",
        scan=ssd_reference,
        conv_silu=conv_silu_reference,
        gated_rms_norm=gated_rms_norm_reference,
        refusal=never_refuses,
    ),
)
# By name, in order of preference for "auto".
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}
