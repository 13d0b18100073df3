"""Forward and backward of one block: its first version over the present one.

Outputs and all gradients of the two are found equal before anything is timed. In the first case both run in
one process, alike. In the second each runs as it was used, in processes of its own: the first version with
the system's default allocator, the present one with freed memory kept. Then the present one by each backend.
Writes results/training_step.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from first_version import FirstBlock, first_weights
from matmamba_vision import keep_freed_memory
from matmamba_vision.layers import Block
from measuring import Case, Plan, Ratio, alternate, in_fresh_process, measure_case, run, timed
from peers import SMALL, BlockShape, backends_case, by_backend
from torch import Tensor, nn

TOLERANCE = 1e-4
# Of the second case: processes of each version, and rounds in each of them.
PROCESSES, ROUNDS_WITHIN = 5, 10
FIRST, PRESENT = "first version", "present"
RATIO = Ratio(f"{FIRST} / {PRESENT}", FIRST, PRESENT)


def main(arguments: Sequence[str] | None = None, shape: BlockShape = SMALL) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, shape=shape), arguments)


def cases(plan: Plan, shape: BlockShape) -> Iterator[Case]:
    """Both versions in one process; each in processes of its own; the present one by each backend."""
    settings = shape.settings(largest_difference=largest_difference(shape))
    sides = {name: timed(step) for name, step in steps(shape).items()}
    yield measure_case("one process", sides, [RATIO], plan, settings)
    within, own = plan.at_most(ROUNDS_WITHIN), Plan(warm_up=0, repeats=min(PROCESSES, plan.repeats))
    threads = torch.get_num_threads()
    apart = {
        version: partial(in_fresh_process, median_ms, version, keep, within, shape, threads)
        for version, keep in ((FIRST, False), (PRESENT, True))
    }
    settings["repeats_in_each_process"] = within.repeats
    yield measure_case("each in its own way", apart, [RATIO], own, settings)
    for larger in (shape, replace(shape, batch=8 * shape.batch)):
        yield backends_case(backend_steps(larger), plan.at_most(10), larger)


def backend_steps(shape: BlockShape) -> dict[str, Callable[[], float]]:
    """A training step of the present block by each backend."""
    x_BLD, dy_BLD = shape.tokens_BLD().requires_grad_(), shape.tokens_BLD()
    versions = by_backend(shape.block())
    return {name: timed(partial(step, version, x_BLD, dy_BLD)) for name, version in versions.items()}


def steps(shape: BlockShape) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """A training step of each version, with the same weights, input and gradient of the output."""
    torch.manual_seed(0)
    block, x_BLD, dy_BLD = shape.block(), shape.tokens_BLD(), shape.tokens_BLD()
    # A block inside a network passes a gradient on.
    x_BLD.requires_grad_()
    versions = {FIRST: FirstBlock(block), PRESENT: block}
    return {name: partial(step, version, x_BLD, dy_BLD) for name, version in versions.items()}


def step(block: nn.Module, x_BLD: Tensor, dy_BLD: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the input and of every parameter, in their order."""
    return torch.autograd.grad(block(x_BLD), (x_BLD, *block.parameters()), dy_BLD)


def largest_difference(shape: BlockShape) -> float:
    """Largest difference between the outputs and gradients of the versions, relative to the largest value.

    Raises:
        SystemExit: it is not small, so that there is nothing to compare.
    """
    torch.manual_seed(0)
    present, x_BLD, dy_BLD = shape.block(), shape.tokens_BLD().requires_grad_(), shape.tokens_BLD()
    first = FirstBlock(present)
    pairs = [(first(x_BLD), present(x_BLD))]
    found, wanted = (named_gradients(block, x_BLD, dy_BLD) for block in (first, present))
    pairs += [(found[name], gradient) for name, gradient in wanted.items()]
    largest = max(float(((one - other).abs().max() / other.abs().max()).detach()) for one, other in pairs)
    if not largest <= TOLERANCE:
        raise SystemExit(f"outputs or gradients of the two versions differ by {largest} of their largest")
    return largest


def named_gradients(block: nn.Module, x_BLD: Tensor, dy_BLD: Tensor) -> dict[str, Tensor]:
    """Gradients by the names and in the layout of the first version."""
    names = ["input", *(name for name, _ in block.named_parameters())]
    named = dict(zip(names, step(block, x_BLD, dy_BLD), strict=True))
    if not isinstance(block, Block):
        return named
    mixer = {name: named.pop(name) for name in list(named) if name.startswith("mixer.")}
    return named | first_weights({name.removeprefix("mixer."): tensor for name, tensor in mixer.items()})


def median_ms(version: str, keep: bool, plan: Plan, shape: BlockShape, threads: int) -> float:
    """Milliseconds of a step in this process, where nothing else was done before."""
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    return median(alternate({version: timed(steps(shape)[version])}, plan)[version])


if __name__ == "__main__":
    main()
