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
from ..errors import ConfigError
from ..models import MatMamba
from ..ops.step_weights import share_in_steps, step_weights
from ..width import Width
from .course import Course, make_course
from .engine import make_accelerator
from .objective import NestedObjective, Trainee, weights_of
from .optimiser import make_optimiser
from .passes import Pass, make_pass
from .schedule import WidthSchedule
from .sections import EngineConfig, MixConfig, OptimConfig, ScheduleConfig

# From a batch, and its images on the device, to (B, E) vectors of length 1.
Follows = Callable[[LabelledBatch, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The numbers of a run that its loop needs.

    Attributes:
        epochs: passes over the training images.
        accumulate: batches whose gradients are added up for one step.
        clip_grad: largest norm of the gradient; 0 for any.
        seed: of everything random.
    """

    epochs: int
    accumulate: int
    clip_grad: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class WeightedWidths:
    """Which widths a step trains, and how much each of them counts.

    Attributes:
        schedule: draws the widths of each step.
        weights: of the loss of each trained width, 1 on average.
    """

    schedule: WidthSchedule
    weights: dict[Width, float]

    def shares(self, step: int, batch: int = 0) -> dict[Width, float]:
        """What the loss of each width of a batch counts, largest width first, for their weighted mean."""
        widths = self.schedule.widths(step, batch)
        return {width: self.weights[width] / len(widths) for width in widths}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a step makes of a batch before the model sees it.

    Attributes:
        mix: timm's Mixup, or None.
        follows: what another network says about a batch, or None.
    """

    mix: Any
    follows: Follows | None

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, S, S) and labels (B,), mixed in pairs if they are to be; labels are then shares.

        An odd last image is left out, and what was given stays as it was.
        """
        even = len(images) // 2 * 2
        if self.mix is None or not even:
            return images, labels
        mixed: tuple[Tensor, Tensor] = self.mix(images[:even].clone(), labels[:even])
        return mixed

    def taught(self, batch: LabelledBatch, images: Tensor) -> Tensor | None:
        """What the network that the objective follows says about the images, (B, E); None if there is none.

        Args:
            batch: as it was read.
            images: as `Training.prepare_batch` gave them.
        """
        if self.follows is None:
            return None
        with torch.no_grad():
            return self.follows(batch, images)


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Other copies of the weights than those that are trained.

    Attributes:
        ema: moving average of the model, or None.
        whole: where parameters are sharded, a copy of the model for all of them, otherwise None.
    """

    ema: ModelEmaV3 | None
    whole: MatMamba | None

    def follow(self, model: MatMamba, step: int) -> None:
        """Take a step's weights into the average."""
        if self.ema is not None:
            self.ema.update(model, step)


@dataclass(kw_only=True)
class Training:
    """A model in training.

    Attributes:
        model: as it was given.
        trainee: the model and its objective, wrapped for their processes.
        accelerator: device, precision and processes.
        passes: forward and backward of one width.
        optimiser: Accelerate's, around one of torch or timm.
        course: the learning rate of each step, and the end.
        widths: which a step trains.
        inputs: what a step makes of a batch.
        copies: other copies of the weights.
        settings: numbers of the run.
    """

    model: MatMamba
    trainee: nn.Module
    accelerator: Accelerator
    passes: Pass
    optimiser: torch.optim.Optimizer
    course: Course
    widths: WeightedWidths
    inputs: Inputs
    copies: Copies
    settings: LoopSettings

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
        return self.inputs.mixed(images, labels)

    def clip(self) -> Tensor:
        """Clip the gradient; its norm before that."""
        largest = self.settings.clip_grad or math.inf
        norm: Tensor = self.accelerator.clip_grad_norm_(self.trainee.parameters(), largest)
        return norm

    def update(self, step: int) -> None:
        """Take the optimiser's step and forget the gradients."""
        self.optimiser.step()
        for kept in step_weights(self.model):
            kept.forget()
        self.optimiser.zero_grad(set_to_none=not self.passes.keeps_gradients)
        self.copies.follow(self.model, step)

    def kept_model(self) -> MatMamba:
        """The model to measure and to keep: the moving average if there is one; all processes must ask."""
        ema, whole = self.copies.ema, self.copies.whole
        if whole is not None:
            options = StateDictOptions(full_state_dict=True)
            state = get_model_state_dict(self.trainee, options=options)
            own = {name: value for name, value in state.items() if name.startswith("model.")}
            whole.load_state_dict({name.removeprefix("model."): value for name, value in own.items()})
            return whole
        return self.model if ema is None else ema.module


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
        model: what is trained, at its trained widths.
        objective: what it is trained for.
        optim: optimiser and course.
        batches_per_epoch: of one process.
        schedule: which widths a step trains, by default all.
        mix: how images and labels are mixed, by default not at all.
        engine: how a step is computed.
        seed: of everything random.
        accelerator: by default one for this process on its best device.
        follows: what another network says about a batch, for an objective that follows one.

    Raises:
        ConfigError: a setting that cannot work, named in the message.
    """
    engine = engine or EngineConfig()
    accelerator = accelerator or make_accelerator(engine)
    widths = _weighted_widths(model, objective, schedule or ScheduleConfig(), engine, seed)
    inputs = Inputs(mix=make_mix(mix or MixConfig(), model.num_classes), follows=follows)
    settings = LoopSettings(
        epochs=optim.epochs, accumulate=engine.accumulate, clip_grad=optim.clip_grad, seed=seed
    )
    model, objective = model.to(accelerator.device), objective.to(accelerator.device)
    copies = _copies(model, optim, engine)
    trainee, optimiser = _wrap(model, objective, optim, accelerator)
    if copies.ema is not None:
        accelerator.register_for_checkpointing(copies.ema)
    if not engine.fsdp:
        # What is gathered from other processes is another memory each time.
        share_in_steps(model)
    steps_per_epoch = math.ceil(batches_per_epoch / engine.accumulate)
    return Training(
        model=model,
        trainee=trainee,
        accelerator=accelerator,
        course=make_course(optim, optimiser.optimizer, steps_per_epoch, accelerator.num_processes),
        passes=make_pass(trainee, accelerator, model, engine.cuda_graphs),
        optimiser=optimiser,
        widths=widths,
        inputs=inputs,
        copies=copies,
        settings=settings,
    )


def _copies(model: MatMamba, optim: OptimConfig, engine: EngineConfig) -> Copies:
    """Moving average and whole copy of a model that is not wrapped yet, where they are needed."""
    if optim.ema and engine.fsdp:
        raise ConfigError("optim.ema averages whole models: not together with engine.fsdp")
    ema = ModelEmaV3(model, decay=optim.ema, use_warmup=True) if optim.ema else None
    return Copies(ema=ema, whole=copy.deepcopy(model) if engine.fsdp else None)


def _wrap(
    model: MatMamba, objective: NestedObjective, optim: OptimConfig, accelerator: Accelerator
) -> tuple[nn.Module, Any]:
    """Both modules for the processes of the run, and their optimiser."""
    if accelerator.ddp_handler:
        # A width that skips a block leaves its parameters without a gradient, and so do classifiers of
        # prefixes that have no weight.
        skips = any(0 in width.heads for width in model.trained_widths)
        idle = bool(objective.dims) and not objective.config.mrl
        accelerator.ddp_handler.find_unused_parameters = skips or idle
    optimiser = make_optimiser(optim, model, objective)
    wrapped: tuple[nn.Module, Any] = accelerator.prepare(Trainee(model, objective), optimiser)
    return wrapped


def _weighted_widths(
    model: MatMamba, objective: NestedObjective, schedule: ScheduleConfig, engine: EngineConfig, seed: int
) -> WeightedWidths:
    """The trained widths, with weights that are 1 on average."""
    trained = model.trained_widths
    drawn = WidthSchedule(schedule, trained, seed, engine.accumulate)
    weights = weights_of("width_weights", objective.config.width_weights, trained)
    shares = [weight * len(weights) / sum(weights) for weight in weights]
    return WeightedWidths(schedule=drawn, weights=dict(zip(trained, shares, strict=True)))


def make_mix(config: MixConfig, num_classes: int) -> Any:
    """timm's Mixup, or None if neither Mixup nor CutMix is on; labels are smoothed by the objective."""
    if not config.mixup and not config.cutmix:
        return None
    return Mixup(  # type: ignore[no-untyped-call]
        config.mixup, config.cutmix, prob=config.prob, switch_prob=config.switch_prob,
        label_smoothing=0.0, num_classes=num_classes,
    )  # fmt: skip
