"""The configuration of a training run: dataclasses hold the defaults, YAML files and flags fill them."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from matmamba_common.settings import CREW, Bounds, check
from matmamba_common.words import shown
from matmamba_datasets import DataConfig
from matmamba_datasets.registry import folders_read

from ..config_file import as_plain, filled, load_into
from ..galleries.drawn_apart import require_apart
from ..given import PathLike, require_folder, require_path
from ..public_call import public_call
from ..training import (
    EngineConfig,
    MixConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RegressionConfig,
    SaveConfig,
    ScheduleConfig,
)

T = TypeVar("T", bound="TrainConfig")


@dataclass
class TrainConfig:
    """Everything that a training run depends on."""

    # Folder of the run: checkpoint, resolved configuration, metrics.
    output: str = "runs/train"
    # Replace a run that is already there.
    overwrite: bool = False
    # Seed of weights, order and augmentation.
    seed: Annotated[int, Bounds(least=0, most=2**32 - 1)] = 0
    # cpu, cuda, or auto for whichever is there.
    device: str = "auto"
    # Threads that compute; 0 for as many as torch takes.
    threads: Annotated[int, CREW] = 0
    # Compile the blocks with torch.compile first. On a CPU that needs a C++ compiler, and gained nothing when
    # measured (benchmarks/README.md).
    compile: bool = False
    # Measure accuracy on the held-out images every so many epochs, and at the end.
    eval_every: Annotated[int, Bounds(least=1)] = 10
    # Steps whose mean becomes a row of metrics.jsonl.
    log_every: Annotated[int, Bounds(least=1)] = 50
    # Where metrics go besides: tensorboard, wandb, or auto for those that are installed.
    trackers: list[str] = field(default_factory=lambda: ["auto"])
    # The model.
    model: ModelConfig = field(default_factory=ModelConfig)
    # The images.
    data: DataConfig = field(default_factory=DataConfig)
    # The loss: weights of its terms, each summed over the trained widths.
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    # Which trained widths a step trains.
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    # Mixup and CutMix.
    mix: MixConfig = field(default_factory=MixConfig)
    # Optimiser and schedule; names are timm's.
    optim: OptimConfig = field(default_factory=OptimConfig)
    # Precision, accumulation and processes.
    engine: EngineConfig = field(default_factory=EngineConfig)
    # What is kept to resume from, and as the best.
    save: SaveConfig = field(default_factory=SaveConfig)


@dataclass
class DistillConfig(TrainConfig):
    """Everything that the training of a student depends on."""

    # Folder of the run: checkpoint, resolved configuration, metrics.
    output: str = "runs/distill"
    # timm:NAME, open_clip:ARCH/TAG, an ONNX file, a run or checkpoint of ours, or a .npy file of vectors.
    teacher: str = ""
    # Height and width of the teacher's images in pixels; None for its own.
    teacher_size: Annotated[int | None, Bounds(least=1)] = None
    # Folders of images, of Parquet files or of shards.
    images: list[str] = field(default_factory=list)
    # How often an epoch sees the images of each; once by default.
    repeats: Annotated[list[int], Bounds(least=1)] = field(default_factory=list)
    # Whether the labels of each count; none do by default.
    labelled: list[bool] = field(default_factory=list)
    # Length of the student's embedding: leading coordinates of the teacher's rotated space.
    dim: Annotated[int, Bounds(least=1)] = 256
    # Training images, picked by chance, whose teacher vectors the rotation is fitted to.
    rotation_images: Annotated[int, Bounds(least=2)] = 20000
    # Fixed views of each image, of which the teacher's vectors are computed once and kept: the middle, then
    # random crops. The student sees these views alone, each epoch the next of them. 0: the teacher sees
    # what the student sees, anew each time, which takes a GPU.
    crops: Annotated[int, Bounds(least=0, most=256, zero="anew")] = 0
    # Seed of the fixed views, which runs with other seeds can share.
    crop_seed: Annotated[int, Bounds(least=0, most=2**32 - 1)] = 0
    # Folder of those vectors, for several runs and several teachers; empty for one in the run.
    cache: str = ""
    # What identifies teacher and rotation; the run fills these in.
    teacher_digest: Annotated[str, tyro.conf.Suppress] = ""
    rotation_digest: Annotated[str, tyro.conf.Suppress] = ""
    # The student.
    model: ModelConfig = field(default_factory=lambda: ModelConfig(name="matmamba_mini_patch16_128"))
    # The loss of labels and between widths.
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(
            cross_entropy=0.5, mrl=0.0, distillation=0.0, teacher="largest"
        )
    )
    # The loss against the teacher.
    follow: RegressionConfig = field(default_factory=RegressionConfig)


@public_call
def load_config(file: PathLike) -> TrainConfig:
    """A run's configuration from a YAML file, defaults elsewhere.

    Args:
        file: such as the config.yaml of a run.

    Raises:
        ConfigError: the file is missing or not YAML, or a key is unknown or of the wrong type.
        TypeError: it is no path.
    """
    return load_into(TrainConfig, require_path("file", file))


def config_of(
    kind: type[T], config: T | Mapping[str, Any] | str | os.PathLike[str], defaults: T | None = None
) -> T:
    """A configuration of its own, which a run may fill in, from whatever a caller has.

    Args:
        kind: its class.
        config: one of that class, a mapping of its values (defaults elsewhere), or the path of a YAML file.
        defaults: where they are others than those of the class.

    Raises:
        ConfigError: a key or a value that cannot be, or a file that cannot be read.
        TypeError: it is something else.
    """
    if type(config) is kind:
        return copy.deepcopy(config)
    if isinstance(config, Mapping):
        return filled(kind, dict(config), "config", defaults)
    if isinstance(config, str | os.PathLike):
        return load_into(kind, Path(config), defaults)
    raise TypeError(
        f"config is {shown(config)}: it can be a {kind.__name__}, a mapping of its values, or the"
        " path of a YAML file"
    )


def check_config(config: TrainConfig) -> None:
    """Refuse the first value that cannot work, before anything is started.

    Raises:
        ConfigError: the message names the setting, its value and what would be allowed.
        TypeError: a value is of a wrong type.
    """
    check(config)
    output = require_folder("output", config.output)
    require_apart("output", output, folders_read(config.data), is_run=True)


def save_config(config: TrainConfig, file: Path) -> None:
    """Write the resolved configuration, so that `load_config` gives it back."""
    import yaml

    file.write_text(yaml.safe_dump(as_plain(config), sort_keys=False))
