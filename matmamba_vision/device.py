"""Where a job computes, and on how many threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matmamba_common.lazy import Deferred, when_imported
from matmamba_common.settings import require, require_crew

from .errors import ConfigError

if TYPE_CHECKING:
    import faiss
    import torch
else:
    torch, faiss = Deferred("torch"), Deferred("faiss")


def resolve_device(name: torch.device | str) -> torch.device:
    """The device called `name`, or a GPU if there is one for "auto"; `ConfigError` if it cannot be used."""
    if isinstance(name, torch.device):
        return name
    require("device", name, str)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # A tensor there, because a device may have a name and yet not exist.
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def place_called(name: torch.device | str) -> torch.device | str:
    """As `resolve_device`, but that there is a CPU is known without torch, which takes long to load."""
    return name if name == "cpu" else resolve_device(name)


def limit_threads(threads: int) -> None:
    """Let torch and FAISS compute on so many threads; 0 for as many as they take, `ConfigError` for fewer."""
    require_crew(threads=threads)
    if threads:
        # Who needs one of them does not wait for the other.
        when_imported("torch", lambda: torch.set_num_threads(threads))
        when_imported("faiss", lambda: faiss.omp_set_num_threads(threads))
