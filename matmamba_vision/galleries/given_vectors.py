"""Query vectors that were made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matmamba_retrieval import EmbeddingSpec, GalleryError, Row
from matmamba_retrieval.exchange.vector_files import VectorFile, checked, elsewhere, open_vectors
from matmamba_retrieval.storage.spec import made_elsewhere
from matmamba_retrieval.strategies.searchable import Searchable
from numpy.typing import NDArray

from ..encoders import place_of


def spec_of(file: VectorFile, model_name: str, gallery: Searchable) -> EmbeddingSpec:
    """What made the vectors of a file: the gallery's encoder, if that is its name."""
    if model_name and place_of(model_name) == gallery.checkpoint_path:
        return replace(gallery.spec, dim=file.dim)
    return elsewhere(file, model_name)


@dataclass
class GivenVectors:
    """A file of query vectors, and of which model they are.

    Attributes:
        vectors: a NumPy file (n, D), or a Parquet file with columns id and vector.
        model_name: of the model that made them, as the gallery was told.
        normalise: whether to bring them to length 1; else they must have it.
    """

    # The comments are the help of the flags.
    # Instead of images: query vectors made elsewhere, a NumPy file (n, D), or a Parquet file with columns id
    # and vector.
    vectors: Path | None = None
    # Of vectors: name of the model that made them, as the gallery was told.
    model_name: str = ""
    # Of vectors: bring them to length 1; else they must have it.
    normalise: bool = False

    def opened(self, gallery: Searchable) -> VectorFile:
        """The file, to be read in parts.

        Args:
            gallery: that is to be asked.

        Raises:
            GalleryError: no such file, or vectors of another model than the gallery's.
        """
        if self.vectors is None:
            raise GalleryError("no file of vectors was named")
        opened = open_vectors(self.vectors)
        if made_elsewhere(gallery.spec) and not self.model_name:
            raise GalleryError(f"say which model made {self.vectors}, as the gallery was told: model_name")
        gallery.require_queries(spec_of(opened, self.model_name, gallery))
        return opened

    def parts(self, opened: VectorFile) -> Iterator[tuple[list[Row], NDArray[np.float32]]]:
        """What is known of the query vectors, and these (n, D), in parts of bounded size.

        Args:
            opened: the file.

        Raises:
            GalleryError: vectors that are not of length 1.
        """
        for rows, xq in opened.parts(range(len(opened))):
            yield rows, checked(opened.file, rows, xq, normalise=self.normalise)

    def some(self, gallery: Searchable, most: int, seed: int) -> tuple[NDArray[np.float32], list[str | None]]:
        """Vectors (n, D) picked by chance, all if there are no more than `most`, and their labels.

        Args:
            gallery: that is to be asked.
            most: how many are picked at most.
            seed: of the choice.

        Raises:
            GalleryError: as `opened` and `parts`.
        """
        opened, start = self.opened(gallery), 0
        chosen = np.sort(np.random.default_rng(seed).permutation(len(opened))[:most])
        picked: list[NDArray[np.float32]] = []
        labels: list[str | None] = []
        for rows, xq in self.parts(opened):
            here = chosen[(chosen >= start) & (chosen < start + len(rows))] - start
            picked.append(xq[here])
            labels += [rows[place].label for place in here]
            start += len(rows)
        return np.concatenate(picked), labels
