"""Which backend computes: by name, or the first that serves the setting."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache

from .backends import BACKENDS, Backend, BackendError, Setting

log = logging.getLogger(__name__)


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
    """The backend called `name`; "auto" takes the first that serves the setting, and logs once which and why.

    On a GPU kernels for GPUs come first, ours before others', whose blocks take several times as many
    launches. Nothing is measured: that would be at a user's first call.

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
    chosen = next(iter(kernels or [backend for backend in serving if not backend.gpu]))
    log.info("scan backend for %s: %s (%s)", setting, chosen.name, _why(setting, refusals))
    return chosen


def _why(setting: Setting, refusals: Mapping[str, str | None]) -> str:
    if setting.device != "cuda":
        for_gpus = " and ".join(name for name, backend in BACKENDS.items() if backend.gpu) + " are for a GPU"
        others = [f"not {name}: {why}" for name, why in refusals.items() if why and not BACKENDS[name].gpu]
        return "; ".join([for_gpus, *others])
    said = "; ".join(f"not {name}: {reason}" for name, reason in refusals.items() if reason)
    return said or "the first of those that serve"
