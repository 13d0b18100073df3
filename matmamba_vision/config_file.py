"""Dataclasses that hold settings, filled from YAML files and from plain values."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import ConfigError
from .training.folder import flat

C = TypeVar("C")


def load_into(kind: type[C], file: Path) -> C:
    """An instance of a dataclass from a YAML file, defaults elsewhere.

    Args:
        kind: the dataclass.
        file: to read.

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

    Args:
        kind: the dataclass.
        values: a mapping of its fields; those that are missing keep their defaults.
        source: where they are from, for messages.

    Raises:
        ConfigError: a value refers to another, or to the environment: files come from others, too.
    """
    for key, value in flat(values, ".").items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and "${" in one:
                raise ConfigError(f"{source}: {key}: {one!r} is not looked up: write the value that is meant")
    merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(values))
    return cast("C", OmegaConf.to_object(merged))


def shipped_config(name: str) -> Path:
    """A file of `configs/`, from an installed package or from the repository."""
    installed = Path(str(files("matmamba_vision"))) / "configs" / name
    return installed if installed.is_file() else Path(__file__).parents[1] / "configs" / name
