"""Batches by CUDA graphs: one graph for each size, which is one launch instead of hundreds.

Python takes longer to launch the kernels of a small batch than a GPU takes to run them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Protocol

import torch
from matmamba_common.errors import MatMambaError
from torch import Tensor

log = logging.getLogger(__name__)

# Batches are filled up to the next of these; larger ones are cut.
SIZES = tuple(2**power for power in range(9))
# Runs before a capture: kernels are compiled and chosen in the first, memory settles in the next.
WARM_UPS = 2


class UncapturedError(MatMambaError):
    """Work that a device could not capture."""


class Captures(Protocol):
    """What captures work, and lets one graph run at a time: all share memory."""

    def busy(self) -> bool:
        """Whether somebody else is capturing what is launched here and now."""
        ...

    def turn(self) -> AbstractContextManager[Callable[[Tensor], Tensor]]:
        """While it is held, no other graph runs, and no other capture is made.

        It gives what hands a tensor that was made within to the caller.
        """
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Do some work, perhaps a few times, and give a function that does it again.

        Raises:
            UncapturedError: it cannot be captured.
            torch.OutOfMemoryError: there is no memory for it.
        """
        ...


class CapturedBatches:
    """Work on batches of any size, each filled up to the next size that has a graph.

    A graph is made when its size is first asked for. Where that fails, that size is launched kernel by kernel
    from then on, and one line says so. Any number of threads may ask at once; they take turns.

    Args:
        work: makes a tensor (n, ...) of a batch (n, ...), each row of its own.
        captures: what makes graphs.
        name: what it is called in messages.
    """

    def __init__(self, work: Callable[[Tensor], Tensor], captures: Captures, name: str) -> None:
        self._work, self._captures, self._name = work, captures, name
        # None where a capture failed.
        self._graphs: dict[int, _Graph | None] = {}

    def __call__(self, batch: Tensor) -> Tensor:
        """Results of a batch, in memory of their own."""
        if not len(batch) or self._captures.busy():
            return self._work(batch)
        parts = [self._of_part(part) for part in batch.split(SIZES[-1])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _of_part(self, part: Tensor) -> Tensor:
        size = next(size for size in SIZES if size >= len(part))
        with self._captures.turn() as hand:
            if size not in self._graphs:
                self._graphs[size] = self._captured(size, part)
            graph = self._graphs[size]
            if graph is not None:
                return hand(graph(part))
        return self._work(part)

    def _captured(self, size: int, like: Tensor) -> _Graph | None:
        try:
            return _Graph(self._work, self._captures, like.new_zeros(size, *like.shape[1:]))
        except (UncapturedError, torch.OutOfMemoryError) as error:
            reason = str(error).splitlines()[0]
            log.warning("%s, batches of %d: launched without a CUDA graph (%s)", self._name, size, reason)
            return None


class _Graph:
    """The work on a batch in a fixed place, with its result in another."""

    result: Tensor

    def __init__(self, work: Callable[[Tensor], Tensor], captures: Captures, batch: Tensor) -> None:
        self._of_batch, self._batch = work, batch
        self._replay = captures.capture(self._work)

    def _work(self) -> None:
        self.result = self._of_batch(self._batch)

    def __call__(self, part: Tensor) -> Tensor:
        self._batch[: len(part)].copy_(part)
        self._replay()
        # A copy: the next replay writes over it.
        return self.result[: len(part)].clone()


class GraphMemory:
    """CUDA graphs of one GPU: one pool of memory, one stream, one turn for all of them.

    Graphs use the same memory one after the other, so that all together take as much as the largest.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._lock = device, threading.RLock()
        with torch.cuda.device(device):
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def busy(self) -> bool:
        """See `Captures`."""
        return torch.cuda.is_current_stream_capturing()

    @contextmanager
    def turn(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """See `Captures`; what is launched within runs behind all that the caller launched before."""
        with self._lock, torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            self._stream.wait_stream(before)

            def hand(result: Tensor) -> Tensor:
                # Its memory is this stream's, which must not take it back while the caller's still reads.
                result.record_stream(before)
                return result

            with torch.cuda.stream(self._stream):
                yield hand
            before.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Captures`."""
        with self.turn():
            for _ in range(WARM_UPS):
                work()
            graph = torch.cuda.CUDAGraph()
            try:
                # Other threads go on reading images, and may ask the driver for memory.
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    work()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise UncapturedError(str(error)) from error
        replay: Callable[[], None] = graph.replay
        return replay


@cache
def memory_of(device: torch.device) -> GraphMemory:
    """The graphs of a GPU: all widths of all models share them."""
    return GraphMemory(device)
