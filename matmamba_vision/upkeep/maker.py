"""What made the vectors of a gallery: told afterwards, and compared with its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError
from matmamba_retrieval.storage.spec import made_elsewhere
from numpy.typing import NDArray

from .reencoding import Reencoder

if TYPE_CHECKING:
    from ..galleries.embedder import Embedder

# Mean cosine of images that are encoded again with their vectors, from which on they are the same encoder's:
# room for other versions of libraries, half precision, and images that were resized by another program.
SAME_ENCODER = 0.98
# The same of what tells these images from each other, their vectors less the mean. Where all images lie close
# together, other means and deviations leave a high cosine, and hardly anything of the order of the images.
SAME_DIFFERENCES = 0.95
# Of fewer images nobody knows what they share; and nearer to the mean than so, float16 rounds what is left.
_FEWEST, _NEAREST = 4, 0.02
# For each image that is to be compared so many are looked for: files may have moved.
_TRIED = 16


@dataclass(frozen=True, kw_only=True)
class EncoderSet:
    """What a gallery was told about what made its vectors.

    Attributes:
        gallery: its folder.
        encoder: by which it is opened again.
        compared: images that were encoded again and compared with their vectors.
        cosine: mean of these; None where no image could be read.
        least: the smallest of these; None where no image could be read.
    """

    gallery: Path
    encoder: str
    compared: int
    cosine: float | None = None
    least: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "gallery": str(self.gallery)}


def set_encoder(gallery: Gallery, embedder: Embedder, *, images: int, force: bool) -> EncoderSet:
    """Note with a gallery which model made its vectors; a plan for them is dropped.

    Args:
        gallery: open for writing.
        embedder: the model.
        images: so many, taken by chance among those whose files are found, are encoded and compared.
        force: whatever the comparison says, and whatever made the gallery.

    Raises:
        GalleryError: the model gives vectors of other dims; another one made the gallery; or images of the
            gallery give other vectors. Nothing was changed.
    """
    spec = embedder.spec()
    _require_fit(gallery, spec, embedder.name, force)
    stored, encoded = _compare(gallery, Reencoder(embedder), images)
    cosines = (stored * encoded).sum(1)
    mean, least = (float(cosines.mean()), float(cosines.min())) if len(cosines) else (None, None)
    differences = _differences(stored, encoded)
    before = (
        f"{embedder.name} did not make the vectors of {gallery.folder}: {len(cosines)} images encoded by it"
    )
    if mean is not None and not mean >= SAME_ENCODER and not force:
        raise GalleryError(
            f"{before} have a mean cosine of {mean:.3f} with theirs (least {least:.3f}), below {SAME_ENCODER}"
        )
    if differences is not None and not differences >= SAME_DIFFERENCES and not force:
        raise GalleryError(
            f"{before} are told apart in another way: less what all share, they have a mean cosine of"
            f" {differences:.3f} with theirs, below {SAME_DIFFERENCES}"
        )
    if gallery.spec != spec or gallery.checkpoint_path != embedder.place:
        gallery.set_maker(spec, embedder.place)
    return EncoderSet(
        gallery=gallery.folder, encoder=embedder.place, compared=len(cosines), cosine=mean, least=least
    )


def _require_fit(gallery: Gallery, spec: EmbeddingSpec, name: str, force: bool) -> None:
    if spec.dim != gallery.spec.dim:
        raise GalleryError(
            f"{name} gives vectors of {spec.dim} dims: those of {gallery.folder} have {gallery.spec.dim}"
        )
    if not (force or made_elsewhere(gallery.spec)):
        gallery.require(spec)


def _compare(
    gallery: Gallery, encode: Reencoder, images: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Stored vectors (n, D), and those of the same images now, of as many as are wanted and found."""
    keys = np.random.default_rng(0).permutation(gallery.live_keys())[: images * _TRIED]
    found: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for start in range(0, len(keys), images or 1):
        part = keys[start : start + images]
        stored = gallery.segments.read(part).astype(np.float32)
        encoded = encode(gallery.rows(part), gallery.spec.width)
        found += [(x, y) for x, y in zip(stored, encoded, strict=True) if isinstance(y, np.ndarray)]
        if len(found) >= images:
            break
    pairs = np.array(found[:images], np.float32).reshape(-1, 2, gallery.spec.dim)
    return pairs[:, 0], pairs[:, 1]


def _differences(stored: NDArray[np.float32], encoded: NDArray[np.float32]) -> float | None:
    """Mean cosine of vectors (n, D) less what the stored ones share; None where that says nothing."""
    if len(stored) < _FEWEST:
        return None
    before, now = stored - stored.mean(0), encoded - stored.mean(0)
    apart = np.linalg.norm(before, axis=1) >= _NEAREST
    if apart.sum() < _FEWEST:
        return None
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
    return float(((before * now).sum(1)[apart] / np.maximum(lengths[apart], 1e-9)).mean())
