"""Candidates tried on a GPU: whether each computes the definition, and how long it takes.

A trial runs some kernels on random inputs of one class of shapes. Each kernel's rows are tried in turn, the
others launched as they are, so that what is compared differs in that kernel alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .. import reference
from . import conv_and_norm_kernels, ssd
from .ahead import Compilation, recorded
from .candidates import Launch, Shapes, rows_of
from .chosen import KeptLaunch, trying
from .launch import precision_of

# Agreement with the definition in float64, relative to the largest value; sums over all tokens mostly cancel.
TOLERANCE = {"float32": 1e-4, "tf32": 4e-3, "float16": 4e-3, "bfloat16": 4e-2}
TOLERANCE_OF_SUMS = {name: 4 * tolerance for name, tolerance in TOLERANCE.items()}
# The first row stays unless another takes at most this share of its time.
WORTH_CHANGING = 0.98
# Calls of one CUDA graph, and replays that are timed.
CALLS, ROUNDS = 20, 7
HEADS, TAPS, EPSILON = 64, 4, 1e-5
# Heads, and the most tokens, where results are checked: the recurrence in float64 keeps a state for each.
CHECKED_HEADS, CHECKED_TOKENS = 16, 1100
NOTHING: Mapping[tuple[str, str], str] = MappingProxyType({})
Work = Callable[[], Sequence[Tensor]]
Clock = Callable[[Sequence[Work]], list[float]]
"""Microseconds that each of several works takes."""


@dataclass(frozen=True, kw_only=True)
class TrialInputs:
    """Inputs on a device, and what is to come out.

    Attributes:
        work: launches the kernels.
        expected: computes the same by the definition, in float64.
        sums: places in both results that are sums over all tokens.
    """

    work: Work
    expected: Work
    sums: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KernelTrial:
    """Kernels that run one after the other, for one class of shapes.

    Attributes:
        name: what they compute.
        shapes: the class.
        kernels: their names in `candidates.TABLE`.
        batch: images that fill a GPU.
        prepare: inputs for a device and a batch, fewer of them if they are to be checked.
    """

    name: str
    shapes: Shapes
    kernels: tuple[str, ...]
    batch: int
    prepare: Callable[[torch.device, int, bool], TrialInputs]

    def __str__(self) -> str:
        return f"{self.name}, {self.shapes}"

    def jobs(self, gpu: int) -> list[Compilation]:
        """All that has to be compiled to try every row of every kernel."""
        jobs = dict[str, Compilation]()
        work = self.prepare(torch.device("cpu"), 1, False).work
        for kernel in self.kernels:
            for row in rows_of(kernel, self.shapes):
                with trying(kernel, row):
                    jobs |= {job.key: job for job in recorded(work, gpu)}
        return list(jobs.values())


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of the rows of one kernel.

    Attributes:
        choice: the fastest that is right; None if none is.
        dropped: names of rows that failed, and why.
    """

    choice: KeptLaunch | None
    dropped: dict[str, str]


def tried(
    trial: KernelTrial, device: torch.device, clock: Clock, left: Mapping[tuple[str, str], str] = NOTHING
) -> Iterator[Tried]:
    """Try every row of every kernel of a trial: first whether it is right, then how fast it is.

    Args:
        trial: what is run.
        device: on which.
        clock: times works; `graph_clock` on a GPU.
        left: kernels and rows that are known not to work, and why.

    Yields:
        One for each kernel.
    """
    checked, timed = trial.prepare(device, 1, True), trial.prepare(device, trial.batch, False)
    expected = checked.expected()
    for kernel in trial.kernels:
        right, dropped = list[Launch](), dict[str, str]()
        for row in rows_of(kernel, trial.shapes):
            work = partial(launched_by, kernel, row, checked.work)
            reason = left.get((kernel, row.name))
            reason = reason or fault_of(work, expected, checked.sums, trial.shapes)
            if reason is None:
                right.append(row)
            else:
                dropped[row.name] = reason
        yield Tried(choice=_fastest(trial, kernel, right, timed.work, clock), dropped=dropped)


def launched_by(kernel: str, row: Launch, work: Work) -> Sequence[Tensor]:
    """Do the work, that kernel launched by that row."""
    with trying(kernel, row):
        return work()


def _fastest(
    trial: KernelTrial, kernel: str, rows: Sequence[Launch], work: Work, clock: Clock
) -> KeptLaunch | None:
    if not rows:
        return None
    taken = clock([partial(launched_by, kernel, row, work) for row in rows])
    microseconds = dict(zip((row.name for row in rows), taken, strict=True))
    best, first = min(microseconds, key=lambda name: microseconds[name]), rows[0].name
    worth = microseconds[best] <= WORTH_CHANGING * microseconds[first]
    return KeptLaunch(
        kernel=kernel,
        shapes=trial.shapes,
        candidate=best if worth else first,
        microseconds=microseconds,
    )


def fault_of(work: Work, expected: Sequence[Tensor], sums: Sequence[int], shapes: Shapes) -> str | None:
    """Why a row cannot be used, in one line; None if its results are those that are expected."""
    try:
        found = work()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for place, (value, exact) in enumerate(zip(found, expected, strict=True)):
        tolerance = (TOLERANCE_OF_SUMS if place in sums else TOLERANCE)[shapes.dtype]
        off = float((value.double() - exact).abs().max() / exact.abs().max().clamp(min=0.1))
        # Written so that a result that is no number is wrong.
        if not off <= tolerance:
            return f"result {place} is off by {off:.1e} of its largest value, {tolerance:.0e} is allowed"
    return None


def graph_clock(works: Sequence[Work]) -> list[float]:
    """Each work as a CUDA graph of several calls; medians of rounds in which all take turns."""
    graphs = [_captured(work) for work in works]
    taken: list[list[float]] = [[] for _ in graphs]
    for _ in range(ROUNDS):
        for graph, own in zip(graphs, taken, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            own.append(1e3 * start.elapsed_time(end) / CALLS)
    return [statistics.median(own) for own in taken]


def wall_clock(works: Sequence[Work]) -> list[float]:
    """Each work once, by the clock: for a device without graphs."""
    taken = list[float]()
    for work in works:
        start = time.perf_counter()
        work()
        taken.append(1e6 * (time.perf_counter() - start))
    return taken


def _captured(work: Work) -> torch.cuda.CUDAGraph:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        # Compiles.
        work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            work()
    graph.replay()
    return graph


def scans(dtype: torch.dtype, head_dim: int, state_dim: int, length: int, batch: int) -> list[KernelTrial]:
    """A scan forward and backward."""
    shapes = ssd.shapes_of(dtype, precision_of(dtype)[1], head_dim, state_dim, length)
    states = ("states_kernel", "carry_kernel") if length > ssd.LARGEST_SINGLE_CHUNK else ()
    forward = ("decays_kernel", "scores_kernel", *states, "outputs_kernel")
    backward = ("input_gradients_kernel", "score_gradients_kernel", "shared_gradients_kernel")
    sizes = (dtype, head_dim, state_dim, length)
    return [
        KernelTrial(
            name=name,
            shapes=shapes,
            kernels=kernels,
            batch=many,
            prepare=partial(_prepare_scan, *sizes, name == "scan backward"),
        )
        for name, kernels, many in (
            ("scan", forward, batch),
            ("scan backward", (*backward, "decay_gradients_kernel"), max(1, batch // 2)),
        )
    ]


def heads_of(checked: bool) -> int:
    """How many heads a trial has."""
    return CHECKED_HEADS if checked else HEADS


def tokens_of(length: int, checked: bool) -> int:
    """How many tokens it has: enough for the same class."""
    return min(length, CHECKED_TOKENS) if checked else length


def _random(device: torch.device, seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    return partial(torch.randn, generator=generator, device=device)


def _prepare_scan(
    dtype: torch.dtype,
    head_dim: int,
    state_dim: int,
    length: int,
    backward: bool,
    device: torch.device,
    batch: int,
    checked: bool,
) -> TrialInputs:
    normal, heads, length = _random(device, length), heads_of(checked), tokens_of(length, checked)
    x, dy = normal(2, batch, length, heads, head_dim).to(dtype)
    dt = torch.nn.functional.softplus(normal(batch, length, heads) - 3)
    A = -torch.linspace(1, 16, heads, device=device)
    B, C = normal(batch, length, 2 * state_dim).to(dtype).chunk(2, dim=-1)
    inputs = (x, dt, A, B, C, normal(heads))
    if backward:
        return TrialInputs(
            work=partial(ssd.gradients, dy, *inputs),
            expected=partial(_exact_gradients, reference.ssd_reference, dy, inputs),
            sums=(1, 2, 5),
        )
    return TrialInputs(
        work=lambda: (ssd.outputs(*inputs),),
        expected=lambda: (reference.ssd_reference(*(tensor.double() for tensor in inputs)),),
    )


def _exact_gradients(
    definition: Callable[..., Tensor], dy: Tensor, inputs: Sequence[Tensor], *rest: Any
) -> Sequence[Tensor]:
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        return torch.autograd.grad(definition(*exact, *rest), exact, dy.double())


def rows_of_channels(
    dtype: torch.dtype, channels: int, length: int = 197, batch: int = 128
) -> list[KernelTrial]:
    """Convolution and norm forward and backward."""
    shapes = conv_and_norm_kernels.shapes_of_rows(dtype, channels)
    kinds = {
        "convolution": ("conv_silu_kernel", _prepare_convolution, False),
        "convolution backward": ("conv_silu_gradient_kernel", _prepare_convolution, True),
        "norm": ("gated_rms_norm_kernel", _prepare_norm, False),
        "norm backward": ("gated_rms_norm_gradient_kernel", _prepare_norm, True),
    }
    return [
        KernelTrial(
            name=name,
            shapes=shapes,
            kernels=(kernel,),
            batch=batch,
            prepare=partial(prepare, dtype, channels, length, backward),
        )
        for name, (kernel, prepare, backward) in kinds.items()
    ]


def _prepare_convolution(
    dtype: torch.dtype,
    channels: int,
    length: int,
    backward: bool,
    device: torch.device,
    batch: int,
    checked: bool,
) -> TrialInputs:
    normal = _random(device, channels)
    t, dy = normal(2, batch, length, channels).to(dtype)
    inputs = (t, normal(channels, TAPS), normal(channels))
    if backward:
        return TrialInputs(
            work=partial(conv_and_norm_kernels.conv_gradients, dy, *inputs),
            expected=partial(_exact_gradients, reference.conv_silu_reference, dy, inputs),
            sums=(1, 2),
        )
    return TrialInputs(
        work=lambda: (conv_and_norm_kernels.convolved(*inputs),),
        expected=lambda: (reference.conv_silu_reference(*(tensor.double() for tensor in inputs)),),
    )


def _prepare_norm(
    dtype: torch.dtype,
    channels: int,
    length: int,
    backward: bool,
    device: torch.device,
    batch: int,
    checked: bool,
) -> TrialInputs:
    normal = _random(device, channels)
    y, z, dy = normal(3, batch, length, channels).to(dtype)
    inputs = (y, z, normal(channels))

    def definition(y: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        return reference.gated_rms_norm_reference(y, z, weight, EPSILON)

    if backward:
        return TrialInputs(
            work=partial(conv_and_norm_kernels.norm_gradients, dy, *inputs, EPSILON),
            expected=partial(_exact_gradients, definition, dy, inputs),
            sums=(2,),
        )
    return TrialInputs(
        work=lambda: (conv_and_norm_kernels.normalised(*inputs, EPSILON),),
        expected=lambda: (definition(*(tensor.double() for tensor in inputs)),),
    )
