"""Compiles the kernels of a mixer's training for GPUs that need not be there, and prints what each takes.

    python tests/vision/compile_training.py 90 bfloat16 16 128

Compute capability, type of the tokens, head dim, state. Launchers run on CPU tensors, and each launch is
compiled as Triton itself specialises it. Fails where a kernel spills, has no product on tensor cores that
should have one, or wants more shared memory than the GPU has.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from matmamba_vision.ops.triton.block import (
    training_core,
    training_norm,
    training_start,
)
from matmamba_vision.ops.triton.launch import COMPILED_FOR
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime import jit

# The most shared memory of a program, in bytes, by compute capability.
SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
# A limit of registers that is made for Hopper may cost others a few bytes.
MOST_SPILLED = {80: 16, 89: 16, 90: 0}
# What multiplies matrices.
PRODUCTS = {"prepare_kernel", "states_of_tiles_kernel", "scan_kernel"}
PRODUCTS |= {"gate_backward_kernel", "scan_backward_kernel"}
TOKENS, CHANNELS = (197, 600), 1024


def main(gpu: int, dtype: torch.dtype, head_dim: int, state: int) -> None:
    """Compile all kernels for one kind of mixer."""
    target, done = GPUTarget("cuda", gpu, 32), set[str]()
    backend = make_backend(target)

    def launcher(kernel: Any, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(size > 0 for size in grid)
        return lambda *arguments, **options: compile_launch(kernel, arguments, options)

    def compile_launch(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        name = kernel.fn.__name__
        if name in done:
            return
        done.add(name)
        options = {"debug": False, "instrumentation_mode": "", **options}
        bind = jit.create_function_from_signature(kernel.signature, kernel.params, backend)
        bound, specialised, _ = bind(*arguments, **options)
        parsed, *source = kernel._pack_args(backend, options, bound, specialised, options)
        compiled = triton.compile(ASTSource(kernel, *source), target=target, options=parsed.__dict__)
        check(name, compiled, gpu)

    COMPILED_FOR.set(gpu)
    jit.JITFunction.__getitem__ = launcher
    # In the quadratic form, and with states.
    for tokens in TOKENS:
        done.clear()
        launch_all(dtype, head_dim, state, tokens)
    assert done >= PRODUCTS


def check(name: str, compiled: Any, gpu: int) -> None:
    """Print a line, and fail where the machine code is not as it should be."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        command = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, spilled = re.findall(r"REG:(\d+) STACK:(\d+)", said)[0]
    shared, ptx = compiled.metadata.shared, compiled.asm["ptx"]
    products = ptx.count("wgmma.mma_async"), ptx.count("mma.sync")
    print(
        f"{gpu} {name}: {registers} registers, {spilled} bytes spilled, {shared} bytes shared, "
        f"{products[0]} wgmma, {products[1]} mma, {ptx.count('ex2.approx')} ex2"
    )
    assert int(spilled) <= MOST_SPILLED[gpu], f"{name} spills {spilled} bytes"
    assert shared <= SHARED[gpu], f"{name}: {shared} bytes of shared memory"
    assert sum(products) or name not in PRODUCTS or "float32" in sys.argv, f"{name}: no tensor cores"


def launch_all(dtype: torch.dtype, head_dim: int, state: int, count: int) -> None:
    """Every launch of a step with so many tokens."""
    heads, dim = CHANNELS // head_dim, 512
    convolved = CHANNELS + 2 * state
    packed = torch.zeros(2, count, CHANNELS + convolved + heads, dtype=dtype)
    per_head = torch.zeros(heads)
    parameters = torch.zeros(convolved, 4), torch.zeros(convolved), per_head, per_head, per_head
    sizes = training_core.sizes_of(packed, heads, head_dim, state, heads, None)
    gated, sums, kept = training_core.core_forward(packed, *parameters, sizes)
    dsums = torch.zeros(2, 1, count).expand_as(sums)
    training_core.core_backward(gated, dsums, packed, *parameters, kept, sizes)
    update, tokens = (torch.zeros(2, count, dim, dtype=t) for t in (gated.dtype, dtype))
    training_norm.rows_forward(update, sums, tokens, CHANNELS, 1e-5, dtype)
    training_norm.rows_backward(tokens, update, sums, CHANNELS, 1e-5)
    rows = torch.zeros(CHANNELS, dim), torch.zeros(CHANNELS, dim), torch.zeros(2 * state, dim)
    weights = [*rows, torch.zeros(heads, dim), torch.zeros(dim, CHANNELS), torch.zeros(CHANNELS)]
    of_tokens = [tokens, torch.zeros(dim), torch.zeros(dim)]
    u, *both = training_start.start_mixer(of_tokens, weights, 1e-5, dtype, gated.dtype)
    of_parts = [*both, *weights[4:]]
    training_start.start_mixer_backward([u, *of_tokens[:2]], of_parts, tokens, 1e-5, 2 * state, heads)


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
