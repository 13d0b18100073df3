"""Forward and backward of one width: launched kernel by kernel, or at once as a CUDA graph.

Python takes longer to launch the kernels of a small model than a GPU takes to run them. A CUDA graph is
captured once for each width and shape of batch, and is one launch from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..models import MatMamba
from ..ops.step_weights import step_weights
from ..width import Width
from .objective import Teacher

# Runs before a capture: kernels are compiled and chosen in the first, memory settles in the next.
WARM_UPS = 3
# Shapes of batches that are captured: the usual one, and that of the last batch of an epoch.
SHAPES = 2


class Pass(Protocol):
    """Forward and backward of one width.

    Attributes:
        keeps_gradients: whether the memory of gradients must stay where it is from step to step.
    """

    keeps_gradients: bool

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        width: Width,
        teacher: Teacher | None,
        share: float,
        vectors: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Teacher]:
        """Add the gradient of the loss, times `share`, and give its terms and the next teacher.

        Args:
            images: (B, C, S, S); all but `share` as for `NestedObjective.forward`.
            labels: class indices or shares.
            width: which one.
            teacher: what larger widths said.
            share: factor on the loss.
            vectors: what another network says.
        """
        ...


class EagerPass:
    """Launches one kernel after the other."""

    keeps_gradients = False

    def __init__(self, trainee: nn.Module, accelerator: Accelerator) -> None:
        self.trainee, self.accelerator = trainee, accelerator

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        width: Width,
        teacher: Teacher | None,
        share: float | Tensor,
        vectors: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Teacher]:
        """See `Pass`; the share can be a tensor too."""
        terms, teacher = self.trainee(images, labels, width, teacher, vectors)
        self.accelerator.backward(torch.stack([*terms.values()]).sum() * share)
        return {name: term.detach() for name, term in terms.items()}, teacher


# Takes some work, which may be done a few times meanwhile, and gives a function that does it again.
Capture = Callable[[Callable[[], None]], Callable[[], None]]


class CapturedPass:
    """Does what `EagerPass` does, by CUDA graphs; batches of further shapes are launched eagerly.

    Args:
        eager: what is captured.
        capture: makes a graph of some work.
    """

    keeps_gradients = True

    def __init__(self, eager: EagerPass, capture: Capture) -> None:
        self.eager, self.capture = eager, capture
        self._inputs: dict[tuple[Any, ...], _Inputs] = {}
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._packing = _Packing(eager.trainee, capture)

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        width: Width,
        teacher: Teacher | None,
        share: float,
        vectors: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Teacher]:
        """See `Pass`."""
        shape = (images.shape, labels.shape, labels.dtype, vectors is None)
        if shape not in self._inputs:
            if len(self._inputs) == SHAPES:
                return self.eager(images, labels, width, teacher, share, vectors)
            self._inputs[shape] = _Inputs(images, labels, vectors)
        self._inputs[shape].take(images, labels, teacher, share, vectors)
        self._packing.refresh()
        key = (shape, width, teacher is not None)
        if key not in self._graphs:
            self._graphs[key] = self._captured(self._inputs[shape], width, teacher is not None)
        return self._graphs[key]()

    def _captured(self, inputs: _Inputs, width: Width, taught: bool) -> _Graph:
        graph = _Graph(self.eager, inputs, width, taught)
        with _untouched(self.eager.trainee, inputs.images.device):
            graph.replay = self.capture(graph.work)
        return graph


class _Packing:
    """What widths share, packed again after each step of the optimiser, by a graph of its own."""

    _replay: Callable[[], None]

    def __init__(self, trainee: nn.Module, capture: Capture) -> None:
        self._kept, self._capture = list(step_weights(trainee)), capture
        self._captured = 0

    def refresh(self) -> None:
        """Graphs only read what is kept: it has to be what the weights are before one is replayed."""
        if all(kept.is_fresh for kept in self._kept):
            return
        places = sum(kept.places for kept in self._kept)
        if places != self._captured:
            # A width was added since.
            self._replay, self._captured = self._capture(self._pack), places
        self._replay()
        for kept in self._kept:
            kept.note_fresh()

    def _pack(self) -> None:
        for kept in self._kept:
            kept.refresh()


class _Graph:
    """The pass of a width from inputs in fixed places to outputs in fixed places."""

    replay: Callable[[], None]
    terms: dict[str, Tensor]
    values: Tensor
    teacher: Teacher

    def __init__(self, eager: EagerPass, inputs: _Inputs, width: Width, taught: bool) -> None:
        self.eager, self.inputs, self.width, self.taught = eager, inputs, width, taught

    def work(self) -> None:
        """What is captured."""
        inputs, teacher = self.inputs, self.inputs.teacher if self.taught else None
        self.terms, self.teacher = self.eager(
            inputs.images, inputs.labels, self.width, teacher, inputs.share, inputs.vectors
        )
        self.values = torch.stack([*self.terms.values()])

    def __call__(self) -> tuple[dict[str, Tensor], Teacher]:
        self.replay()
        # A copy: the next replay writes over them, and they are read at the end of the step.
        return dict(zip(self.terms, self.values.clone().unbind(), strict=True)), self.teacher


class _Inputs:
    """What the graphs of a shape of batch read: memory that stays where it is."""

    def __init__(self, images: Tensor, labels: Tensor, vectors: Tensor | None) -> None:
        self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
        self.vectors = None if vectors is None else torch.empty_like(vectors)
        self.share = torch.zeros((), device=images.device)
        self.teacher: Teacher | None = None

    def take(
        self, images: Tensor, labels: Tensor, teacher: Teacher | None, share: float, vectors: Tensor | None
    ) -> None:
        """Copy what is given; a teacher, too, before the next replay writes over it."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        if vectors is not None and self.vectors is not None:
            self.vectors.copy_(vectors)
        self.share.fill_(share)
        if teacher is not None and self.teacher is None:
            self.teacher = Teacher(torch.empty_like(teacher.logits), torch.empty_like(teacher.embedding))
        if teacher is not None and self.teacher is not None:
            self.teacher.logits.copy_(teacher.logits)
            self.teacher.embedding.copy_(teacher.embedding)


@contextmanager
def _untouched(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Leave gradients and random state as they were; a parameter that gets a gradient within keeps one."""
    before = {p: None if p.grad is None else p.grad.clone() for p in module.parameters()}
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
    for parameter, gradient in before.items():
        if parameter.grad is not None and gradient is not None:
            parameter.grad.copy_(gradient)
        elif parameter.grad is not None:
            parameter.grad.zero_()


class CudaGraphs:
    """Captures work on the current GPU; all graphs share memory, because one is replayed after the other."""

    def __init__(self) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Capture`."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on reading images, and may ask the driver for memory.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay


def make_pass(trainee: nn.Module, accelerator: Accelerator, model: MatMamba, wanted: bool) -> Pass:
    """Forward and backward by CUDA graphs if they are wanted and can be had, else eagerly."""
    eager = EagerPass(trainee, accelerator)
    return CapturedPass(eager, CudaGraphs()) if wanted and _capturable(accelerator, model) else eager


def _capturable(accelerator: Accelerator, model: MatMamba) -> bool:
    """Whether a step is kernels of one GPU alone, the same ones each time.

    Not where processes exchange gradients, losses are scaled, blocks are computed again, compiled, or
    skipped, which leaves their parameters without a gradient.
    """
    alone = accelerator.device.type == "cuda" and accelerator.num_processes == 1
    compiled = any(block.compiled for block in model.stack)
    skips = any(0 in width.heads for width in model.trained_widths)
    return alone and not (accelerator.scaler or model.grad_checkpointing or compiled or skips)
