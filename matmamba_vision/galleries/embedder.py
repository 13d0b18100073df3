"""Images to embeddings: how a model answers what galleries and strategies ask of an encoder."""

from __future__ import annotations

import hashlib
import json
import threading
import time

import numpy as np
import torch
from matmamba_retrieval import EmbeddingSpec, Encoded, GalleryError
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import Checkpoint
from ..frozen import FrozenWidth, freeze
from ..measures import count_macs
from ..models import MatMamba

BATCH = 256


class Embedder:
    """Encodes images at any width of a checkpoint's model, each frozen when it is first asked for.

    Attributes:
        model: in evaluation mode.
        digest: of the checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model: MatMamba = checkpoint.model
        self.digest = checkpoint.digest
        self._frozen: dict[str, FrozenWidth] = {}
        self._freezing = threading.Lock()

    def frozen(self, width: str = "full") -> FrozenWidth:
        """What encodes at a width, made now if it was not.

        Raises:
            WidthError: no such width.
        """
        with self._freezing:
            if width not in self._frozen:
                self._frozen[width] = freeze(self.model, width)
            return self._frozen[width]

    def spec(self, width: str = "full") -> EmbeddingSpec:
        """What embeddings of a width are made of, at full length."""
        described = json.dumps(self.model.input, sort_keys=True, default=str)
        transform = hashlib.sha256(described.encode()).hexdigest()
        return EmbeddingSpec(self.digest, self.model.label(width), self.model.embedding_dim, transform)

    def macs(self, width: str) -> float:
        """Multiply-adds for one image."""
        return count_macs(self.model, width)

    @torch.inference_mode()
    def embed(self, images: Tensor, width: str = "full") -> NDArray[np.float32]:
        """(n, D) float32 L2-normalised embeddings of (n, C, S, S) images, in batches of bounded size.

        Raises:
            GalleryError: images of another shape than the model takes.
            WidthError: no such width.
        """
        self._check(images)
        frozen, device = self.frozen(width), self.model.pos_embed.device
        batches = [frozen.embed(batch.to(device)).cpu() for batch in images.split(BATCH)]
        return torch.cat(batches).numpy()

    def queries(self, images: Tensor) -> ImageQueries:
        """Query images for a strategy, encoded at each width when first asked for."""
        self._check(images)
        return ImageQueries(self, images)

    def _check(self, images: Tensor) -> None:
        wanted = (self.model.in_chans, *self.model.patch_embed.img_size)
        names = ("channels", "pixels of height", "pixels of width")
        if images.dim() != 4:
            raise GalleryError(f"images have shape {tuple(images.shape)}, not (n, C, S, S)")
        for name, found, needed in zip(names, images.shape[1:], wanted, strict=True):
            if found != needed:
                raise GalleryError(f"query has {found} {name}, the model takes {needed}")


class ImageQueries:
    """Query images; each width is encoded once, and its time is remembered."""

    def __init__(self, embedder: Embedder, images: Tensor) -> None:
        self._embedder, self._images = embedder, images
        self._encoded: dict[str, Encoded] = {}

    def __len__(self) -> int:
        return len(self._images)

    def encode(self, width: str) -> Encoded:
        """Embeddings at a width, with their multiply-adds and milliseconds per query."""
        if width not in self._encoded:
            start = time.perf_counter()
            xq = self._embedder.embed(self._images, width)
            ms = 1e3 * (time.perf_counter() - start) / max(1, len(xq))
            self._encoded[width] = Encoded(xq, self._embedder.macs(width), ms)
        return self._encoded[width]

    def take(self, which: NDArray[np.int64]) -> ImageQueries:
        """Some of them, by position; widths that were encoded already are not encoded again."""
        taken = ImageQueries(self._embedder, self._images[torch.from_numpy(which)])
        taken._encoded = {
            width: Encoded(known.xq[which], known.macs, known.ms) for width, known in self._encoded.items()
        }
        return taken
