"""A gallery that is open: held, refreshed, changed and closed while several threads use it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Plan, Strategy
from matmamba_retrieval.gallery.addresses import require_folder
from matmamba_retrieval.storage.spec import made_elsewhere
from matmamba_retrieval.strategies.engines import AnyGallery

from ..encoders import takes_text
from ..public_call import public_call
from .gallery_model import ModelLike, embedder_at, embedder_of
from .image_queries import QueryEncoder
from .light_encoder import LightEncoder
from .sharing import Sharing
from .strategies import StrategyChoice

if TYPE_CHECKING:
    import torch

    from .embedder import Embedder

log = logging.getLogger(__name__)


class OpenedGallery:
    """A gallery and the model that encodes for it: what others add or delete is seen after `refresh`.

    Args:
        gallery: opened for reading: of a folder, or pushed to an engine.
        model: see `open_gallery`.
        write: see `open_gallery`.
        device: that encodes queries.

    Attributes:
        folder: where it is.
    """

    def __init__(
        self,
        gallery: AnyGallery,
        *,
        model: ModelLike | None = None,
        write: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder: Path | str = gallery.folder
        self._gallery: AnyGallery | None = gallery
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

    @public_call
    def __len__(self) -> int:
        return len(self._opened())

    def _opened(self) -> AnyGallery:
        if self._gallery is None:
            raise GalleryError(f"{self.folder} is closed: open it again")
        return self._gallery

    @property
    def spec(self) -> EmbeddingSpec:
        """What made its vectors: the checkpoint, and how many dims they have."""
        return self._opened().spec

    @contextmanager
    def reading(self) -> Iterator[AnyGallery]:
        """The vectors and rows below, for the block: nothing refreshes or closes them meanwhile.

        Raises:
            GalleryError: it is closed.
        """
        with self._sharing.shared():
            yield self._opened()

    @contextmanager
    def reading_folder(self) -> Iterator[Gallery]:
        """The same, for what only a gallery in a folder can do.

        Raises:
            GalleryError: it is closed, or was pushed to an engine.
        """
        with self.reading() as gallery:
            require_folder(self.folder)
            assert isinstance(gallery, Gallery)
            yield gallery

    @contextmanager
    def changing(self) -> Iterator[Path]:
        """Its folder, for a block that changes what is there; behind it, the change is seen.

        Raises:
            GalleryError: it is closed, was opened for reading, or was pushed to an engine.
        """
        with self._changing:
            self._opened()
            folder = require_folder(self.folder)
            if not self._write:
                raise GalleryError(
                    f"{self.folder} was opened for reading, nothing was changed: open it with write=True"
                )
            try:
                yield folder
            finally:
                self.refresh()

    @public_call
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

    def takes_text(self) -> bool | None:
        """Whether its model has a text tower; None where that is a Python function that is not at hand."""
        # A teacher is not loaded for that.
        if self._loaded is not None and self._loaded.taught is None:
            encoder = self._loaded.encoder
            return encoder is not None and encoder.texts is not None
        return takes_text(self._opened().checkpoint_path)

    def encoder(self) -> QueryEncoder:
        """What encodes queries: the encoders that the gallery keeps, or else its model, loaded if it was not.

        Raises:
            GalleryError: another model made the gallery.
            CheckpointError: it is missing, or vectors were made elsewhere.
        """
        with self._loading:
            if self._encoder is None:
                light = self._light()
                if light is not None:
                    self._encoder = QueryEncoder.preparing(light, light.input)
                else:
                    self._encoder = _encoder_of(self.require_model())
            return self._encoder

    def _light(self) -> LightEncoder | None:
        """The gallery's own encoders, unless a model was named, or another device than the CPU."""
        spec = self._opened().spec
        named = self._model is not None or str(self._device) != "cpu" or made_elsewhere(spec)
        if named or not isinstance(self._gallery, Gallery):
            return None
        return LightEncoder(self._gallery.folder, spec, self.require_model, self._restore) or None

    def _restore(self, width: str) -> None:
        """Make the encoder of a width that the gallery keeps no more; it is no loss if that cannot be."""
        from .light_making import kinds_that_can_be, make_light

        try:
            for kind in kinds_that_can_be(self.require_model(), width)[:1]:
                make_light(require_folder(self.folder), self.require_model(), width, kind)
        except GalleryError as error:
            log.info("%s", error)


def _encoder_of(model: Embedder) -> QueryEncoder:
    if model.taught is None:
        return QueryEncoder.preparing(model, model.input)
    return QueryEncoder(model, lambda image: image, model.original_queries)
