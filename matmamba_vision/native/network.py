"""A frozen width for the kernels: arrays in the layout that they read, and one call for a batch of images."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import (
    MOST_TAPS,
    PANEL,
    ROUND,
    SIZES,
    BlockStruct,
    EndingStruct,
    Library,
    Memory,
    OwnMemory,
    PatchesStruct,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# A sequence of up to so many times N tokens looks back at all of them: it costs less than a state of N rows.
_SHORT = 4
# Tokens of a chunk where there is a state.
_CHUNK = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class MixerArrays:
    """A block: LayerNorm without weights, and a Mamba2 mixer of one group. Sizes as in `frozen.packed`.

    Attributes:
        rows: (L,) the row of the stream that stands at each place of the scan.
        project: (2 I + 2 N + H, D) rows of z, x, B, C and dt.
        project_bias: (2 I + 2 N + H,)
        conv: (I + 2 N, K) taps for x, B and C.
        conv_bias: (I + 2 N,)
        rates: (H,) negative.
        skip: (H,)
        out: (D, I)
        out_bias: (D,), or None.
        heads: H.
        head_dim: P.
        state: N.
        norm_epsilon: of the LayerNorm.
        gate_epsilon: of the gated norm.
    """

    rows: Ints
    project: Floats
    project_bias: Floats
    conv: Floats
    conv_bias: Floats
    rates: Floats
    skip: Floats
    out: Floats
    out_bias: Floats | None
    heads: int
    head_dim: int
    state: int
    norm_epsilon: float
    gate_epsilon: float


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkArrays:
    """All of a width. The rows of the stream are the patches in raster order, then the other tokens.

    Attributes:
        channels: of an image.
        image_size: height and width in pixels.
        patch_size: height and width in pixels.
        patch: (D, channels p_h p_w) pixels in the order channel, row, column.
        positions: (L, D) what each row has before its patch is added.
        mixers: the blocks, first to last.
        norm: (D,) weight of the last LayerNorm.
        norm_bias: (D,)
        norm_epsilon: of it.
        pooled: rows whose mean is the embedding.
        projection: (E, D), or None.
        projection_bias: (E,), or None.
    """

    channels: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    patch: Floats
    positions: Floats
    mixers: tuple[MixerArrays, ...]
    norm: Floats
    norm_bias: Floats
    norm_epsilon: float
    pooled: Ints
    projection: Floats | None
    projection_bias: Floats | None

    @property
    def embedding_dim(self) -> int:
        """E, or D where there is no projection."""
        return len(self.norm) if self.projection is None else len(self.projection)


def refusal(arrays: NetworkArrays) -> str | None:
    """Why the kernels cannot compute a width, or None."""
    if len(arrays.norm) % ROUND:
        return f"they take an embed_dim that is a multiple of {ROUND}, not {len(arrays.norm)}"
    for mixer in arrays.mixers:
        for name in ("head_dim", "state"):
            if getattr(mixer, name) % ROUND:
                return f"they take a {name} that is a multiple of {ROUND}, not {getattr(mixer, name)}"
        if mixer.conv.shape[1] > MOST_TAPS:
            return f"they take up to {MOST_TAPS} taps of a convolution, not {mixer.conv.shape[1]}"
    return None if arrays.mixers else "there is no block"


class Network:
    """Computes embeddings by the kernels; any number of threads may call it at once.

    Args:
        arrays: what it computes; `refusal` says whether it can.
        library: the kernels.
    """

    def __init__(self, arrays: NetworkArrays, library: Library) -> None:
        self.embedding_dim, self._library, self._own = arrays.embedding_dim, library, OwnMemory()
        self._held: list[NDArray[Any]] = []
        self._shape = (arrays.channels, *arrays.image_size)
        blocks = [self._block(mixer, 0) for mixer in arrays.mixers[:-1]]
        blocks.append(self._block(arrays.mixers[-1], _first_asked(arrays)))
        patches, ending = self._patches_of(arrays), self._ending_of(arrays)
        self._network = (
            ctypes.byref(patches), (BlockStruct * len(blocks))(*blocks), len(blocks), ctypes.byref(ending)
        )  # fmt: skip
        self._largest = _largest(blocks)
        self._most_pixels = arrays.patch.shape[1] * _patches(arrays)

    def embed(self, images: Floats) -> Floats:
        """(B, E) embeddings of length 1 of images (B, C, S, S)."""
        assert images.shape[1:] == self._shape, images.shape
        images = np.ascontiguousarray(images, np.float32)
        embeddings = np.empty((len(images), self.embedding_dim), np.float32)
        self.embed_at(images.ctypes.data, len(images), embeddings.ctypes.data)
        return embeddings

    def embed_at(self, images: int, count: int, embeddings: int) -> None:
        """As `embed`, from an address of contiguous images to one for their embeddings."""
        self._library.run(self._memory(), *self._network, images, count, embeddings)

    def wake(self) -> None:
        """Say that this thread will ask for embeddings at once."""
        self._library.pool().wake()

    def _memory(self) -> Memory:
        pool, known = self._library.pool(), self._own.known
        if pool not in known:
            known[pool] = self._library.memory(self._largest, self._most_pixels)
        return known[pool]

    def _block(self, mixer: MixerArrays, first_row: int) -> BlockStruct:
        inner, length = mixer.heads * mixer.head_dim, len(mixer.rows)
        z, x, shared = np.split(mixer.project, [inner, 2 * inner])
        z_bias, x_bias, shared_bias = np.split(mixer.project_bias, [inner, 2 * inner])
        bias = np.zeros(mixer.out.shape[0], np.float32) if mixer.out_bias is None else mixer.out_bias
        return BlockStruct(
            length=length, dim=mixer.out.shape[0], heads=mixer.heads, head_dim=mixer.head_dim,
            state=mixer.state, taps=mixer.conv.shape[1], first_row=first_row,
            chunk=length if length <= _SHORT * mixer.state else _CHUNK,
            norm_epsilon=mixer.norm_epsilon, gate_epsilon=mixer.gate_epsilon,
            project=self._hold(_panels(x, z, shared)),
            project_bias=self._hold(_padded(x_bias, z_bias, shared_bias)),
            conv=self._hold(mixer.conv.T), conv_bias=self._hold(mixer.conv_bias),
            rates=self._hold(_padded(mixer.rates)), skip=self._hold(_padded(mixer.skip)),
            out=self._hold(_panels(mixer.out)), out_bias=self._hold(_padded(bias)),
            order=self._hold(mixer.rows),
        )  # fmt: skip

    def _patches_of(self, arrays: NetworkArrays) -> PatchesStruct:
        (height, width), (patch_height, patch_width) = arrays.image_size, arrays.patch_size
        length, dim = arrays.positions.shape
        return PatchesStruct(
            channels=arrays.channels, height=height, width=width, patch_height=patch_height,
            patch_width=patch_width, dim=dim, length=length,
            weight=self._hold(_panels(arrays.patch)), positions=self._hold(arrays.positions),
        )  # fmt: skip

    def _ending_of(self, arrays: NetworkArrays) -> EndingStruct:
        length, dim = arrays.positions.shape
        ending = EndingStruct(
            dim=dim, length=length, pooled=len(arrays.pooled), embedding_dim=self.embedding_dim,
            epsilon=arrays.norm_epsilon, rows=self._hold(arrays.pooled),
            weight=self._hold(arrays.norm), bias=self._hold(arrays.norm_bias),
        )  # fmt: skip
        if arrays.projection is not None and arrays.projection_bias is not None:
            ending.projection = self._hold(_panels(arrays.projection))
            ending.projection_bias = self._hold(_padded(arrays.projection_bias))
        return ending

    def _hold(self, array: NDArray[Any]) -> int:
        """The address of a contiguous copy that lives as long as the network."""
        own = np.ascontiguousarray(array)
        self._held.append(own)
        return int(own.ctypes.data)


def _first_asked(arrays: NetworkArrays) -> int:
    """The place of the last block's scan from which on somebody reads its outputs."""
    places = np.argsort(arrays.mixers[-1].rows)
    return int(places[arrays.pooled].min())


def _patches(arrays: NetworkArrays) -> int:
    """How many patches an image has."""
    (height, width), (patch_height, patch_width) = arrays.image_size, arrays.patch_size
    return (height // patch_height) * (width // patch_width)


def _largest(blocks: Sequence[BlockStruct]) -> BlockStruct:
    """A block that is as large as any in each size."""
    largest = BlockStruct()
    for name in SIZES.split():
        setattr(largest, name, max(getattr(block, name) for block in blocks))
    return largest


def _panels(*matrices: Floats) -> Floats:
    """Matrices (E, D) as panels of rows, transposed and filled up with zeros: [panel][D][PANEL], flat."""
    parts = []
    for matrix in matrices:
        filled = np.zeros((-(-len(matrix) // PANEL) * PANEL, matrix.shape[1]), np.float32)
        filled[: len(matrix)] = matrix
        parts.append(filled.reshape(-1, PANEL, matrix.shape[1]).transpose(0, 2, 1).ravel())
    return np.concatenate(parts)


def _padded(*vectors: Floats) -> Floats:
    """Vectors one after the other, each filled up with zeros to whole panels."""
    return np.concatenate([np.pad(vector, (0, -len(vector) % PANEL)) for vector in vectors])
