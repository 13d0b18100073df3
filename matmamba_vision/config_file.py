"""Configurations in files: YAML fills the dataclasses that hold the defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from matmamba_common.lazy import Deferred
from matmamba_common.words import in_words, shown

from .errors import ConfigError
from .nearest import did_you_mean
from .plain import plain_number

if TYPE_CHECKING:
    import omegaconf
    import yaml
else:
    omegaconf, yaml = Deferred("omegaconf"), Deferred("yaml")

C = TypeVar("C")


def load_into(kind: type[C], file: Path, defaults: C | None = None) -> C:
    """An instance of a dataclass from a YAML file, defaults elsewhere.

    Args:
        kind: the dataclass.
        file: to read.
        defaults: an instance, where they are others than those of the dataclass.

    Raises:
        ConfigError: the file is missing or not YAML, has no keys, or a key is unknown or of the wrong type.
    """
    file = found_config(file)
    if not file.is_file():
        raise ConfigError(f"no config file {file}")
    try:
        loaded = omegaconf.OmegaConf.load(file)
        if not isinstance(loaded, omegaconf.DictConfig):
            raise ConfigError(f"{file} is a list: it has to have keys with values, such as `key: value`")
        return filled(kind, omegaconf.OmegaConf.to_container(loaded, resolve=False), str(file), defaults)
    except omegaconf.errors.OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{file}: {error.full_key or 'config'}: {reason}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error


def filled(kind: type[C], values: Any, source: str, defaults: C | None = None) -> C:
    """An instance of a dataclass from plain values, which are taken as they are; defaults elsewhere.

    Args:
        kind: the dataclass.
        values: by key, nested as its fields are.
        source: what the values come from, for messages.
        defaults: an instance, where they are others than those of the dataclass.

    Raises:
        ConfigError: a key is unknown or of the wrong type; or a value refers to another, or to the
            environment: files come from others, too.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source} is {shown(values)}: it can be a mapping of settings")
    for key, value in flat(values, ".").items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and "${" in one:
                raise ConfigError(f"{source}: {key}: {one!r} is not looked up: write the value that is meant")
    try:
        merged = omegaconf.OmegaConf.merge(
            omegaconf.OmegaConf.structured(kind if defaults is None else defaults),
            omegaconf.OmegaConf.create(dict(values)),
        )
        return cast("C", omegaconf.OmegaConf.to_object(merged))
    # The second is what it raises for a list where keys belong, or keys where a list belongs.
    except (omegaconf.errors.OmegaConfBaseException, TypeError) as error:
        raise ConfigError(f"{source}: {_fault(kind, values) or str(error).splitlines()[0]}") from error


def _fault(kind: type[Any], values: Mapping[str, Any], before: str = "") -> str | None:
    """What is wrong with the first value that a dataclass does not take; None if it takes them all."""
    hints = get_type_hints(kind)
    for key, value in values.items():
        name, hint = f"{before}{key}", hints.get(key)
        if hint is None:
            return f"unknown key {name}{did_you_mean(str(key), hints)}"
        if is_dataclass(hint) and isinstance(value, Mapping):
            fault = _fault(hint, value, f"{name}.")  # type: ignore[arg-type]
        else:
            words = "a mapping of settings" if is_dataclass(hint) else in_words(hint)
            fault = None if _takes(kind, {key: value}) else f"{name} is {shown(value)}: it can be {words}"
        if fault is not None:
            return fault
    return None


def _takes(kind: type[Any], values: Mapping[str, Any]) -> bool:
    """Whether these values of a dataclass are of its types, or can be read as such."""
    try:
        omegaconf.OmegaConf.merge(
            omegaconf.OmegaConf.structured(kind), omegaconf.OmegaConf.create(dict(values))
        )
    except (omegaconf.errors.OmegaConfBaseException, TypeError):
        return False
    return True


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration, a dataclass, as dictionaries, lists and scalars."""
    # As JSON has it, which knows no tuples.
    return cast("dict[str, Any]", json.loads(json.dumps(asdict(config), default=plain_number)))


def flat(row: Mapping[str, Any], separator: str, before: str = "") -> dict[str, Any]:
    """Entries of nested mappings in one, by names that are joined."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, separator, f"{before}{name}{separator}") if inner else {f"{before}{name}": value}
    return found


def found_config(file: Path) -> Path:
    """The file that is meant: one of `configs/`, which comes with the package, is found from any folder."""
    if file.is_file() or file.parts[:1] != ("configs",) or ".." in file.parts:
        return file
    shipped = shipped_config(file.relative_to("configs").as_posix())
    return shipped if shipped.is_file() else file


def shipped_config(name: str) -> Path:
    """A file of `configs/`, from an installed package or from the repository."""
    installed = Path(str(files("matmamba_vision"))) / "configs" / name
    return installed if installed.is_file() else Path(__file__).parents[1] / "configs" / name
