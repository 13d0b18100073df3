"""Where a job computes, and on how many threads."""

from __future__ import annotations

import torch
from matmamba_common.settings import require_least

from .errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device called `name`, or a GPU if there is one for "auto"; `ConfigError` if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # A tensor there, because a device may have a name and yet not exist.
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def limit_threads(threads: int) -> None:
    """Let torch and FAISS compute on so many threads; 0 for as many as they take, `ConfigError` for fewer."""
    require_least(0, threads=threads)
    if threads:
        # Here, because a training without a limit needs none of it.
        import faiss

        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
