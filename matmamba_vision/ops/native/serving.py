"""What the kernels in C can serve."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ...native import MOST_TAPS, library, why_missing

_PLAIN = (Tensor, torch.nn.Parameter)


def refusal(device: str, dtype: torch.dtype, taps: int) -> str | None:
    """Why the kernels cannot serve tensors like these, or None."""
    if device != "cpu":
        return f"its kernels are for a CPU, not for {device}"
    if dtype != torch.float32:
        return f"its kernels take float32, not {str(dtype).removeprefix('torch.')}"
    if taps > MOST_TAPS:
        return f"its kernels take up to {MOST_TAPS} taps of a convolution, not {taps}"
    return None if library() else f"its kernels are missing: {why_missing()}"


def are_plain(*tensors: Tensor) -> bool:
    """Whether tensors are float32 memory of this process that may be read past PyTorch's dispatcher.

    They are not while a computation is recorded or transformed: the record would miss what the kernels do.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined,no-untyped-call]
        return False
    if is_in_torch_dispatch_mode() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return all(
        type(tensor) in _PLAIN and tensor.is_cpu and tensor.dtype == torch.float32 for tensor in tensors
    )
