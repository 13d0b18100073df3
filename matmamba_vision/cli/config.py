"""The configuration of a training run: dataclasses hold the defaults, YAML files and flags fill them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from matmamba_datasets import DataConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..training import (
    EngineConfig,
    MixConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    SaveConfig,
    ScheduleConfig,
)
from ..training.folder import flat

C = TypeVar("C")


@dataclass
class TrainConfig:
    """Everything that a training run depends on."""

    # Folder of the run: checkpoint, resolved configuration, metrics.
    output: str = "runs/train"
    # Replace a run that is already there.
    overwrite: bool = False
    # Seed of weights, order and augmentation.
    seed: int = 0
    # cpu, cuda, or auto for whichever is there.
    device: str = "auto"
    # Threads that compute; 0 for as many as torch takes.
    threads: int = 0
    # Compile the blocks with torch.compile first. On a CPU that needs a C++ compiler, and gained nothing when
    # measured (benchmarks/README.md).
    compile: bool = False
    # Measure accuracy on the held-out images every so many epochs, and at the end.
    eval_every: int = 10
    # Steps whose mean becomes a row of metrics.jsonl.
    log_every: int = 50
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


def load_config(file: Path) -> TrainConfig:
    """A run's configuration from a YAML file, defaults elsewhere; `ConfigError` as `load_into`."""
    return load_into(TrainConfig, file)


def load_into(kind: type[C], file: Path) -> C:
    """An instance of a dataclass from a YAML file, defaults elsewhere.

    Raises:
        ConfigError: the file is missing or not YAML, has no keys, or a key is unknown or of the wrong type.
    """
    if not file.is_file():
        raise ConfigError(f"no config file {file}")
    try:
        loaded = OmegaConf.load(file)
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"{file} is a list: it has to have keys with values, such as `key: value`")
        return filled(kind, OmegaConf.to_container(loaded, resolve=False), str(file))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{file}: {error.full_key or 'config'}: {reason}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error


def filled(kind: type[C], values: Any, source: str) -> C:
    """An instance of a dataclass from plain values, which are taken as they are.

    Raises:
        ConfigError: a value refers to another, or to the environment: files come from others, too.
    """
    for key, value in flat(values, ".").items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and "${" in one:
                raise ConfigError(f"{source}: {key}: {one!r} is not looked up: write the value that is meant")
    merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(values))
    return cast("C", OmegaConf.to_object(merged))


# Key, test of the value, and what is allowed.
_BOUNDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("seed", lambda value: 0 <= value < 2**32, "0 to 2^32 - 1"),
    ("threads", lambda value: value >= 0, "0 or more"),
    ("eval_every", lambda value: value >= 1, "1 or more"),
    ("model.drop_path_rate", lambda value: 0 <= value < 1, "from 0 to below 1"),
    ("model.proj_drop_rate", lambda value: 0 <= value < 1, "from 0 to below 1"),
    ("data.batch_size", lambda value: value >= 1, "1 or more"),
    ("data.workers", lambda value: value >= 0, "0 or more"),
    ("data.max_broken", lambda value: 0 <= value <= 1, "from 0 to 1"),
    ("data.augment.scale", lambda value: 0 < value[0] <= value[1] <= 1, "two shares of the area, in order"),
    ("data.augment.ratio", lambda value: 0 < value[0] <= value[1], "two positive numbers, in order"),
    ("data.augment.hflip", lambda value: 0 <= value <= 1, "from 0 to 1"),
    ("data.augment.re_prob", lambda value: 0 <= value <= 1, "from 0 to 1"),
    ("log_every", lambda value: value >= 1, "1 or more"),
    ("schedule.between", lambda value: value >= 0, "0 or more"),
    ("mix.mixup", lambda value: value >= 0, "0 (none) or more"),
    ("mix.cutmix", lambda value: value >= 0, "0 (none) or more"),
    ("mix.prob", lambda value: 0 <= value <= 1, "from 0 to 1"),
    ("mix.switch_prob", lambda value: 0 <= value <= 1, "from 0 to 1"),
    ("engine.accumulate", lambda value: value >= 1, "1 or more"),
    ("save.every_steps", lambda value: value >= 1, "1 or more"),
    ("save.keep", lambda value: value >= 1, "1 or more"),
    ("optim.ema", lambda value: 0 <= value < 1, "0 (none) to below 1"),
    ("objective.label_smoothing", lambda value: 0 <= value < 1, "from 0 to below 1"),
    ("objective.temperature", lambda value: value > 0, "above 0"),
    ("objective.mrl_dims", lambda value: all(dim >= 1 for dim in value), "1 or more each"),
    ("optim.lr", lambda value: value > 0, "above 0"),
    ("optim.epochs", lambda value: value >= 1, "1 or more"),
    ("optim.max_minutes", lambda value: value >= 0, "0 (no limit) or more"),
    ("data.decoded", lambda value: value >= 0, "0 (not kept) or more"),
    ("optim.warmup_epochs", lambda value: value >= 0, "0 or more"),
    ("optim.clip_grad", lambda value: value >= 0, "0 (none) or more"),
)


def check_config(config: TrainConfig) -> None:
    """Raise `ConfigError` naming the first value that cannot work, before anything is started."""
    for key, fits, allowed in _BOUNDS:
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if not fits(value):
            raise ConfigError(f"{key} is {value}: it can be {allowed}")


def save_config(config: TrainConfig, file: Path) -> None:
    """Write the resolved configuration, so that `load_config` gives it back."""
    file.write_text(yaml.safe_dump(as_plain(config), sort_keys=False))


def as_plain(config: TrainConfig) -> dict[str, Any]:
    """The configuration as dictionaries, lists and scalars."""
    # As JSON has it, which knows no tuples.
    return cast("dict[str, Any]", json.loads(json.dumps(asdict(config))))


def shipped_config(name: str) -> Path:
    """A file of `configs/`, from an installed package or from the repository."""
    installed = Path(str(files("matmamba_vision"))) / "configs" / name
    return installed if installed.is_file() else Path(__file__).parents[2] / "configs" / name
