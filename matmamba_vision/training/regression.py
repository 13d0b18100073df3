"""The objective of a student: at every width, the vectors of another network, and labels if there are any."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .objective import NestedObjective, Teacher
from .sections import ObjectiveConfig, RegressionConfig

# Label of an image that has none.
UNLABELLED = -1
# Logarithm of no share at all; finite, so that no gradient is nothing times infinity.
NOTHING = -1e4


class StudentObjective(NestedObjective):
    """What makes every width answer in the space of a teacher, beside the terms of `NestedObjective`.

    Regression: 1 - cosine to the teacher's vector (AML, Budnik and Avrithis; LEAF), also of leading
    coordinates. Similarity: the divergence of a student's similarities with the teacher's vectors of the
    other images from the teacher's own (CSD), as of a query in the teacher's gallery. Neighbours: that these
    similarities find the image's class. Anchors: as similarity, with the same images in every batch; these
    are kept with the objective, so that a run that goes on has the same. Images whose label is `UNLABELLED`
    take no part in what labels ask.

    Args:
        config: weights of the terms of `NestedObjective`.
        follow: weights of these terms.
        embed_dim: length of the embedding, and of the teacher's vectors.
        num_classes: classes of the logits.

    Attributes:
        anchors: (K, E) vectors of the teacher, of length 1, to be set where `follow` has a weight for them.
    """

    anchors: Tensor | None

    def __init__(
        self, config: ObjectiveConfig, follow: RegressionConfig, embed_dim: int, num_classes: int
    ) -> None:
        super().__init__(config, embed_dim, num_classes)
        self.follow = follow
        self.register_buffer("anchors", None)
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
            if len(target) > 1:
                found |= self._by_others(student, target, labels)
            if follow.anchors and self.anchors is not None:
                shares = (log_shares(one, self.anchors, follow.temperature) for one in (student, target))
                found["anchors"] = follow.anchors * similarity(*shares)
        return found | super().terms(embedding, logits, labels, teacher)

    def _by_others(self, student: Tensor, target: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Terms of the similarities with the other images of the batch."""
        follow, found = self.follow, dict[str, Tensor]()
        if not follow.similarity and not follow.neighbours:
            return found
        ours, theirs = others(student, target, follow.temperature)
        if follow.similarity:
            found["similarity"] = follow.similarity * similarity(ours, theirs)
        if follow.neighbours and labels.dim() == 1:
            found["neighbours"] = follow.neighbours * neighbours(ours, labels)
        return found

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


def others(student: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log shares (B, B) by which the other images are like each: as the student says, and as the teacher.

    Both compare with the targets (B, E), as queries in the teacher's gallery. Of itself an image has no
    share: its logarithm is `NOTHING` or less.
    """
    known = F.normalize(target, dim=-1)
    itself = torch.eye(len(known), dtype=torch.bool, device=known.device)
    ours, theirs = (
        (one @ known.T / temperature).masked_fill(itself, NOTHING).log_softmax(-1)
        for one in (F.normalize(student, dim=-1), known)
    )
    return ours, theirs


def log_shares(vectors: Tensor, anchors: Tensor, temperature: float) -> Tensor:
    """Log shares (B, K) by which anchors (K, E) of length 1 are like vectors (B, E)."""
    return (F.normalize(vectors, dim=-1) @ anchors.T / temperature).log_softmax(-1)


def similarity(ours: Tensor, theirs: Tensor) -> Tensor:
    """Divergence of log shares (B, n) from the teacher's, mean over the batch."""
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def neighbours(ours: Tensor, labels: Tensor) -> Tensor:
    """Minus the log of the share that the others of an image's label (B,) have, mean over those with some.

    Neighbourhood components analysis (Goldberger et al., 2004).
    """
    same = (labels[:, None] == labels) & (labels != UNLABELLED)[:, None]
    same = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    shares = ours.masked_fill(~same, NOTHING).logsumexp(-1)
    counted = same.any(1)
    return -torch.where(counted, shares, torch.zeros_like(shares)).sum() / counted.sum().clamp(min=1)
