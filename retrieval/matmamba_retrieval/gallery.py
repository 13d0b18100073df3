"""The gallery: a folder of vectors that loses nothing that was committed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import faiss
import numpy as np
from numpy.typing import NDArray

from .catalog import Catalog, Row
from .errors import GalleryError
from .segments import Segments, write_segment
from .shortlist import build_index, load_index, save_index, search_index
from .spec import EmbeddingSpec

CATALOG, SEGMENTS, SHORTLIST = "catalog.sqlite", "segments", "shortlist"
# A stored vector may differ from unit length by this much: float16 rounding and room for other encoders.
UNIT_TOLERANCE = 1e-2


class Gallery:
    """Indexed images: a catalogue, immutable segments of float16 vectors, FAISS indexes over prefixes.

    Attributes:
        folder: where it is. spec: what made its vectors. checkpoint_path: where the checkpoint was.

    Raises:
        GalleryError: no gallery there, or its files are damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._catalog = Catalog(self.folder / CATALOG)
        self.spec, self.checkpoint_path = self._catalog.spec, self._catalog.checkpoint_path
        self._segments = Segments(self.folder / SEGMENTS, self._catalog.segments(), self.spec.dim)
        self._segments.require_sizes()
        self._indexes: dict[int, faiss.Index] = {}

    @staticmethod
    def create(folder: Path | str, spec: EmbeddingSpec, checkpoint_path: str = "") -> Gallery:
        """A new, empty gallery; `GalleryError` if the folder holds anything."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise GalleryError(f"{folder} exists and is not a gallery: choose another place")
        folder.mkdir(parents=True, exist_ok=True)
        Catalog.create(folder / CATALOG, spec, checkpoint_path).close()
        return Gallery(folder)

    @staticmethod
    def open_or_create(folder: Path | str, spec: EmbeddingSpec, checkpoint_path: str = "") -> Gallery:
        """The gallery in a folder, made if there is none; `GalleryError` if another checkpoint made it."""
        if not Gallery.exists(folder):
            return Gallery.create(folder, spec, checkpoint_path)
        gallery = Gallery(folder)
        gallery.require(spec)
        return gallery

    def require(self, spec: EmbeddingSpec) -> None:
        """Raise `GalleryError` if embeddings of `spec` cannot be compared with those stored here."""
        self.spec.require(spec, f"{self.folder}, made with {self.checkpoint_path or 'another model'},")

    @staticmethod
    def exists(folder: Path | str) -> bool:
        """Whether there is a gallery in this folder."""
        return (Path(folder) / CATALOG).is_file()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release its files."""
        self._catalog.close()

    def __len__(self) -> int:
        return len(self._segments)

    def add(self, rows: Sequence[Row], xb: NDArray[np.floating]) -> None:
        """Add images with their vectors, all of them or none; they are on the disk when this returns.

        Args:
            rows: ids must be new. xb: (n, D) L2-normalised vectors of the gallery's spec, stored as float16.

        Raises:
            GalleryError: an id is not new, or vectors of the wrong shape, not finite or not normalised.
        """
        self._check(rows, xb)
        if len(rows):
            name, sha256 = write_segment(self.folder / SEGMENTS, xb)
            try:
                self._catalog.add(rows, name, sha256)
            except BaseException:
                (self.folder / SEGMENTS / name).unlink(missing_ok=True)
                raise
            self._segments.refresh(self._catalog.segments())

    def _check(self, rows: Sequence[Row], xb: NDArray[np.floating]) -> None:
        if xb.shape != (len(rows), self.spec.dim):
            raise GalleryError(f"vectors have shape {xb.shape}, not {(len(rows), self.spec.dim)}")
        lengths = np.linalg.norm(xb.astype(np.float32), axis=1)
        # Written so that NaN counts as bad.
        bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if len(bad):
            raise GalleryError(f"vector of {rows[bad[0]].id!r} has length {lengths[bad[0]]}, not 1")

    def paths_of(self, ids: Iterable[str]) -> dict[str, str]:
        """Path by id, of those ids that the gallery has."""
        return self._catalog.paths_of(ids)

    def rows(self, keys: Iterable[int]) -> list[Row]:
        """The images with these keys, in this order."""
        return self._catalog.rows(keys)

    def labels(self) -> list[str | None]:
        """Labels of all images, by key."""
        return self._catalog.labels()

    @property
    def segments(self) -> Segments:
        """The vectors, by key."""
        return self._segments

    def shortlist_dims(self) -> list[int]:
        """Dims of the prefixes that have an index, ascending."""
        return self._catalog.shortlist_dims()

    def build_shortlist(self, dim: int, factory: str = "") -> None:
        """Build and save the FAISS index over the leading `dim` coordinates of all images.

        Args:
            factory: FAISS factory string; by default that of the index it replaces, else "Flat".

        Raises:
            GalleryError: `dim` is not in 1..D, the gallery is empty, or FAISS refuses `factory`.
        """
        if not 1 <= dim <= self.spec.dim:
            raise GalleryError(f"shortlist dim {dim} is not in 1..{self.spec.dim}")
        self._segments.refresh(self._catalog.segments())
        if not len(self):
            raise GalleryError(f"{self.folder} is empty")
        old = self._catalog.shortlist(dim)
        factory = factory or (old.factory if old else "Flat")
        index = build_index(self._segments, len(self), dim, factory)
        save_index(self._catalog, self.folder / SHORTLIST, index, dim, factory)
        self._indexes[dim] = index

    def search_shortlist(self, xq: NDArray[np.float32], shortlist: int) -> NDArray[np.int64]:
        """(nq, K) keys whose prefixes are nearest to (nq, dim) normalised ones, by the index over that dim.

        Raises:
            GalleryError: no index over that dim.
        """
        return search_index(self._index(xq.shape[1]), self._segments, xq, shortlist)

    def _index(self, dim: int) -> faiss.Index:
        if dim not in self._indexes:
            record = self._catalog.shortlist(dim)
            if record is None:
                built = ", ".join(map(str, self.shortlist_dims())) or "none"
                raise GalleryError(f"{self.folder} has no shortlist index over {dim} dims (built: {built})")
            # Since we opened the gallery, another process may have added images and built this index.
            self._segments.refresh(self._catalog.segments())
            self._indexes[dim] = load_index(self._catalog, self.folder / SHORTLIST, record, self._segments)
        return self._indexes[dim]
