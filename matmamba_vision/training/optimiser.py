"""Optimiser and schedule, both timm's."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler

from ..errors import ConfigError
from ..models import MatMamba
from .objective import NestedObjective
from .sections import OptimConfig

# By our name: timm's, and its decay rate, which is a factor, or the power of a polynomial.
COURSES: dict[str, tuple[str, float]] = {
    "cosine": ("cosine", 1.0),
    "tanh": ("tanh", 1.0),
    "linear": ("poly", 1.0),
    "poly": ("poly", 2.0),
    "step": ("step", 0.1),
    "constant": ("step", 1.0),
}
# What torch has as one kernel for all parameters on a GPU.
_FUSED = ("adam", "adamw")
# Those that never reach `min_lr`.
_ENDLESS = ("step", "constant")


def make_optimiser(config: OptimConfig, model: MatMamba, objective: NestedObjective) -> torch.optim.Optimizer:
    """Optimiser over the parameters of both; weight decay on matrices only.

    With `layer_decay`, the learning rate falls from block to block towards the patches (BEiT, arXiv
    2106.08254); the head and the prefix classifiers of the objective have all of it.

    Raises:
        ConfigError: unknown optimiser, or one that does not take what is asked.
    """
    asked: dict[str, Any] = {"layer_decay": config.layer_decay}
    asked |= {} if config.betas is None else {"betas": tuple(config.betas)}
    on_gpu = next(model.parameters()).device.type == "cuda"
    asked |= {"fused": True} if on_gpu and config.opt in _FUSED else {}
    try:
        optimiser: torch.optim.Optimizer = create_optimizer_v2(
            model, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay, **asked
        )
    except (AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"optimiser {config.opt!r}: {error}") from error
    if config.betas is not None and "betas" not in optimiser.defaults:
        raise ConfigError(f"optimiser {config.opt!r} has no betas: leave optim.betas out")
    for group in param_groups_weight_decay(objective.prefix_heads, config.weight_decay):
        optimiser.add_param_group(group | {"lr_scale": 1.0})
    return optimiser


def make_scheduler(config: OptimConfig, optimiser: torch.optim.Optimizer, steps_per_epoch: int) -> Scheduler:
    """Linear warm-up to `lr`, then the course called `sched` over what is left of the run.

    `step_update(step)` sets the rate of any step, a function of its number alone.

    Args:
        config: course, rates, epochs and warm-up.
        optimiser: whose rates are set.
        steps_per_epoch: steps of the optimiser in one pass over the images.

    Raises:
        ConfigError: no such course; a cool-down that it cannot have, or that leaves nothing of the run.
    """
    if config.sched not in COURSES:
        raise ConfigError(f"optim.sched {config.sched!r} is none of {', '.join(COURSES)}")
    name, decay_rate = COURSES[config.sched]
    warmup = warmup_steps(config, steps_per_epoch)
    steps = max(2, _steps_to_end(config, steps_per_epoch) - warmup)
    # In steps throughout: to timm, an epoch of one update.
    scheduler, _ = create_scheduler_v2(
        optimiser,
        name,
        num_epochs=steps,
        decay_epochs=-(-steps // 3),
        decay_rate=decay_rate,
        min_lr=config.min_lr,
        warmup_lr=config.warmup_lr,
        warmup_epochs=warmup,
        warmup_prefix=True,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    assert scheduler is not None
    return scheduler


def warmup_steps(config: OptimConfig, steps_per_epoch: int) -> int:
    """Steps of the linear warm-up: at most a fifth of the run."""
    return min(round(config.warmup_epochs * steps_per_epoch), config.epochs * steps_per_epoch // 5)


def _steps_to_end(config: OptimConfig, steps_per_epoch: int) -> int:
    """Steps until the course is over, and a cool-down begins."""
    if config.cooldown_epochs and config.sched in _ENDLESS:
        raise ConfigError(f"optim.cooldown_epochs {config.cooldown_epochs}: {config.sched} has no min_lr")
    # Half of the run, so that the warm-up is over well before.
    if not 0 <= config.cooldown_epochs <= config.epochs / 2:
        raise ConfigError(
            f"optim.cooldown_epochs {config.cooldown_epochs}: it can be 0 to half of {config.epochs} epochs"
        )
    return round((config.epochs - config.cooldown_epochs) * steps_per_epoch)
