"""A packed width as the kernels in C read it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..native import Library, MixerArrays, Network, NetworkArrays, library, refusal
from .packed import PackedMixer, PackedWidth

# Named alike in both.
_OF_MIXER = {field.name for field in fields(MixerArrays)} - {"rows"}


def network_arrays(packed: PackedWidth) -> NetworkArrays | None:
    """The arrays of a width whose blocks are all plain mixers of one group; None of any other.

    Tokens of a packed width are kept in the order in which the next block reads them. The kernels leave them
    where they are, patches first, and every block has the rows that it reads in turn.
    """
    mixers = [block for block in packed.blocks if isinstance(block, PackedMixer)]
    if len(mixers) < len(packed.blocks) or any(len(mixer.groups) > 1 for mixer in mixers):
        return None
    patches = packed.patch_places.numpy()
    others = np.setdiff1d(np.arange(len(packed.positions)), patches)
    # For each place of the first block's order, the row of the stream.
    rows = np.argsort(np.concatenate([patches, others]))
    positions = np.empty_like(packed.positions.numpy())
    positions[rows] = packed.positions.numpy()
    positions[: len(patches)] += packed.patch_bias.numpy()
    arrays = []
    for mixer in mixers:
        rows = rows if mixer.order is None else rows[mixer.order.numpy()]
        arrays.append(_mixer_arrays(mixer, rows))
    return NetworkArrays(
        channels=packed.channels,
        image_size=packed.image_size,
        patch_size=packed.patch_size,
        patch=packed.patch.numpy(),
        positions=positions,
        mixers=tuple(arrays),
        norm=packed.norm.numpy(),
        norm_bias=packed.norm_bias.numpy(),
        norm_epsilon=packed.norm_epsilon,
        pooled=rows[packed.pooled.numpy()],
        projection=None if packed.projection is None else packed.projection.numpy(),
        projection_bias=None if packed.projection_bias is None else packed.projection_bias.numpy(),
    )


def _mixer_arrays(mixer: PackedMixer, rows: NDArray[np.int64]) -> MixerArrays:
    values = {name: getattr(mixer, name) for name in _OF_MIXER}
    arrays: dict[str, Any] = {
        name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()
    }
    return MixerArrays(rows=rows, **arrays)


class NativeEngine:
    """A width by the kernels in C.

    Attributes:
        name: "native", and the instruction set.
    """

    def __init__(self, arrays: NetworkArrays, kernels: Library) -> None:
        self.name = f"native ({kernels.instructions})"
        self._network = Network(arrays, kernels)

    def wake(self) -> None:
        """As `Engine.wake`."""
        self._network.wake()

    def embed(self, images: Tensor) -> Tensor:
        """As `Engine.embed`."""
        # Behind a rest, a call of torch takes as long as a block: of NumPy, half of that.
        embeddings = np.empty((len(images), self._network.embedding_dim), np.float32)
        self._network.embed_at(images.data_ptr(), len(images), embeddings.ctypes.data)
        return torch.from_numpy(embeddings)


def native_engine(packed: PackedWidth) -> NativeEngine | None:
    """What computes the width by the kernels; None if they are not there, or cannot compute it."""
    arrays = network_arrays(packed)
    if arrays is None or refusal(arrays) or (kernels := library()) is None:
        return None
    return NativeEngine(arrays, kernels)
