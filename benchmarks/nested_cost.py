"""What nested training costs: steps of one nested model beside those of separate models of its widths.

Every step is a whole one: a batch is decoded from JPEG files and augmented, each width goes forward and
backward, gradients are clipped, the optimiser steps. The separate models are the extracted widths with the
same objective, without a larger width to learn from. Memory is the largest resident memory that a step adds
in a process of its own. Writes results/nested_cost.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matmamba_datasets import (
    AugmentConfig,
    Batch,
    DataConfig,
    Loader,
    make_loader,
    open_splits,
    train_transform,
)
from matmamba_vision import MatMamba, extract, keep_freed_memory
from matmamba_vision.training import (
    EngineConfig,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    Position,
    ScheduleConfig,
    Training,
    make_accelerator,
    prepare_training,
)
from matmamba_vision.training.loop import take_step
from measuring import Case, Plan, Ratio, in_fresh_process, measure_case, run, timed
from peak_memory import resident_mib
from PIL import Image
from timm import create_model

ROUNDS, MEMORY_ROUNDS = 10, 3
# The usual size of an image of ImageNet, and how many are made.
PHOTO, PHOTOS = (500, 375), 32
WIDTHS = ("full", "1/2", "1/4", "1/8")


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    model: str = "matmamba_tiny_patch16_224"
    batch_size: int = 8
    pixels: int = 224
    device: str = "cpu"
    precision: str = "fp32"
    cuda_graphs: bool = True


TINY = Setting()


def main(arguments: Sequence[str] | None = None, setting: Setting = TINY) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, setting=setting), arguments)


def cases(plan: Plan, setting: Setting) -> Iterator[Case]:
    """All widths in a step, one in a step, the share of data, memory."""
    known = {"model": setting.model, "batch": setting.batch_size, "pixels": setting.pixels}
    own = plan.at_most(ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), setting.batch_size)
        yield from _steps(own, setting, Path(folder), known)
        yield _data_share(own, setting, Path(folder), known)
    yield _memory(Plan(warm_up=0, repeats=min(MEMORY_ROUNDS, plan.repeats)), setting, known)


def _steps(plan: Plan, setting: Setting, folder: Path, known: dict[str, Any]) -> Iterator[Case]:
    model = nested_training(setting, "all").model
    read = reader(folder, model, setting)
    yield step_costs("steps with their data", plan, setting, read, known)
    batch = read()
    yield step_costs("computation alone", plan, setting, lambda: batch, known)


def step_costs(
    name: str, plan: Plan, setting: Setting, read: Callable[[], Batch], known: dict[str, Any]
) -> Case:
    """Nested steps, of all widths or of one, over the separate steps of each width."""
    separate = [separate_training(setting, width) for width in WIDTHS]
    nested, single = nested_training(setting, "all"), nested_training(setting, "one")
    # Steps at which the schedule draws each of the widths.
    drawn = {single.widths.schedule.widths(step)[0]: step for step in reversed(range(64))}
    apart = "four separate steps"
    sides: dict[str, Callable[[], object]] = {
        "nested step, four widths": lambda: whole_step(nested, read),
        "nested steps, one width each": lambda: [whole_step(single, read, step) for step in drawn.values()],
        apart: lambda: [whole_step(training, read) for training in separate],
    }
    ratios = [Ratio(f"{side} / {apart}", side, apart) for side in sides if side != apart]
    timed_sides = {side: timed(work) for side, work in sides.items()}
    return measure_case(name, timed_sides, ratios, plan, known)


def _data_share(plan: Plan, setting: Setting, folder: Path, known: dict[str, Any]) -> Case:
    """Reading a batch in the process that trains, over the steps that use it."""
    nested, alone = nested_training(setting, "all"), separate_training(setting, "full")
    read = reader(folder, nested.model, setting)
    sides = {
        "data": timed(read),
        "nested step with data": timed(lambda: whole_step(nested, read)),
        "full width alone with data": timed(lambda: whole_step(alone, read)),
    }
    ratios = [Ratio(f"data / {name}", "data", name) for name in sides if name != "data"]
    return measure_case("data loading", sides, ratios, plan, {**known, "photo": PHOTO})


def _memory(plan: Plan, setting: Setting, known: dict[str, Any]) -> Case:
    work = partial(in_fresh_process, growth_mib, setting, torch.get_num_threads())
    sides = {"four widths": partial(work, WIDTHS), "full width alone": partial(work, WIDTHS[:1])}
    ratio = Ratio("four widths / full width alone", "four widths", "full width alone")
    return measure_case("peak memory", sides, [ratio], plan, known, unit="MiB")


def nested_training(setting: Setting, kind: str, widths: Sequence[str] = WIDTHS) -> Training:
    """A nested model in training, by a schedule of widths."""
    torch.manual_seed(0)
    model = create_model(
        setting.model, num_classes=1000, img_size=setting.pixels, trained_widths=tuple(widths)
    )
    assert isinstance(model, MatMamba)
    return _training(model, ScheduleConfig(kind), setting)


def separate_training(setting: Setting, width: str) -> Training:
    """A width as a model of its own, in training."""
    return _training(extract(nested_training(setting, "all").model, width), ScheduleConfig(), setting)


def _training(model: MatMamba, schedule: ScheduleConfig, setting: Setting) -> Training:
    objective = NestedObjective(ObjectiveConfig(), model.embed_dim, model.num_classes)
    engine = EngineConfig(precision=setting.precision, cuda_graphs=setting.cuda_graphs)
    accelerator = make_accelerator(engine, setting.device)
    training = prepare_training(
        model, objective, OptimConfig(), 1000, schedule=schedule, engine=engine, accelerator=accelerator
    )
    training.trainee.train()
    return training


def whole_step(training: Training, read: Callable[[], Batch], step: int = 0) -> object:
    """Read a batch and take a step with it; what the step reports."""
    return take_step(training, [read()], Position(step=step), 0.0)


def write_photos(folder: Path, count: int) -> None:
    """JPEG files of two classes, as large and about as detailed as photographs: noise of spectrum 1/f."""
    rng, (width, height) = np.random.default_rng(0), PHOTO
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = 1
    for index in range(max(PHOTOS, 2 * count)):
        noise = rng.standard_normal((3, height, width))
        smooth = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=(height, width))
        smooth = 128 + 48 * smooth / smooth.std()
        file = folder / str(index % 2) / f"{index}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(smooth.transpose(1, 2, 0).clip(0, 255).astype(np.uint8)).save(file, quality=90)


def reader(folder: Path, model: MatMamba, setting: Setting) -> Callable[[], Batch]:
    """A function that reads the next batch, in this process, as a training run does."""
    images = open_splits(DataConfig(name="folder", root=str(folder), held_out=0.1)).train
    transform = train_transform(model.input, AugmentConfig())
    loader = make_loader(images, transform, setting.batch_size, shuffle=True)
    endless = _forever(loader)
    return lambda: next(endless)


def _forever(loader: Loader) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from loader.batches(epoch)
        epoch += 1


def growth_mib(setting: Setting, threads: int, widths: Sequence[str]) -> float:
    """MiB that two steps add at most to what is resident with the model and the optimiser made."""
    torch.set_num_threads(threads)
    training = nested_training(setting, "all", widths)
    images = training.model.random_images(setting.batch_size)
    labels = torch.zeros(setting.batch_size, dtype=torch.int64)
    batch = Batch(images, labels, labels, [""] * setting.batch_size, [])
    keep_freed_memory()
    before = resident_mib("VmRSS")
    for _ in range(2):
        whole_step(training, lambda: batch)
    return resident_mib("VmHWM") - before


if __name__ == "__main__":
    main()
