"""The table of scan backends and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .chunked import ssd_chunked
from .reference import ssd_reference

log = logging.getLogger(__name__)


class Scan(Protocol):
    """Signature of every backend; see `ssd_reference` for the shapes."""

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
class Backend:
    """One implementation of the scan.

    Attributes:
        name: how it is asked for.
        scan: the function.
        unavailable: why it cannot be used on a device, or None.
    """

    name: str
    scan: Scan
    unavailable: Callable[[torch.device], str | None]


def _always(device: torch.device) -> None:
    return None


# In order of preference for "auto".
BACKENDS: dict[str, Backend] = {
    "chunked": Backend("chunked", ssd_chunked, _always),
    "reference": Backend("reference", ssd_reference, _always),
}


def resolve(name: str = "auto", device: torch.device | str = "cpu") -> Backend:
    """The backend called `name` on `device`; "auto" takes the first that works there, and logs it.

    Raises:
        BackendError: no such backend, or it cannot be used on this device.
    """
    device = torch.device(device)
    if name == "auto":
        chosen = next(backend for backend in BACKENDS.values() if backend.unavailable(device) is None)
        log.info("scan backend: %s on %s", chosen.name, device)
        return chosen
    if name not in BACKENDS:
        raise BackendError(f"unknown scan backend {name!r}: one of auto, {', '.join(BACKENDS)}")
    if reason := BACKENDS[name].unavailable(device):
        raise BackendError(f"scan backend {name!r} cannot be used on {device}: {reason}")
    return BACKENDS[name]


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
        BackendError: no such backend, or it cannot be used on the device of `x_BLHP`.
    """
    scan = resolve(backend, x_BLHP.device).scan
    return scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size=chunk_size)
