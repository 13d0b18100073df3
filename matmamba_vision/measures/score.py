"""How well a width classifies: top-1 accuracy, and the log-likelihood, which is less noisy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..batch import LabelledBatch
from ..errors import NotFiniteError
from ..models import MatMamba
from ..width import WidthLike


# Compared by identity: arrays have no single answer.
@dataclass(frozen=True, eq=False)
class Score:
    """What a width said about some images.

    Attributes:
        correct: (n,) whether the class was predicted.
        log_likelihoods: (n,) natural logarithm of the probability given to the true class.
    """

    correct: NDArray[np.bool_]
    log_likelihoods: NDArray[np.float64]

    @property
    def top1(self) -> float:
        """Share of images whose class was predicted."""
        return float(self.correct.mean())

    @property
    def log_likelihood(self) -> float:
        """Mean over the images, in nats; 0 is perfect."""
        return float(self.log_likelihoods.mean())

    def gain_over(self, other: Score) -> tuple[float, float]:
        """How much larger the mean log-likelihood is than `other`'s, and the standard error of that.

        Both must be of the same images: the differences are taken image by image.
        """
        differences = self.log_likelihoods - other.log_likelihoods
        return float(differences.mean()), float(differences.std() / np.sqrt(len(differences)))


@torch.inference_mode()
def score(
    model: MatMamba,
    batches: Iterable[LabelledBatch],
    width: WidthLike,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Score:
    """The score of a width, in evaluation mode.

    Args:
        batches: none of them empty.
        on_batch: told how many images were classified, after each batch.

    Raises:
        NotFiniteError: the width gives logits that are not numbers.
    """
    was_training = model.training
    model.eval()
    correct, log_likelihoods = [], []
    try:
        for batch in batches:
            labels = batch.labels.to(model.pos_embed.device)
            logits = model(batch.images.to(model.pos_embed.device), width=width).double()
            correct.append((logits.argmax(-1) == labels).cpu().numpy())
            chosen = logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
            log_likelihoods.append(chosen.cpu().numpy())
            on_batch(len(batch))
    finally:
        model.train(was_training)
    found = Score(np.concatenate(correct), np.concatenate(log_likelihoods))
    if not np.isfinite(found.log_likelihoods).all():
        raise NotFiniteError(f"width {model.label(width)} gives logits that are not numbers")
    return found
