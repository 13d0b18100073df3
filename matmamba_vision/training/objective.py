"""The joint objective: all widths classify, by all prefixes of their embedding, in one embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..models import MatMamba
from ..width import Width
from .sections import ObjectiveConfig

# Whom a width learns from: the next larger one of its step, or the largest.
TEACHERS = ("next", "largest")


@dataclass(frozen=True)
class Teacher:
    """What larger widths said about the same images, without gradient.

    Attributes:
        logits: (B, classes) of the width to learn from.
        embedding: (B, D) of the largest width of the step.
    """

    logits: Tensor
    embedding: Tensor


class NestedObjective(nn.Module):
    """Loss of one width at a time, so that only one set of activations is alive.

    Cross-entropy (MatMamba, arXiv 2410.06718), cross-entropy on prefixes of the embedding (MRL, arXiv
    2205.13147, eq. 1), distillation from a larger width (Scala, arXiv 2412.04786), and alignment of
    the embedding with the full width's, which is what makes a small-width query valid in a full-width
    gallery. The prefix classifiers are parameters of the objective, not of the model.

    Args:
        config: weights of the terms.
        embed_dim: length of the embedding.
        num_classes: classes of the logits.

    Raises:
        ConfigError: no such teacher, or weights that are not as many as the prefix lengths.
    """

    def __init__(self, config: ObjectiveConfig, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        if config.teacher not in TEACHERS:
            raise ConfigError(f"objective.teacher {config.teacher!r} is none of {', '.join(TEACHERS)}")
        self.config = config
        weights = weights_of("mrl_weights", config.mrl_weights, config.mrl_dims)
        known = {dim: weight for dim, weight in zip(config.mrl_dims, weights, strict=True) if dim < embed_dim}
        self.dims = sorted(known)
        self.prefix_weights = [known[dim] for dim in self.dims]
        self.prefix_heads = nn.ModuleList(nn.Linear(dim, num_classes) for dim in self.dims)

    def forward(
        self,
        model: MatMamba,
        images: Tensor,
        labels: Tensor,
        width: Width,
        teacher: Teacher | None,
        vectors: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Teacher]:
        """Weighted terms of one width, and the teacher for the next smaller one.

        Args:
            model: the network.
            images: (B, C, S, S).
            labels: (B,) class indices, or (B, classes) shares of mixed images.
            width: which one.
            teacher: None for the first, largest width.
            vectors: (B, E) what another network says about the images, for an objective that follows one.
        """
        embedding = model.forward_head(model.forward_features(images, width), pre_logits=True)
        logits = model.get_classifier()(embedding)
        terms = self.terms(embedding, logits, labels, teacher, vectors)
        if teacher is None:
            return terms, Teacher(logits.detach(), embedding.detach())
        follows = logits.detach() if self.config.teacher == "next" else teacher.logits
        return terms, Teacher(follows, teacher.embedding)

    def terms(
        self,
        embedding: Tensor,
        logits: Tensor,
        labels: Tensor,
        teacher: Teacher | None,
        vectors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms of one width, from its embedding (B, E) before it is normalised and its logits."""
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
        return terms

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def _prefix_loss(self, embedding: Tensor, labels: Tensor) -> Tensor:
        losses = [
            weight * self._cross_entropy(head(embedding[:, :dim]), labels)
            for head, dim, weight in zip(self.prefix_heads, self.dims, self.prefix_weights, strict=True)
        ]
        return torch.stack(losses).sum() / sum(self.prefix_weights)


class Trainee(nn.Module):
    """A model with its objective: what a step trains, and what is copied or spread over processes."""

    def __init__(self, model: MatMamba, objective: NestedObjective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        width: Width,
        teacher: Teacher | None,
        vectors: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Teacher]:
        """See `NestedObjective.forward`."""
        return self.objective(self.model, images, labels, width, teacher, vectors)


def weights_of(name: str, given: Sequence[float], things: Sequence[object]) -> list[float]:
    """One weight for each of `things`: those given, or 1; `ConfigError` if they are not as many."""
    if given and (len(given) != len(things) or min(given) < 0 or not sum(given)):
        raise ConfigError(
            f"objective.{name} {list(given)}: {len(things)} weights, none negative, some positive"
        )
    return list(given) or [1.0] * len(things)


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from the teacher, mean over the batch, times the temperature squared."""
    student = F.log_softmax(logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def alignment(embedding: Tensor, full: Tensor, dims: Sequence[int]) -> Tensor:
    """One minus the cosine of two embeddings (B, D), mean over the batch and over the prefixes `dims`."""
    embedding, full = embedding.float(), full.float()
    losses = [1 - F.cosine_similarity(embedding[:, :dim], full[:, :dim], dim=-1).mean() for dim in dims]
    return torch.stack(losses).mean()
