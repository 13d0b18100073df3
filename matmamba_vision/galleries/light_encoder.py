"""Encodes by what a gallery keeps, without PyTorch; by the model only what it does not keep."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matmamba_retrieval import EmbeddingSpec, GalleryError
from numpy.typing import NDArray

from ..native import Network, NetworkFileError, from_bytes, library
from ..native.compiled import threads
from ..processor import processor_name
from .image_queries import Images, WidthEncoder, require_prepared
from .light_files import (
    KINDS,
    NATIVE,
    ONNX_INT8,
    LightFileError,
    LightHeader,
    light_files,
    read_header,
    read_light,
)

log = logging.getLogger(__name__)
BATCH = 256
# What an ONNX graph of ours takes and gives.
INPUT, OUTPUT = "images", "embeddings"


class Computes(Protocol):
    """Computes one width."""

    def embed(self, images: Images) -> NDArray[np.float32]:
        """(n, D) embeddings of length 1 of images (n, C, S, S)."""
        ...


class OnnxWidth:
    """A width as a graph in ONNX Runtime, on as many threads as everything else here.

    Args:
        content: the graph.

    Raises:
        ImportError: ONNX Runtime is not there.
        LightFileError: it does not take the graph.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        # Its own errors derive from nothing else.
        except Exception as error:
            version = onnxruntime.__version__
            raise LightFileError(f"ONNX Runtime {version} does not take the graph: {error}") from error

    def embed(self, images: Images) -> NDArray[np.float32]:
        """(n, D) embeddings of length 1 of images (n, C, S, S)."""
        (found,) = self._session.run([OUTPUT], {INPUT: images})
        return np.asarray(found, np.float32)


def computed_by(kind: str, content: bytes) -> Computes | None:
    """What computes an encoder of a kind here; None where the kernels, or ONNX Runtime, are missing.

    Raises:
        LightFileError: it is not such an encoder.
    """
    if kind == NATIVE:
        kernels = library()
        return None if kernels is None else Network(from_bytes(content), kernels)
    try:
        return OnnxWidth(content)
    except ImportError:
        return None


def named(kind: str) -> str:
    """What an answer calls that which computes a kind."""
    kernels = library() if kind == NATIVE else None
    return f"{kind} ({kernels.instructions})" if kernels else kind


@cache
def this_machine() -> str:
    """What timings depend on: the processor and how many cores there are."""
    return f"{processor_name()}, {platform.machine()}, {os.cpu_count()} cores"


@dataclass(frozen=True)
class LightWidth:
    """An encoder of a gallery, ready to compute."""

    header: LightHeader
    computes: Computes


class LightEncoder:
    """Encodes by a gallery's own encoders; what is missing or damaged, by the model, and makes it again.

    Args:
        gallery: its folder.
        spec: what made its vectors.
        model: loads the model's encoder; called when it is needed, once.
        restore: makes the encoder of a width again from the model; called where one is missing.
    """

    def __init__(
        self,
        gallery: Path,
        spec: EmbeddingSpec,
        model: Callable[[], WidthEncoder],
        restore: Callable[[str], None],
    ) -> None:
        self._gallery, self._spec, self._model, self._restore = gallery, spec, model, restore
        self._files = _by_width(gallery, spec)
        self._ready: dict[str, LightWidth | None] = {}
        self._getting = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def input(self) -> dict[str, Any]:
        """The model's data configuration, as any of the encoders knows it."""
        return dict(self._any.input)

    def input_of(self, width: str) -> dict[str, Any]:
        """The same for all widths."""
        return self.input

    @property
    def widths(self) -> tuple[str, ...]:
        """Labels of the widths that are kept, the most expensive first."""
        return tuple(sorted(self._files, key=lambda width: (width != "full", -self.macs(width))))

    @property
    def _any(self) -> LightHeader:
        return next(iter(self._files.values()))[0][0]

    def spec(self, width: str = "full") -> EmbeddingSpec:
        """What embeddings of a width are made of, at full length."""
        return EmbeddingSpec(self._spec.checkpoint, self.label(width), self._spec.dim, self._spec.transform)

    def label(self, width: str) -> str:
        """The label of a width that a user names; "" is the smallest trained one."""
        wanted = width or self._any.trained_widths[-1]
        known = (*self._any.trained_widths, *self._files)
        return wanted if wanted in known else self._model().label(wanted)

    def macs(self, width: str) -> float:
        """Multiply-adds for one image."""
        files = self._files.get(self.label(width))
        return files[0][0].macs if files else self._model().macs(width)

    def encoded_by(self, width: str) -> str:
        """What computes a width."""
        light = self._light(self.label(width))
        return named(light.header.kind) if light else self._model().encoded_by(width)

    def embed(self, images: Images, width: str = "full") -> NDArray[np.float32]:
        """(n, D) float32 embeddings of length 1 of prepared images, in batches of bounded size.

        Raises:
            GalleryError: images of another shape than the model takes.
            WidthError: no such width.
        """
        light = self._light(self.label(width))
        if light is None:
            return self._model().embed(images, width)
        require_prepared(images.shape, tuple(light.header.input["input_size"]))
        parts = [light.computes.embed(images[at : at + BATCH]) for at in range(0, len(images), BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, light.header.dim), np.float32)

    def _light(self, width: str) -> LightWidth | None:
        with self._getting:
            if width not in self._ready:
                self._ready[width] = self._best(width)
                if self._ready[width] is None:
                    self._restore(width)
            return self._ready[width]

    def _best(self, width: str) -> LightWidth | None:
        """The fastest that computes here, by what was measured here; by kind where nothing was.

        One that loses precision is taken where there is no other.
        """
        files = self._files.get(width, [])
        here = all(header.machine == this_machine() for header, _ in files)

        def rank(header: LightHeader) -> tuple[bool, float]:
            return header.kind == ONNX_INT8, header.ms if here else KINDS.index(header.kind)

        for _, file in sorted(files, key=lambda one: rank(one[0])):
            try:
                header, content = read_light(file)
                computes = computed_by(header.kind, content)
            except (LightFileError, NetworkFileError) as error:
                log.warning("%s; the model itself is taken instead", error)
                continue
            if computes is not None:
                return LightWidth(header, computes)
        return None


def _by_width(gallery: Path, spec: EmbeddingSpec) -> dict[str, list[tuple[LightHeader, Path]]]:
    """The gallery's encoders that are of its model, by width."""
    found: dict[str, list[tuple[LightHeader, Path]]] = {}
    for file in light_files(gallery, spec.checkpoint):
        try:
            header = read_header(file)
            spec.require(header.spec, str(file))
        except GalleryError as error:
            log.warning("%s; the model itself is taken instead", error)
            continue
        found.setdefault(header.width, []).append((header, file))
    return found
