"""Optimiser and schedule, both timm's."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

from ..models import MatMamba
from .config import OptimConfig
from .objective import NestedObjective


def make_optimiser(config: OptimConfig, model: MatMamba, objective: NestedObjective) -> torch.optim.Optimizer:
    """Optimiser over the parameters of both; weight decay on matrices only.

    Raises:
        ValueError: unknown optimiser.
    """
    try:
        optimiser: torch.optim.Optimizer = create_optimizer_v2(
            model, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay
        )
    except (AssertionError, ValueError) as error:
        raise ValueError(f"optimiser {config.opt!r}: {error}") from error
    heads = list(objective.prefix_heads.parameters())
    if heads:
        optimiser.add_param_group({"params": heads, "weight_decay": config.weight_decay})
    return optimiser


def make_scheduler(
    config: OptimConfig, optimiser: torch.optim.Optimizer, steps_per_epoch: int
) -> CosineLRScheduler:
    """Linear warm-up, then cosine to `min_lr`, one value for each step; call `step_update(step)`.

    Warm-up takes at most a fifth of the run.
    """
    steps = config.epochs * steps_per_epoch
    return CosineLRScheduler(
        optimiser,
        t_initial=max(2, steps),
        lr_min=config.min_lr,
        warmup_t=min(round(config.warmup_epochs * steps_per_epoch), steps // 5),
        warmup_lr_init=config.min_lr,
        warmup_prefix=False,
        t_in_epochs=False,
    )
