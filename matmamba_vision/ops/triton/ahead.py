"""Kernels compiled before they are launched, for a GPU that need not be there.

What launches kernels runs on CPU tensors while `recorded` notes each launch as Triton itself specialises it:
types, divisibility of pointers and strides by 16, constants. So the code that is compiled is the code that
runs, and where it is compiled on the machine that launches it later, it is found in Triton's cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime import jit

from .launch import COMPILED_FOR

# Largest size of a grid in its second and third direction.
MOST_OF_GRID = 65_535
# Processes that compile at once; each takes up to 1 GB.
MOST_WORKERS = 16
# Products on tensor cores in Triton's PTX: Hopper's own, and those of all others.
WGMMA, MMA = "wgmma.mma_async", "mma.sync"


class NothingRecordedError(RuntimeError):
    """Kernels run in Triton's interpreter, or are not launched at all."""


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A kernel with all that its machine code depends on; it can be sent to another process.

    Attributes:
        module: where the kernel stands.
        kernel: its name there.
        signature: the type of each argument.
        constants: values of arguments by their place.
        attributes: what is known of arguments by their place, such as divisibility.
        options: warps, stages and the like.
    """

    module: str
    kernel: str
    signature: Mapping[str, str]
    constants: Mapping[tuple[int, ...], Any]
    attributes: Mapping[tuple[int, ...], Any]
    options: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """The same for jobs that give the same machine code."""
        return repr([(field.name, getattr(self, field.name)) for field in fields(self)])


@dataclass(frozen=True, kw_only=True)
class MachineCode:
    """What the compiler made of a job.

    Attributes:
        kernel: its name.
        gpu: compute capability, such as 90.
        registers: of a thread.
        spilled: bytes that a thread keeps outside its registers.
        shared: bytes of shared memory of a program.
        wgmma: matrix products of Hopper's kind in the code.
        mma: matrix products of the kind that all tensor cores know.
        exponentials: instructions for exp2.
        seconds: that compiling took.
    """

    kernel: str
    gpu: int
    registers: int
    spilled: int
    shared: int
    wgmma: int
    mma: int
    exponentials: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def recorded(work: Callable[[], object], gpu: int) -> list[Compilation]:
    """The kernels that a call launches; none is launched, and its result is meaningless.

    Args:
        work: calls launchers, with tensors on the CPU.
        gpu: compute capability of the GPU to compile for.

    Raises:
        NothingRecordedError: it launches none, or Triton interprets.
    """
    jobs: dict[str, Compilation] = {}
    with _launches_to(lambda job: jobs.setdefault(job.key, job), gpu), _no_products():
        work()
    if not jobs:
        raise NothingRecordedError("no kernel was launched, or Triton interprets kernels in this process")
    return list(jobs.values())


class _NoProducts(TorchDispatchMode):
    """PyTorch's own matrix products are not computed, either: a CPU would take seconds for them."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function.overloadpacket not in _PRODUCTS:
            return function(*arguments, **(options or {}))
        first, second = arguments[-2:]
        return _empty_product(first, second)


def _no_products() -> _NoProducts:
    return _NoProducts()  # type: ignore[no-untyped-call]


_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)


def _empty_product(first: Tensor, second: Tensor) -> Tensor:
    return first.new_empty(*first.shape[:-1], second.shape[-1])


@contextmanager
def _launches_to(note: Callable[[Compilation], object], gpu: int) -> Iterator[None]:
    backend = make_backend(_target(gpu))

    def launcher(kernel: Any, grid: Any) -> Callable[..., object]:
        assert all(size > 0 for size in grid)
        assert all(size <= MOST_OF_GRID for size in grid[1:])
        return lambda *arguments, **options: note(_job(kernel, backend, arguments, options))

    jit.JITFunction.__getitem__ = launcher
    compiled_for = COMPILED_FOR.set(gpu)
    try:
        yield
    finally:
        # Its parent has the true one.
        del jit.JITFunction.__getitem__
        COMPILED_FOR.reset(compiled_for)


def _job(kernel: Any, backend: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Compilation:
    """As `JITFunction.run` would compile it."""
    options = {"debug": False, "instrumentation_mode": "", **options}
    bind = jit.create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialised, _ = bind(*arguments, **options)
    parsed, signature, constants, attributes = kernel._pack_args(
        backend, options, bound, specialised, options
    )
    return Compilation(
        module=kernel.fn.__module__,
        kernel=kernel.fn.__name__,
        signature=signature,
        constants=constants,
        attributes=attributes,
        options=parsed.__dict__,
    )


def _target(gpu: int) -> GPUTarget:
    return GPUTarget("cuda", gpu, 32)


def compile_job(job: Compilation, gpu: int) -> MachineCode:
    """Compile for a GPU of that compute capability, or find it in Triton's cache."""
    kernel = getattr(import_module(job.module), job.kernel)
    source = ASTSource(kernel, dict(job.signature), dict(job.constants), dict(job.attributes))
    start = time.perf_counter()
    done = triton.compile(source, target=_target(gpu), options=dict(job.options))
    seconds = time.perf_counter() - start
    registers, spilled = _resources(done.asm["cubin"])
    ptx = done.asm["ptx"]
    return MachineCode(
        kernel=job.kernel,
        gpu=gpu,
        registers=registers,
        spilled=spilled,
        shared=done.metadata.shared,
        wgmma=ptx.count(WGMMA),
        mma=ptx.count(MMA),
        exponentials=ptx.count("ex2.approx"),
        seconds=seconds,
    )


def compiled_at_once(
    jobs: Sequence[Compilation], gpu: int, workers: int | None = None
) -> Iterator[tuple[Compilation, MachineCode | BaseException]]:
    """Each job with what became of it, in the order in which they are done.

    Args:
        jobs: what is compiled.
        gpu: compute capability.
        workers: processes; by default one for each processor, and at most 16.
    """
    workers = workers or min(MOST_WORKERS, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(compile_job, job, gpu): job for job in jobs}
        for done in as_completed(running):
            yield running[done], done.exception() or done.result()


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread: without calls, a stack is for what is spilled alone."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"REG:(\d+) STACK:(\d+)", said)
    return int(found[0]), int(found[1])
