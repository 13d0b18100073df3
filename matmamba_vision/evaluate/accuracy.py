"""Classification and embedding of a collection at some widths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..batch import LabelledBatch
from ..models import MatMamba
from ..width import WidthLike


@dataclass(frozen=True)
class Predictions:
    """What a model says about a collection at one width.

    Attributes:
        labels: (n,) true classes. classes: (n,) predicted ones. embeddings: (n, D) float32, L2-normalised.
    """

    labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    embeddings: NDArray[np.float32]

    @property
    def top1(self) -> float:
        """Share of images whose class was predicted."""
        return float((self.labels == self.classes).mean())


@torch.inference_mode()
def predict(
    model: MatMamba, batches: Iterable[LabelledBatch], widths: Sequence[WidthLike] = ("full",)
) -> list[Predictions]:
    """Predictions of each width, in evaluation mode, reading the images once."""
    was_training = model.training
    model.eval()
    labels = []
    parts: list[list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = [[] for _ in widths]
    for batch in batches:
        if len(batch):
            labels.append(batch.labels.numpy())
            images = batch.images.to(model.pos_embed.device)
            for width, part in zip(widths, parts, strict=True):
                part.append(_predict_batch(model, images, width))
    model.train(was_training)
    true = np.concatenate(labels) if labels else np.empty(0, dtype=np.int64)
    return [Predictions(true, *map(np.concatenate, zip(*part, strict=True))) for part in parts if part]


def _predict_batch(
    model: MatMamba, images: torch.Tensor, width: WidthLike
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    pooled = model.forward_head(model.forward_features(images, width), pre_logits=True)
    classes = model.get_classifier()(pooled).argmax(-1)
    return classes.cpu().numpy(), F.normalize(pooled.float(), dim=-1).cpu().numpy()
