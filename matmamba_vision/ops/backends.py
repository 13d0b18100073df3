"""The table of backends and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from . import pointwise
from .chunked import ssd_chunked
from .reference import conv_silu_reference, gated_rms_norm_reference, ssd_reference

log = logging.getLogger(__name__)


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


class BackendError(ValueError):
    """A backend that does not exist or cannot work here; the message gives the reason."""


@dataclass(frozen=True)
class Setting:
    """What a backend is asked to work on."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    head_dim: int = 16
    state_dim: int = 128


@dataclass(frozen=True)
class Backend:
    """One implementation of what a mixer computes between its projections.

    Attributes:
        name: how it is asked for.
        scan: the recurrence. conv_silu, gated_rms_norm: as in `pointwise`.
        refusal: why it cannot serve a setting, or None.
    """

    name: str
    scan: Scan
    conv_silu: Callable[[Tensor, Tensor, Tensor], Tensor]
    gated_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    refusal: Callable[[Setting], str | None]


def _never(setting: Setting) -> None:
    return None


# In order of preference for "auto".
BACKENDS: dict[str, Backend] = {
    "chunked": Backend("chunked", ssd_chunked, pointwise.conv_silu, pointwise.gated_rms_norm, _never),
    "reference": Backend("reference", ssd_reference, conv_silu_reference, gated_rms_norm_reference, _never),
}


def require_known(name: str) -> str:
    """The name, if there is such a backend or it is "auto".

    Raises:
        BackendError: there is none.
    """
    if name != "auto" and name not in BACKENDS:
        raise BackendError(f"unknown scan backend {name!r}: one of auto, {', '.join(BACKENDS)}")
    return name


@lru_cache
def resolve(name: str = "auto", setting: Setting = Setting()) -> Backend:
    """The backend called `name`; "auto" takes the first that serves the setting, and logs once which and why.

    Raises:
        BackendError: no such backend, or it refuses the setting.
    """
    if require_known(name) != "auto":
        if reason := BACKENDS[name].refusal(setting):
            raise BackendError(f"scan backend {name!r} cannot be used: {reason}")
        return BACKENDS[name]
    refusals = {backend.name: backend.refusal(setting) for backend in BACKENDS.values()}
    chosen = next(name for name, reason in refusals.items() if reason is None)
    passed_over = "".join(f"; not {name}: {reason}" for name, reason in refusals.items() if reason)
    log.info("scan backend on %s: %s%s", setting.device, chosen, passed_over)
    return BACKENDS[chosen]


def resolve_for(name: str, x_BLHP: Tensor, state_dim: int) -> Backend:
    """The backend for inputs like `x_BLHP` (..., P); a dictionary look-up after the first time."""
    return resolve(name, Setting(x_BLHP.device.type, x_BLHP.dtype, x_BLHP.shape[-1], state_dim))


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
    backend: str = "auto",
) -> Tensor:
    """Scan by a backend of that name (Mamba2, arXiv 2405.21060); shapes and meaning as in `ssd_reference`.

    Raises:
        BackendError: no such backend, or it cannot serve inputs like these.
    """
    scan = resolve_for(backend, x_BLHP, B_BLN.shape[-1]).scan
    return scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size=chunk_size)
