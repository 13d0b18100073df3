"""What launching Triton kernels has in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from functools import cache, wraps
from typing import TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor

R = TypeVar("R")


# The compute capability that kernels are compiled for where no GPU is at hand.
COMPILED_FOR: ContextVar[int] = ContextVar("compiled for", default=90)


def capability_of(device: torch.device) -> int:
    """Such as 90: of a GPU, or of what is compiled for."""
    # Tensors without data can have a device that is not there.
    if device.type != "cuda" or not torch.cuda.is_available():
        return COMPILED_FOR.get()
    return _capability(device)


@cache
def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU (TRITON_INTERPRET=1 when Triton is imported)."""
    return bool(triton.knobs.runtime.interpret)


def on_device_of(launcher: Callable[..., R]) -> Callable[..., R]:
    """The launcher, run on the GPU of its first argument: Triton launches on the current one."""

    @wraps(launcher)
    def launch(first: Tensor, *rest: Tensor) -> R:
        with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
            return launcher(first, *rest)

    return launch


def precision_of(dtype: torch.dtype) -> tuple[tl.dtype, str]:
    """Operands of the matrix products for inputs of `dtype`, and how float32 is multiplied.

    float16 goes as TF32, which has its digits and float32's range: scores and weights of tokens outgrow
    65,504 and fall below 6e-8. float32 goes as TF32 only where the user allows torch that. Triton's
    interpreter multiplies no bfloat16.
    """
    if dtype == torch.bfloat16 and not is_interpreted():
        return tl.bfloat16, "ieee"
    return tl.float32, "tf32" if dtype == torch.float16 or _allows_tf32() else "ieee"


def _allows_tf32() -> bool:
    """Whether PyTorch may multiply float32 as TF32 on a GPU, by whichever of its switches."""
    # Since torch 2.9; the older switch sets it too, but cannot be asked once the newer one was used.
    newer: str | None = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    return torch.get_float32_matmul_precision() != "highest" if newer is None else newer == "tf32"


def tensor_core_precision(dtype: torch.dtype) -> tuple[tl.dtype, str]:
    """As `precision_of`, but that exact float32 goes as three products of TF32.

    They keep its digits but for the last two; products of float32 itself are none of tensor cores, and of
    large tiles they spill registers.
    """
    dot, precision = precision_of(dtype)
    return dot, "tf32x3" if precision == "ieee" and dot.is_fp32() else precision
