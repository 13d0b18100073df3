"""Which versions of Triton may compute: those without miscompilations that are known.

On Hopper GPUs (H100, H200) Triton 3.4 to 3.7.0 multiplies by the transpose of a product's own result wrongly:
gradients come out wrong, and nothing says so (flash-linear-attention, issue 640; 3.7.1 mended it, its pull
request 983). Even 3.7.1 fails there for some kernels of several products at 64 tokens and 4 warps (its issue
984; Triton, issue 11366), so no kernel of ours transposes a result that feeds a product. Older than 3.6 is
never compiled by our tests.
"""

from __future__ import annotations

import re

import torch
import triton

OLDEST: tuple[int, ...] = (3, 6)
OLDEST_ON_HOPPER: tuple[int, ...] = (3, 7, 1)
_HOPPER = 9


def too_old() -> str | None:
    """Why the installed Triton may not compute on the GPUs of this machine, or None."""
    return refusal_of(triton.__version__, on_hopper=_has_hopper())


def refusal_of(version: str, on_hopper: bool) -> str | None:
    """Why that version of Triton is not used, or None.

    Args:
        version: such as "3.7.1" or "3.7.0+git1234".
        on_hopper: whether it is to compute on a GPU of compute capability 9.
    """
    installed = tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))
    if installed < OLDEST:
        return f"triton {version} is installed, {_written(OLDEST)} or newer is needed"
    if on_hopper and installed < OLDEST_ON_HOPPER:
        wrong = "which compiles wrong gradients for Hopper GPUs"
        return f"triton {version} is installed, {wrong}: {_written(OLDEST_ON_HOPPER)} or newer is needed"
    return None


def _written(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _has_hopper() -> bool:
    if not torch.cuda.is_available():
        return False
    return any(
        torch.cuda.get_device_capability(gpu)[0] == _HOPPER for gpu in range(torch.cuda.device_count())
    )
