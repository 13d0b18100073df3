"""Which backend computes: by name, or the best that serves the setting."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .backends import BACKENDS, Backend, BackendError, Setting

log = logging.getLogger(__name__)

# What kernels are compared on: as many tokens as an image has, and as many channels as `small`.
_BATCH, _TOKENS, _CHANNELS = 16, 197, 1024
_ROUNDS = 5


def require_known(name: str) -> str:
    """The name, if there is such a backend or it is "auto".

    Raises:
        BackendError: there is none.
    """
    if name != "auto" and name not in BACKENDS:
        raise BackendError(f"unknown scan backend {name!r}: one of auto, {', '.join(BACKENDS)}")
    return name


@lru_cache
def resolve(name: str, setting: Setting) -> Backend:
    """The backend called `name`; "auto" takes the fastest for the setting, and logs once which and why.

    On a GPU the kernels that serve the setting are timed on it once, if there are several. Elsewhere, and
    where none serves, it is the first of the others.

    Raises:
        BackendError: no such backend, or it refuses the setting.
    """
    if require_known(name) != "auto":
        if reason := BACKENDS[name].refusal(setting):
            raise BackendError(f"scan backend {name!r} cannot be used: {reason}")
        return BACKENDS[name]
    # Without a GPU, whether its kernels would serve is not asked: that takes their libraries, and time.
    asked = [backend for backend in BACKENDS.values() if setting.device == "cuda" or not backend.gpu]
    refusals = {backend.name: backend.refusal(setting) for backend in asked}
    serving = [BACKENDS[name] for name, reason in refusals.items() if reason is None]
    kernels = [backend for backend in serving if backend.gpu and setting.device == "cuda"]
    if len(kernels) > 1:
        return _fastest(kernels, setting)
    chosen = next(iter(kernels or [backend for backend in serving if not backend.gpu]))
    log.info("scan backend for %s: %s (%s)", setting, chosen.name, _why(setting, refusals))
    return chosen


def _why(setting: Setting, refusals: Mapping[str, str | None]) -> str:
    if setting.device != "cuda":
        for_gpus = " and ".join(name for name, backend in BACKENDS.items() if backend.gpu) + " are for a GPU"
        others = [f"not {name}: {why}" for name, why in refusals.items() if why and not BACKENDS[name].gpu]
        return "; ".join([for_gpus, *others])
    said = "; ".join(f"not {name}: {reason}" for name, reason in refusals.items() if reason)
    return said or "the only kernels here"


def _fastest(backends: Sequence[Backend], setting: Setting) -> Backend:
    """The backend that takes least time forward and backward."""
    ms = {backend.name: 1e3 * min(_seconds(backend, setting)) for backend in backends}
    chosen = min(backends, key=lambda backend: ms[backend.name])
    measured = ", ".join(f"{name} {taken:.2f} ms" for name, taken in ms.items())
    log.info("scan backend for %s: %s, the fastest here (%s)", setting, chosen.name, measured)
    return chosen


def _seconds(backend: Backend, setting: Setting) -> list[float]:
    inputs = _inputs(setting)
    seconds = []
    for _ in range(2 + _ROUNDS):
        _synchronise(setting)
        start = time.perf_counter()
        with torch.enable_grad():
            y = backend.scan(*inputs, chunk_size=64)
            torch.autograd.grad(y, inputs, torch.ones_like(y))
        _synchronise(setting)
        seconds.append(time.perf_counter() - start)
    # The first rounds compile.
    return seconds[2:]


def _inputs(setting: Setting) -> tuple[Tensor, ...]:
    heads = max(1, _CHANNELS // setting.head_dim)
    shapes = (
        (_BATCH, _TOKENS, heads, setting.head_dim), (_BATCH, _TOKENS, heads), (heads,),
        (_BATCH, _TOKENS, setting.state_dim), (_BATCH, _TOKENS, setting.state_dim), (heads,),
    )  # fmt: skip
    x, dt, A, B, C, D = (torch.rand(shape, device=setting.device) for shape in shapes)
    x, B, C = (tensor.to(setting.dtype) for tensor in (x, B, C))
    return tuple(tensor.requires_grad_() for tensor in (x, dt, -A, B, C, D))


def _synchronise(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()
