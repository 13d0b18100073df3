"""A gallery that is open: held, refreshed, changed and closed while several threads use it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from matmamba_datasets import eval_transform
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Plan, Strategy
from matmamba_retrieval.storage.spec import made_elsewhere
from numpy.typing import NDArray
from PIL import Image

from ..errors import refusals
from .gallery_model import ModelLike, embedder_at, embedder_of
from .image_queries import WidthEncoder
from .light_encoder import LightEncoder
from .light_files import NATIVE
from .sharing import Sharing
from .strategies import StrategyChoice

if TYPE_CHECKING:
    import torch

    from .embedder import Embedder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryEncoder:
    """What encodes queries: loaded once, for all threads."""

    encoder: WidthEncoder
    transform: Callable[[Image.Image], NDArray[np.float32]]


class OpenedGallery:
    """A gallery and the model that encodes for it: what others add or delete is seen after `refresh`.

    Args:
        gallery: opened for reading.
        model: see `open_gallery`.
        write: see `open_gallery`.
        device: that encodes queries.

    Attributes:
        folder: where it is.
    """

    def __init__(
        self,
        gallery: Gallery,
        *,
        model: ModelLike | None = None,
        write: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder: Path = gallery.folder
        self._gallery: Gallery | None = gallery
        self._model, self._write, self._device = model, write, device
        self._encoder: QueryEncoder | None = None
        self._loaded: Embedder | None = None
        self._chosen: dict[tuple[StrategyChoice, int], tuple[Strategy, Plan | None]] = {}
        # Who chooses an encoder may have to load the model for it.
        self._loading, self._changing, self._sharing = threading.RLock(), threading.Lock(), Sharing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release its files, once the searches that are under way have ended."""
        with self._sharing.alone():
            if self._gallery is not None:
                self._gallery.close()
            self._gallery = self._loaded = self._encoder = None

    @refusals()
    def __len__(self) -> int:
        return len(self._opened())

    def _opened(self) -> Gallery:
        if self._gallery is None:
            raise GalleryError(f"{self.folder} is closed: open it again")
        return self._gallery

    @property
    def spec(self) -> EmbeddingSpec:
        """What made its vectors: the checkpoint, and how many dims they have."""
        return self._opened().spec

    @contextmanager
    def reading(self) -> Iterator[Gallery]:
        """The vectors and rows below, for the block: nothing refreshes or closes them meanwhile.

        Raises:
            GalleryError: it is closed.
        """
        with self._sharing.shared():
            yield self._opened()

    @contextmanager
    def changing(self) -> Iterator[Path]:
        """Its folder, for a block that changes what is there; behind it, the change is seen.

        Raises:
            GalleryError: it is closed, or was opened for reading.
        """
        with self._changing:
            self._opened()
            if not self._write:
                raise GalleryError(
                    f"{self.folder} was opened for reading, nothing was changed: open it with write=True"
                )
            try:
                yield self.folder
            finally:
                self.refresh()

    @refusals()
    def refresh(self) -> None:
        """See what was added, deleted or planned since it was opened.

        Raises:
            MatMambaError: it is closed, or damaged; then what was seen before stays.
        """
        with self._sharing.alone():
            gallery = self._opened()
            spec = gallery.spec
            gallery.refresh()
            self._chosen.clear()
            if gallery.spec != spec:
                self._loaded = self._encoder = None

    def require_model(self) -> Embedder:
        """The model that encodes its images, loaded now if it was not.

        Raises:
            GalleryError: another model made the gallery.
            CheckpointError: it is missing, or vectors were made elsewhere.
            EncoderError: an encoder that cannot be had.
        """
        with self._loading:
            if self._loaded is None:
                gallery = self._opened()
                embedder = (
                    embedder_of(self.folder, gallery.generation, device=self._device)
                    if self._model is None or made_elsewhere(gallery.spec)
                    else embedder_at(self._model, self._device)
                )
                gallery.require_queries(embedder.spec())
                self._loaded = embedder
            return self._loaded

    def encoder(self) -> QueryEncoder:
        """What encodes queries: the encoders that the gallery keeps, or else its model, loaded if it was not.

        Raises:
            GalleryError: another model made the gallery.
            CheckpointError: it is missing, or vectors were made elsewhere.
        """
        with self._loading:
            if self._encoder is None:
                light = self._light()
                encoder: WidthEncoder = light or self.require_model()
                input = light.input if light else self.require_model().input
                self._encoder = QueryEncoder(encoder, eval_transform(input).array)
            return self._encoder

    def _light(self) -> LightEncoder | None:
        """The gallery's own encoders, unless a model was named, or another device than the CPU."""
        spec = self._opened().spec
        if self._model is not None or str(self._device) != "cpu" or made_elsewhere(spec):
            return None
        return LightEncoder(self.folder, spec, self.require_model, self._restore) or None

    def _restore(self, width: str) -> None:
        """Make the encoder of a width that the gallery keeps no more; it is no loss if that cannot be."""
        from .light_making import make_light

        try:
            make_light(self.folder, self.require_model(), width, NATIVE)
        except GalleryError as error:
            log.info("%s", error)
