"""All that a step works with, placed on its device and spread over its processes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from ..batch import LabelledBatch
from ..models import MatMamba
from ..width import Width
from .config import EngineConfig, MixConfig, OptimConfig, ScheduleConfig
from .course import Course, make_course
from .engine import make_accelerator
from .objective import NestedObjective, Trainee, weights_of
from .optimiser import make_optimiser
from .passes import Pass, make_pass
from .schedule import WidthSchedule

# From a batch, and its images on the device, to (B, E) vectors of length 1.
Follows = Callable[[LabelledBatch, Tensor], Tensor]


@dataclass
class Training:
    """A model in training.

    Attributes:
        model, objective: as they were given. trainee: both, wrapped for their processes. weights: of the loss
            of each trained width, 1 on average. mix: timm's Mixup or None. ema: moving average of the model
            or None. whole: where parameters are sharded, a copy of the model for all of them. follows: what
            another network says about a batch, or None.
    """

    model: MatMamba
    objective: NestedObjective
    trainee: nn.Module
    passes: Pass
    accelerator: Accelerator
    optimiser: torch.optim.Optimizer
    course: Course
    schedule: WidthSchedule
    weights: dict[Width, float]
    mix: Any
    ema: ModelEmaV3 | None
    whole: MatMamba | None
    epochs: int
    clip_grad: float
    accumulate: int
    seed: int
    follows: Follows | None = None

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.accelerator.process_index

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled up, so that gradients of float16 do not vanish."""
        return self.accelerator.scaler is not None

    def prepare_batch(self, batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        """Images and labels on the device, mixed if they are to be.

        A batch without images becomes one black image, because processes must take equal steps.
        """
        if not len(batch):
            image = self.model.random_images(1).zero_()
            return image, torch.zeros(1, dtype=torch.int64, device=image.device)
        images = batch.images.to(self.accelerator.device, non_blocking=True)
        labels = batch.labels.to(self.accelerator.device, non_blocking=True)
        even = len(batch) // 2 * 2
        if self.mix is None or not even:
            return images, labels
        # Images are mixed in pairs and in place: an odd last one is left out, the batch stays as it was.
        mixed: tuple[Tensor, Tensor] = self.mix(images[:even].clone(), labels[:even])
        return mixed

    def taught(self, batch: LabelledBatch, images: Tensor) -> Tensor | None:
        """What the network that the objective follows says about the images, (B, E); None if there is none.

        Args:
            images: as `prepare_batch` gave them.
        """
        if self.follows is None:
            return None
        with torch.no_grad():
            return self.follows(batch, images)

    def clip(self) -> Tensor:
        """Clip the gradient; its norm before that."""
        norm: Tensor = self.accelerator.clip_grad_norm_(self.trainee.parameters(), self.clip_grad or math.inf)
        return norm

    def update(self, step: int) -> None:
        """Take the optimiser's step and forget the gradients."""
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=not self.passes.keeps_gradients)
        if self.ema is not None:
            self.ema.update(self.model, step)

    def kept_model(self) -> MatMamba:
        """The model to measure and to keep: the moving average if there is one; all processes must ask."""
        if self.whole is not None:
            options = StateDictOptions(full_state_dict=True)
            state = get_model_state_dict(self.trainee, options=options)
            own = {name: value for name, value in state.items() if name.startswith("model.")}
            self.whole.load_state_dict({name.removeprefix("model."): value for name, value in own.items()})
            return self.whole
        return self.model if self.ema is None else self.ema.module


def prepare_training(
    model: MatMamba,
    objective: NestedObjective,
    optim: OptimConfig,
    batches_per_epoch: int,
    *,
    schedule: ScheduleConfig | None = None,
    mix: MixConfig | None = None,
    engine: EngineConfig | None = None,
    accelerator: Accelerator | None = None,
    seed: int = 0,
    follows: Follows | None = None,
) -> Training:
    """Place model and objective, and make what trains them.

    Args:
        batches_per_epoch: of one process. accelerator: by default one for this process on its best device.
        follows: what another network says about a batch, for an objective that follows one.

    Raises:
        ValueError: a setting that cannot work, named in the message.
    """
    engine = engine or EngineConfig()
    accelerator = accelerator or make_accelerator(engine)
    widths = WidthSchedule(schedule or ScheduleConfig(), model.trained_widths, seed, engine.accumulate)
    weights = _width_weights(model, objective)
    model, objective = model.to(accelerator.device), objective.to(accelerator.device)
    ema, whole = _copies(model, optim, engine)
    trainee, optimiser = _wrap(model, objective, optim, accelerator)
    if ema is not None:
        accelerator.register_for_checkpointing(ema)
    steps_per_epoch = math.ceil(batches_per_epoch / engine.accumulate)
    course = make_course(optim, optimiser.optimizer, steps_per_epoch, accelerator.num_processes)
    passes = make_pass(trainee, accelerator, model, engine.cuda_graphs)
    return Training(
        model, objective, trainee, passes, accelerator, optimiser, course, widths, weights,
        make_mix(mix or MixConfig(), model.num_classes), ema, whole, optim.epochs, optim.clip_grad,
        engine.accumulate, seed, follows,
    )  # fmt: skip


def _copies(
    model: MatMamba, optim: OptimConfig, engine: EngineConfig
) -> tuple[ModelEmaV3 | None, MatMamba | None]:
    """Moving average and whole copy of a model that is not wrapped yet, where they are needed."""
    if optim.ema and engine.fsdp:
        raise ValueError("optim.ema averages whole models: not together with engine.fsdp")
    ema = ModelEmaV3(model, decay=optim.ema, use_warmup=True) if optim.ema else None
    return ema, copy.deepcopy(model) if engine.fsdp else None


def _wrap(
    model: MatMamba, objective: NestedObjective, optim: OptimConfig, accelerator: Accelerator
) -> tuple[nn.Module, Any]:
    """Both modules for the processes of the run, and their optimiser."""
    if accelerator.ddp_handler:
        # A width that skips a block leaves its parameters without a gradient.
        skips = any(0 in width.heads for width in model.trained_widths)
        accelerator.ddp_handler.find_unused_parameters = skips
    optimiser = make_optimiser(optim, model, objective)
    wrapped: tuple[nn.Module, Any] = accelerator.prepare(Trainee(model, objective), optimiser)
    return wrapped


def _width_weights(model: MatMamba, objective: NestedObjective) -> dict[Width, float]:
    """The weight of each trained width, 1 on average."""
    weights = weights_of("width_weights", objective.config.width_weights, model.trained_widths)
    shares = [weight * len(weights) / sum(weights) for weight in weights]
    return dict(zip(model.trained_widths, shares, strict=True))


def make_mix(config: MixConfig, num_classes: int) -> Any:
    """timm's Mixup, or None if neither Mixup nor CutMix is on; labels are smoothed by the objective."""
    if not config.mixup and not config.cutmix:
        return None
    return Mixup(  # type: ignore[no-untyped-call]
        config.mixup, config.cutmix, prob=config.prob, switch_prob=config.switch_prob,
        label_smoothing=0.0, num_classes=num_classes,
    )  # fmt: skip
