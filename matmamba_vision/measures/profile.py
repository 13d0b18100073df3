"""Latency and memory of any width, predicted from what was measured of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..models import MatMamba
from ..width import Width
from .cost import count_macs, count_parameters
from .latency import measure_latency
from .memory import MIB, measure_memory


def block_kinds(model: MatMamba) -> list[tuple[int, ...]]:
    """The blocks by kind: those with as many heads, multiply-adds and parameters are taken to be alike."""
    kinds: dict[tuple[int, int, int], list[int]] = {}
    for block, heads in enumerate(model.heads):
        alone = only_block(model, block, heads)
        kinds.setdefault((heads, count_macs(model, alone), count_parameters(model, alone)), []).append(block)
    return [tuple(blocks) for blocks in kinds.values()]


def only_block(model: MatMamba, block: int, heads: int) -> Width:
    """The width at which all other blocks are skipped."""
    return model.width([heads if index == block else 0 for index in range(len(model.heads))])


class LatencyProfile:
    """Predicts the latency of a width, in milliseconds for one batch.

    Measured are the full width, and for each kind of block and each of its levels the width that has all
    blocks of that kind there and the others full. What a block saves at a level is taken to be the same in
    every width, and to grow linearly between levels. All widths are measured in turn, so that a machine that
    slows down slows all of them.

    Args:
        levels: for each block, ascending, the head counts to measure.
        batch_size: see `measure_latency`.
        repeats: see `measure_latency`.
    """

    def __init__(
        self, model: MatMamba, levels: Sequence[Sequence[int]], batch_size: int = 1, repeats: int = 20
    ) -> None:
        self._kinds = block_kinds(model)
        self._levels = [levels[kind[0]] for kind in self._kinds]
        settings = [
            (kind, heads) for kind, counts in zip(self._kinds, self._levels, strict=True) for heads in counts
        ]
        full = model.width("full")
        widths = [_reduced(full, kind, heads) for kind, heads in settings]
        found = measure_latency(model, [full, *widths], batch_size, repeats)
        self._full = found[0].median
        savings = [
            (self._full - latency.median) / max(1, _changed(full, width))
            for width, latency in zip(widths, found[1:], strict=True)
        ]
        self._savings = np.split(np.array(savings), np.cumsum([len(counts) for counts in self._levels])[:-1])

    def predict(self, width: Width) -> float:
        """Milliseconds that the extracted submodel of a width should take."""
        saved = 0.0
        for kind, levels, savings in zip(self._kinds, self._levels, self._savings, strict=True):
            saved += np.interp([width.heads[block] for block in kind], levels, savings).sum()
        # On a machine that is busy with other things, savings can add up to more than there is.
        return max(0.0, float(self._full - saved))


def _reduced(full: Width, kind: Sequence[int], heads: int) -> Width:
    """The full width with the blocks of a kind at `heads`; a model keeps its first block."""
    counts = [heads if block in kind else most for block, most in enumerate(full.heads)]
    if not any(counts):
        counts[0] = full.heads[0]
    return replace(full, heads=tuple(counts))


def _changed(full: Width, width: Width) -> int:
    return sum(active != most for active, most in zip(width.heads, full.heads, strict=True))


class MemoryProfile:
    """Predicts the memory of a width, in MiB: its weights and the peak of activations of one forward.

    Between blocks only the residual stream is alive, which has the same size everywhere, so the peak is that
    of the worst block: measured once for each kind and head count, on a submodel of that block alone.

    Args:
        batch_size: images in one forward.
    """

    def __init__(self, model: MatMamba, batch_size: int = 1) -> None:
        self._model, self._batch_size = model, batch_size
        self._first = {block: kind[0] for kind in block_kinds(model) for block in kind}
        self._peaks: dict[tuple[int, int], int] = {}

    def predict(self, width: Width) -> float:
        """MiB that the extracted submodel of a width should need."""
        weights = count_parameters(self._model, width) * self._model.pos_embed.element_size()
        peaks = [self._peak(block, heads) for block, heads in enumerate(width.heads) if heads]
        return (weights + max(peaks)) / MIB

    def _peak(self, block: int, heads: int) -> int:
        key = self._first[block], heads
        if key not in self._peaks:
            self._peaks[key] = measure_memory(self._model, only_block(self._model, *key), self._batch_size)[1]
        return self._peaks[key]
