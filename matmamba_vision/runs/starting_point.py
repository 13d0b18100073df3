"""What training starts from where no model is named: for photos, the weights that come with the package.

The settings of such a run are those of `configs/own_photos/fine_tuning.yaml`, and whatever is given goes
before them. Everything else starts with the defaults of `TrainConfig`: another kind of data, a named model or
checkpoint, another architecture, and a run that goes on and was started otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from matmamba_datasets import DataConfig

from ..config_file import load_into, shipped_config
from ..errors import ConfigError
from ..models.shipped import shipped_arguments
from ..training.sections import ModelConfig
from .train_config import TrainConfig, load_config

RECIPE = "own_photos/fine_tuning.yaml"
# Kinds of data that hold photos of one's own.
OWN_PHOTOS = ("folder", "parquet", "shards")
# What can be set about a model without making it another.
_OF_ANY_MODEL = (
    "name",
    "img_size",
    "patch_size",
    "drop_rate",
    "drop_path_rate",
    "proj_drop_rate",
    "trained_widths",
    "head_bias",
    "grad_checkpointing",
)
_UNNAMED = ""

Fill = Callable[[TrainConfig], TrainConfig]
"""Makes a configuration of what is given, over the defaults that it is called with."""


def settings_over_defaults(fill: Fill, resume: str) -> TrainConfig:
    """What is given, over the defaults that it calls for.

    Args:
        fill: makes the configuration.
        resume: as `train` has it.

    Raises:
        ConfigError: whatever `fill` finds wrong.
    """
    config = fill(TrainConfig())
    defaults = defaults_for(config, fill, resume)
    return config if defaults is None else fill(defaults)


def defaults_for(config: TrainConfig, fill: Fill, resume: str) -> TrainConfig | None:
    """The defaults that a configuration calls for; None for those of `TrainConfig`.

    Args:
        config: made over the defaults of `TrainConfig`.
        fill: makes it.
        resume: as `train` has it.

    Raises:
        ConfigError: a folder is given, and nothing says what lies there.
    """
    unnamed = partial(_leaves_unnamed, fill)
    if config.data.root and config.data.name == DataConfig().name and unnamed().data.name == _UNNAMED:
        raise ConfigError(
            f"data.root is {config.data.root}, and nothing says what lies there: give a data.name, such as"
            f" {' or '.join(OWN_PHOTOS)}"
        )
    fits = config.data.name in OWN_PHOTOS and _fits(config.model) and _began_so(config.output, resume)
    return fine_tuning() if fits and unnamed().model.name == _UNNAMED else None


def _leaves_unnamed(fill: Fill) -> TrainConfig:
    """What is given, without a name for data and model where it has none."""
    return fill(TrainConfig(data=DataConfig(name=_UNNAMED), model=ModelConfig(name=_UNNAMED)))


def fine_tuning() -> TrainConfig:
    """Defaults of a training that starts from the weights for photos that come with the package."""
    return load_config(shipped_config(RECIPE))


def _fits(model: ModelConfig) -> bool:
    """Whether the weights fit what is asked of the model: its parts, and a quarter of its patches or more."""
    if replace(ModelConfig(), **{name: getattr(model, name) for name in _OF_ANY_MODEL}) != model:
        return False
    known = shipped_arguments(str(fine_tuning().model.init))
    size, patch = max(known["img_size"]), max(known["patch_size"])
    asked = model.img_size or size
    return model.patch_size in (None, patch) and asked % patch == 0 and asked >= size // 2


def _began_so(output: str, resume: str) -> bool:
    """Whether the run that goes on, if one does, started from these weights."""
    if resume == "no":
        return True
    folder = Path(output) if resume == "auto" else Path(resume).parent.parent
    file = folder / "config.yaml"
    try:
        return not file.is_file() or load_into(TrainConfig, file).model.init == fine_tuning().model.init
    except ConfigError:
        # Another command's, or another version's: what is wrong with it is said when it is resumed.
        return True
