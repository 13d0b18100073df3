"""Query images for a strategy: encoded at each width when first asked for, by whatever encodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from matmamba_datasets import eval_transform
from matmamba_retrieval import EmbeddingSpec, Encoded, GalleryError
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from matmamba_datasets.transforms import Transform
    from torch import Tensor

Images = NDArray[np.float32]
# Prepared images (n, C, S, S).
PreparedImages: TypeAlias = "Tensor | NDArray[np.float32]"


class WidthEncoder(Protocol):
    """What turns prepared images into embeddings at any width of a model."""

    @property
    def widths(self) -> tuple[str, ...]:
        """Labels of the widths that are at hand, "full" first where it is."""
        ...

    def spec(self, width: str = "full") -> EmbeddingSpec:
        """What embeddings of a width are made of, at full length."""
        ...

    def macs(self, width: str) -> float:
        """Multiply-adds for one image."""
        ...

    def label(self, width: str) -> str:
        """The label of a width that a user names; "" is the smallest trained one."""
        ...

    def encoded_by(self, width: str) -> str:
        """What computes a width."""
        ...

    def input_of(self, width: str) -> Mapping[str, Any]:
        """How a width wants its images prepared, as a data configuration of timm's."""
        ...

    def embed(self, images: Images, width: str = "full") -> NDArray[np.float32]:
        """(n, D) float32 embeddings of length 1 of prepared images (n, C, S, S)."""
        ...


def require_prepared(shape: tuple[int, ...], wanted: tuple[int, int, int]) -> None:
    """Raise `GalleryError` unless images are (n, C, S, S) as a model takes them, `wanted` being (C, S, S)."""
    if len(shape) != 4:
        raise GalleryError(f"images have shape {tuple(shape)}, not (n, C, S, S)")
    names = ("channels", "pixels of height", "pixels of width")
    for name, found, needed in zip(names, shape[1:], wanted, strict=True):
        if found != needed:
            raise GalleryError(f"query has {found} {name}, the model takes {needed}")


class Originals:
    """Images as they were decoded, for widths that want them prepared in different ways.

    Args:
        images: upright RGB.
        transform_of: how the images of a width are prepared.
    """

    def __init__(self, images: Sequence[Image.Image], transform_of: Callable[[str], Transform]) -> None:
        self._images, self._transform_of = images, transform_of
        self._prepared: dict[Transform, Images] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, which: NDArray[np.int64]) -> Originals:
        taken = Originals([self._images[place] for place in which], self._transform_of)
        taken._prepared = {transform: known[which] for transform, known in self._prepared.items()}
        return taken

    def at(self, width: str) -> Images:
        """(n, C, S, S) as a width wants them, made of the originals when first asked for."""
        transform = self._transform_of(width)
        if transform not in self._prepared:
            self._prepared[transform] = np.stack([transform.array(image) for image in self._images])
        return self._prepared[transform]


class ImageQueries:
    """Query images; each width is encoded once, and its time is remembered.

    Args:
        encoder: of all widths.
        images: prepared in the one way that all widths want, or originals.

    Attributes:
        encoded_by: what computed each width that was asked for, of some of them too.
    """

    def __init__(self, encoder: WidthEncoder, images: Images | Originals) -> None:
        self._encoder, self._images = encoder, images
        self._encoded: dict[str, Encoded] = {}
        self.encoded_by: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._images)

    def encode(self, width: str) -> Encoded:
        """Embeddings at a width, with their multiply-adds and milliseconds per query."""
        if width not in self._encoded:
            images = self._images.at(width) if isinstance(self._images, Originals) else self._images
            start = time.perf_counter()
            xq = self._encoder.embed(images, width)
            ms = 1e3 * (time.perf_counter() - start) / max(1, len(xq))
            self._encoded[width] = Encoded(xq, self._encoder.macs(width), ms)
            self.encoded_by[width] = self._encoder.encoded_by(width)
        return self._encoded[width]

    def take(self, which: NDArray[np.int64]) -> ImageQueries:
        """Some of them, by position; widths that were encoded already are not encoded again."""
        taken = ImageQueries(self._encoder, self._images[which])
        taken.encoded_by = self.encoded_by
        taken._encoded = {
            width: Encoded(known.xq[which], known.macs, known.ms) for width, known in self._encoded.items()
        }
        return taken


@dataclass(frozen=True)
class QueryEncoder:
    """What encodes queries: loaded once, for all threads.

    Attributes:
        encoder: of any width.
        read: makes of an image what is kept of it: prepared, or as it is where widths want it differently.
        queries: makes queries of what was kept.
    """

    encoder: WidthEncoder
    read: Callable[[Image.Image], Any]
    queries: Callable[[Sequence[Any]], ImageQueries]

    @staticmethod
    def preparing(encoder: WidthEncoder, input: Mapping[str, Any]) -> QueryEncoder:
        """One whose widths all want images prepared in one way."""
        transform = eval_transform(input).array
        return QueryEncoder(encoder, transform, lambda images: ImageQueries(encoder, np.stack(images)))
