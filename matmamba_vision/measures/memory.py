"""Memory that a width needs to encode, and a model to be trained, counted allocation by allocation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..models import MatMamba, extract
from ..width import WidthLike

MIB = 2**20


@torch.inference_mode()
def measure_memory(model: MatMamba, width: WidthLike, batch_size: int = 1) -> tuple[int, int]:
    """Bytes of the weights of the extracted submodel, and the most that one forward holds beside them.

    The second number is the peak of all tensors that the forward allocates and has not freed, its output
    included, the batch of images not: on a GPU as CUDA's allocator counts it, elsewhere as torch's operations
    return them (what an operation takes and frees within itself is not seen).
    """
    submodel = extract(model, width).eval()
    weights = list(submodel.state_dict().values())
    images = model.random_images(batch_size)
    # The first forward may make what later ones keep.
    submodel(images)
    peak = _peak_on_gpu if images.is_cuda else _peak_of_tensors
    return sum(tensor.nbytes for tensor in weights), peak(lambda: submodel(images), [images, *weights])


def measure_training_memory(model: MatMamba, batch_size: int) -> int:
    """Most bytes that forward and backward of the full width hold at once, beside weights and gradients.

    Activations, and what is computed with them for a while; the images are not counted. Counted as
    `measure_memory` does. Weights and random state stay as they are, gradients are lost.
    """
    images = model.random_images(batch_size)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    known = [images, *model.state_dict().values(), *(tensor.grad for tensor in model.parameters())]
    was_training = model.training
    model.train()
    with torch.random.fork_rng():
        peak = _peak_on_gpu if images.is_cuda else _peak_of_tensors
        found = peak(lambda: model(images).float().square().mean().backward(), known)
    model.zero_grad()
    model.train(was_training)
    return found


def _peak_on_gpu(work: Callable[[], object], known: Iterable[Tensor]) -> int:
    device = next(iter(known)).device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def _peak_of_tensors(work: Callable[[], object], known: Iterable[Tensor]) -> int:
    with _Allocations(known) as allocations:
        work()
    return allocations.peak


class _Allocations(TorchDispatchMode):
    """Follows the storages that operations return, from their first sight until they are freed.

    Attributes:
        peak: most bytes alive at once.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)
        self._alive = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(returned):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._seen:
                self._follow(tensor.untyped_storage())
        return returned

    def _follow(self, storage: torch.UntypedStorage) -> None:
        self._seen.add(storage)
        self._change(storage.nbytes())
        weakref.finalize(storage, self._change, -storage.nbytes())

    def _change(self, size: int) -> None:
        self._alive += size
        self.peak = max(self.peak, self._alive)
