"""Images to embeddings: how a model answers what galleries and strategies ask of an encoder."""

from __future__ import annotations

import hashlib
import json
import threading

import numpy as np
import torch
from matmamba_retrieval import EmbeddingSpec
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import Checkpoint
from ..frozen import FrozenWidth, freeze
from ..measures import count_macs
from ..models import MatMamba
from .image_queries import ImageQueries, PreparedImages, require_prepared

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
        self._macs: dict[str, float] = {}
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
        if width not in self._macs:
            self._macs[width] = count_macs(self.model, width)
        return self._macs[width]

    def label(self, width: str) -> str:
        """The label of a width that a user names; "" is the smallest trained one."""
        return self.model.label(width or self.model.trained_widths[-1])

    def encoded_by(self, width: str) -> str:
        """What computes a width."""
        return self.frozen(width).by

    @torch.inference_mode()
    def embed(self, images: PreparedImages, width: str = "full") -> NDArray[np.float32]:
        """(n, D) float32 L2-normalised embeddings of (n, C, S, S) images, in batches of bounded size.

        Raises:
            GalleryError: images of another shape than the model takes.
            WidthError: no such width.
        """
        images = self._checked(images)
        frozen, device = self.frozen(width), self.model.pos_embed.device
        batches = [frozen.embed(batch.to(device)).cpu() for batch in images.split(BATCH)]
        return torch.cat(batches).numpy()

    def queries(self, images: PreparedImages) -> ImageQueries:
        """Query images for a strategy, encoded at each width when first asked for."""
        return ImageQueries(self, self._checked(images).numpy())

    def _checked(self, images: PreparedImages) -> Tensor:
        require_prepared(images, (self.model.in_chans, *self.model.patch_embed.img_size))
        return torch.from_numpy(images) if isinstance(images, np.ndarray) else images
