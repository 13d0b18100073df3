"""Compiles every Triton kernel for GPUs that need not be there, and prints what each takes.

    python tests/vision/compile_kernels.py 80 90

The launchers run on CPU tensors, and the compiler stands where the kernels were. Fails where a kernel does
not compile or wants more shared memory than the GPU has.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from matmamba_vision.ops.triton import conv_and_norm_kernels, ssd, ssd_kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Compute capability, and the most shared memory that a block of threads can have there, in bytes.
GPUS = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# Length, heads, head dim, state dim, dtype: one chunk and several, narrow and wide, of each type.
SCANS = (
    (197, 64, 16, 128, torch.bfloat16),
    (1100, 64, 32, 128, torch.bfloat16),
    (1100, 4, 128, 256, torch.bfloat16),
    (197, 64, 16, 128, torch.float32),
    (1100, 4, 8, 16, torch.float16),
)


class Compiler:
    """Stands in for a kernel: compiles it for the arguments that it is launched with."""

    done: set[tuple[Any, ...]] = set()  # noqa: RUF012  shared on purpose

    def __init__(self, kernel: Any, gpu: int) -> None:
        self.kernel, self.gpu = kernel, gpu

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(size > 0 for size in grid)
        assert all(size < 65_536 for size in grid[1:])
        return self.launch

    def launch(self, *arguments: Any, num_warps: int = 4, num_stages: int = 3, **constants: Any) -> None:
        names = [parameter.name for parameter in self.kernel.params]
        values = dict(zip(names, arguments, strict=False)) | constants
        constant = {parameter.name for parameter in self.kernel.params if parameter.is_constexpr}
        constant |= {name for name, value in values.items() if isinstance(value, int) and value == 1}
        signature = {
            name: "constexpr" if name in constant else _type(value) for name, value in values.items()
        }
        known = {(names.index(name),): values[name] for name in constant}
        key = (self.gpu, self.kernel.__name__, num_warps, str(signature), str(known))
        if key in self.done:
            return
        self.done.add(key)
        source = ASTSource(self.kernel, signature, known)
        options = {"num_warps": num_warps, "num_stages": num_stages}
        compiled = triton.compile(source, target=GPUTarget("cuda", self.gpu, 32), options=options)
        shared = compiled.metadata.shared
        print(self.gpu, self.kernel.__name__, f"{shared} bytes shared", f"{len(compiled.asm['cubin'])} bytes")
        assert shared <= GPUS[self.gpu], f"{self.kernel.__name__}: {shared} bytes of shared memory"


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


def _scan(length: int, heads: int, head_dim: int, state_dim: int, dtype: torch.dtype) -> None:
    x = torch.zeros(1, length, heads, head_dim, dtype=dtype)
    numbers_H = torch.zeros(heads)
    B, C = torch.zeros(1, length, 2 * state_dim, dtype=dtype).chunk(2, dim=-1)
    inputs = (x, torch.zeros(1, length, heads), numbers_H, B, C, numbers_H)
    y = ssd.ssd_triton(*(tensor.requires_grad_() for tensor in inputs))
    y.backward(torch.zeros_like(y))


def _conv_and_norm(channels: int, dtype: torch.dtype) -> None:
    t, per_channel = torch.zeros(1, 20, channels, dtype=dtype), torch.zeros(channels)
    kernel = torch.zeros(channels, 4)
    parameters = [tensor.requires_grad_() for tensor in (t, kernel, per_channel)]
    y = conv_and_norm_kernels.conv_silu_triton(*parameters)
    conv_and_norm_kernels.gated_rms_norm_triton(y, t, per_channel, 1e-5).sum().backward()


def main(gpus: list[int]) -> None:
    """Compile everything for these compute capabilities."""
    kernels = {
        (module, name): kernel
        for module in (ssd_kernels, conv_and_norm_kernels)
        for name, kernel in vars(module).items()
        if name.endswith("_kernel")
    }
    for gpu in gpus:
        for (module, name), kernel in kernels.items():
            setattr(module, name, Compiler(kernel, gpu))
        for scan in SCANS:
            _scan(*scan)
        _conv_and_norm(1024, torch.bfloat16)
        _conv_and_norm(2048, torch.float32)


if __name__ == "__main__":
    main([int(gpu) for gpu in sys.argv[1:]])
