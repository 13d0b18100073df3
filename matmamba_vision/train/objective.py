"""The joint objective: all widths classify, by all prefixes of their embedding, in one embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import MatMamba
from ..width import Width
from .config import ObjectiveConfig


@dataclass(frozen=True)
class Teacher:
    """What larger widths said about the same images, without gradient.

    Attributes:
        logits: (B, classes) of the next larger width. embedding: (B, D) of the full width.
    """

    logits: Tensor
    embedding: Tensor


class NestedObjective(nn.Module):
    """Loss of one width at a time, so that only one set of activations is alive.

    Cross-entropy (MatMamba, arXiv 2410.06718), cross-entropy on prefixes of the embedding (MRL, arXiv
    2205.13147, eq. 1), distillation from the next larger width (Scala, arXiv 2412.04786), and alignment of
    the embedding with the full width's, which is what makes a small-width query valid in a full-width
    gallery. The prefix classifiers are parameters of the objective, not of the model.

    Args:
        embed_dim: D. num_classes: classes of the logits.
    """

    def __init__(self, config: ObjectiveConfig, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.dims = [dim for dim in sorted(set(config.mrl_dims)) if dim < embed_dim]
        self.prefix_heads = nn.ModuleList(nn.Linear(dim, num_classes) for dim in self.dims)

    def forward(
        self, model: MatMamba, images: Tensor, labels: Tensor, width: Width, teacher: Teacher | None
    ) -> tuple[dict[str, Tensor], Teacher]:
        """Weighted terms of one width, and the teacher for the next smaller one.

        Args:
            images: (B, C, S, S). labels: (B,) class indices. teacher: None for the first, full width.
        """
        embedding = model.forward_head(model.forward_features(images, width), pre_logits=True)
        logits = model.get_classifier()(embedding)
        config = self.config
        terms = {"cross_entropy": config.cross_entropy * self._cross_entropy(logits, labels)}
        if config.mrl and self.dims:
            terms["mrl"] = config.mrl * self._prefix_loss(embedding, labels)
        if teacher is not None and config.distillation:
            terms["distillation"] = config.distillation * distillation(
                logits, teacher.logits, config.temperature
            )
        if teacher is not None and config.alignment:
            dims = [*self.dims, embedding.shape[-1]]
            terms["alignment"] = config.alignment * alignment(embedding, teacher.embedding, dims)
        full = embedding.detach() if teacher is None else teacher.embedding
        return terms, Teacher(logits.detach(), full)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def _prefix_loss(self, embedding: Tensor, labels: Tensor) -> Tensor:
        losses = [
            self._cross_entropy(head(embedding[:, :dim]), labels)
            for head, dim in zip(self.prefix_heads, self.dims, strict=True)
        ]
        return torch.stack(losses).mean()


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from the teacher, mean over the batch, times the temperature squared."""
    student = F.log_softmax(logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def alignment(embedding: Tensor, full: Tensor, dims: Sequence[int]) -> Tensor:
    """One minus the cosine of two embeddings (B, D), mean over the batch and over the prefixes `dims`."""
    losses = [1 - F.cosine_similarity(embedding[:, :dim], full[:, :dim], dim=-1).mean() for dim in dims]
    return torch.stack(losses).mean()
