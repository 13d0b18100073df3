"""Changes of a served gallery: by a handle of their own, so that who reads is not disturbed."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matmamba_common.settings import require

from ..errors import ConfigError
from ..galleries.gallery_model import ModelLike
from ..galleries.given_images import ImageLike
from ..upkeep.image_gallery import ImageGallery


class Writer:
    """Adds and deletes, one change after the other; what encodes is loaded at the first.

    Args:
        folder: of the gallery.
        model: what made it, None for the one that it names.
        device: that encodes.
    """

    def __init__(self, folder: Path, model: ModelLike | None, device: str) -> None:
        self._folder, self._model, self._device = folder, model, device
        self._opened: ImageGallery | None = None
        self._changing = threading.Lock()

    def add(
        self,
        images: Sequence[ImageLike],
        ids: Sequence[str],
        labels: Sequence[str | None] | None,
        metadata: Sequence[Mapping[str, Any]] | None,
        upsert: bool,
    ) -> None:
        """Add images.

        Args:
            images: of a kind that `index` takes.
            ids: one each.
            labels: one each, None for an image without; None for none.
            metadata: one each, JSON objects; None for none.
            upsert: images that are there are replaced, instead of an error.

        Raises:
            MatMambaError: an image that cannot be read, an id that is there; nothing was added then.
        """
        known = [] if metadata is None else _described(ids, metadata)
        with self._changing, tempfile.TemporaryDirectory() as place:
            opened, file = self._writable(), None
            if known:
                file = Path(place) / "metadata.jsonl"
                file.write_text("\n".join(known), encoding="utf-8")
            opened.refresh()
            if not upsert:
                _require_new(opened, ids)
            opened.add(images, ids=ids, labels=labels, metadata=file, upsert=upsert, max_broken=0.0)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete images, all of them or none; how many.

        Raises:
            MatMambaError: an id that is not there.
        """
        with self._changing:
            return self._writable().delete(ids)

    def close(self) -> None:
        """Release what it has opened."""
        with self._changing:
            if self._opened is not None:
                self._opened.close()

    def _writable(self) -> ImageGallery:
        if self._opened is None:
            self._opened = ImageGallery.open(self._folder, model=self._model, write=True, device=self._device)
        return self._opened


def _described(ids: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of JSON: what is known of each image, with its id; only of those of which something is known."""
    require("metadata", metadata, Sequence[Mapping[str, Any]])
    if len(metadata) != len(ids):
        raise ConfigError(f"metadata has {len(metadata)} objects for {len(ids)} images")
    pairs = zip(ids, metadata, strict=True)
    return [
        _line(f"metadata[{place}]", {**known, "id": one}) for place, (one, known) in enumerate(pairs) if known
    ]


def _line(name: str, known: Mapping[str, Any]) -> str:
    try:
        return json.dumps(known, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is no JSON: {error}") from error


def _require_new(opened: ImageGallery, ids: Sequence[str]) -> None:
    with opened.reading() as gallery:
        there = next(iter(gallery.keys_of(ids)), None)
    if there is not None:
        raise ConfigError(f"{there!r} is there already: upsert replaces it")
