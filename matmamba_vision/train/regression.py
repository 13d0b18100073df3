"""The objective of a student: at every width, the vectors of another network, and labels where there are any."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import ObjectiveConfig, RegressionConfig
from .objective import NestedObjective, Teacher

# Label of an image that has none.
UNLABELLED = -1


class StudentObjective(NestedObjective):
    """What makes every width answer in the space of a teacher, beside the terms of `NestedObjective`.

    Regression: 1 - cosine to the teacher's vector (AML, arXiv 2007.15651; LEAF, arXiv 2509.12539), also of leading
    coordinates. Similarity: the divergence of a student's similarities with the teacher's vectors of the
    other images from the teacher's own (CSD, Wu et al., CVPR 2022), as of a query in the teacher's gallery.
    Images whose label is `UNLABELLED` take no part in cross-entropies.

    Args:
        follow: weights of these terms.
    """

    def __init__(
        self, config: ObjectiveConfig, follow: RegressionConfig, embed_dim: int, num_classes: int
    ) -> None:
        super().__init__(config, embed_dim, num_classes)
        self.follow = follow
        self.lengths = sorted({dim for dim in follow.prefix_dims if dim < embed_dim})

    def terms(
        self,
        embedding: Tensor,
        logits: Tensor,
        labels: Tensor,
        teacher: Teacher | None,
        vectors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """See `NestedObjective.terms`; `vectors` are (B, E), of length 1."""
        assert vectors is not None
        follow, found = self.follow, dict[str, Tensor]()
        # Similarities lie close together: not in half precision.
        with torch.autocast(embedding.device.type, enabled=False):
            student, target = embedding.float(), vectors.float()
            found["regression"] = follow.regression * regression(student, target)
            if follow.prefixes and self.lengths:
                parts = [regression(student[:, :dim], target[:, :dim]) for dim in self.lengths]
                found["prefixes"] = follow.prefixes * torch.stack(parts).mean()
            if follow.similarity and len(target) > 1:
                found["similarity"] = follow.similarity * similarity(student, target, follow.temperature)
        return found | super().terms(embedding, logits, labels, teacher)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.dim() > 1:
            return super()._cross_entropy(logits, labels)
        smoothing = self.config.label_smoothing
        losses = F.cross_entropy(
            logits, labels, label_smoothing=smoothing, ignore_index=UNLABELLED, reduction="sum"
        )
        # Mean over the images that have a label, without asking the device whether there are any.
        return losses / (labels != UNLABELLED).sum().clamp(min=1)


def regression(student: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of two (B, E), mean over the batch."""
    return 1 - F.cosine_similarity(student, target, dim=-1).mean()


def similarity(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Divergence of similarities with the other images' targets, (B, E) both, mean over the batch."""
    known = F.normalize(target, dim=-1)
    itself = torch.eye(len(known), dtype=torch.bool, device=known.device)
    asked = F.normalize(student, dim=-1)
    ours, theirs = (
        (one @ known.T / temperature).masked_fill(itself, -torch.inf).log_softmax(-1) for one in (asked, known)
    )
    # An image is not among the others: there both are -inf, and their difference counts nothing.
    gap = (theirs - ours).masked_fill(itself, 0.0)
    return (theirs.exp() * gap).sum(-1).mean()
