"""Classification and embedding of a collection at some widths."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..batch import LabelledBatch
from ..errors import NotFiniteError
from ..models import MatMamba
from ..width import WidthLike

if TYPE_CHECKING:
    from torchmetrics.classification import MulticlassAccuracy


# Compared by identity: arrays have no single answer.
@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about a collection at one width; of the logits, only what is needed of each image.

    Attributes:
        labels: (n,) true classes.
        classes: (n,) predicted ones.
        embeddings: (n, D) float32, L2-normalised.
        in_top5: (n,) whether the true class is among the five likeliest.
        confidences: (n,) probability of the predicted class.
        log_likelihoods: (n,) natural logarithm of the probability of the true class.
        briers: (n,) squared error of the probabilities, summed over the classes, 0 to 2 (Brier, 1950).
    """

    labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    in_top5: NDArray[np.bool_]
    confidences: NDArray[np.float64]
    log_likelihoods: NDArray[np.float64]
    briers: NDArray[np.float64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the class was predicted."""
        return self.labels == self.classes

    @property
    def top1(self) -> float:
        """Share of images whose class was predicted."""
        return float(self.correct.mean())


@torch.inference_mode()
def predict(
    model: MatMamba, batches: Iterable[LabelledBatch], widths: Sequence[WidthLike] = ("full",)
) -> list[Predictions]:
    """Predictions of each width, in evaluation mode, reading the images once; none if there are no images.

    Raises:
        NotFiniteError: a width gives logits that are not numbers.
    """
    parts: list[list[Predictions]] = [[] for _ in widths]
    with _evaluating(model):
        for images, labels in _on_device(model, batches):
            for width, part in zip(widths, parts, strict=True):
                part.append(_predict_batch(model, images, labels, width))
    return [_joined(part) for part in parts if part]


@torch.inference_mode()
def evaluate_widths(
    model: MatMamba, batches: Iterable[LabelledBatch], widths: Sequence[WidthLike]
) -> dict[str, float]:
    """Top-1 accuracy of each width by its label, in evaluation mode, reading the images once.

    Under `torch.distributed` each process gives batches of its own, if it has any, and all receive the
    accuracy over the images of all.
    """
    metrics = {model.label(width): _accuracy(model) for width in widths}
    with _evaluating(model):
        for images, labels in _on_device(model, batches):
            for width, metric in zip(widths, metrics.values(), strict=True):
                metric.update(model(images, width=width), labels)
    with warnings.catch_warnings():
        # Of a process that had no images.
        warnings.filterwarnings(
            "ignore", "The ``compute`` method of metric MulticlassAccuracy was called before"
        )
        return {label: float(metric.compute()) for label, metric in metrics.items()}


def _accuracy(model: MatMamba) -> MulticlassAccuracy:
    # Here, because importing it takes a second or more.
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(model.num_classes, average="micro", validate_args=False).to(
        model.pos_embed.device
    )


@contextmanager
def _evaluating(model: MatMamba) -> Iterator[None]:
    """Evaluation mode; afterwards the mode that was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _on_device(
    model: MatMamba, batches: Iterable[LabelledBatch]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of the batches that are not empty, where the model is."""
    device = model.pos_embed.device
    for batch in batches:
        if len(batch):
            yield batch.images.to(device), batch.labels.to(device)


def _predict_batch(
    model: MatMamba, images: torch.Tensor, labels: torch.Tensor, width: WidthLike
) -> Predictions:
    pooled = model.forward_head(model.forward_features(images, width), pre_logits=True)
    logs = model.get_classifier()(pooled).double().log_softmax(-1)
    if not logs.isfinite().all():
        raise NotFiniteError(f"width {model.label(width)} gives logits that are not numbers")
    likeliest = logs.topk(min(5, logs.shape[1])).indices
    top, chosen = logs.max(-1), logs.gather(1, labels[:, None])[:, 0]
    briers = logs.exp().square().sum(-1) - 2 * chosen.exp() + 1
    found = (
        labels,
        top.indices,
        F.normalize(pooled.float(), dim=-1),
        (likeliest == labels[:, None]).any(1),
        top.values.exp(),
        chosen,
        briers,
    )
    return Predictions(*(tensor.cpu().numpy() for tensor in found))


def _joined(parts: Sequence[Predictions]) -> Predictions:
    names = [field.name for field in fields(Predictions)]
    return Predictions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
