"""Weights that come with the package: `weights/VARIANT.safetensors`, as `save_checkpoint` writes them.

Their classes, input and architecture are read from their headers.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matmamba_common.lazy import Deferred

if TYPE_CHECKING:
    import safetensors
else:
    safetensors = Deferred("safetensors")

FOLDER = Path(str(files("matmamba_vision"))) / "weights"
# Where the header has what `save_checkpoint` wrote.
HEADER = "matmamba"
# Arguments of the run that trained, not of the model that it left.
_OF_TRAINING = ("drop_rate", "proj_drop_rate", "drop_path_rate")


def shipped_file(variant: str) -> Path | None:
    """The weights of a registered variant, if some are shipped."""
    file = FOLDER / f"{variant}.safetensors"
    return file if file.is_file() else None


def shipped_variants() -> list[str]:
    """The variants whose weights are shipped."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def shipped_cfg(variant: str) -> dict[str, Any]:
    """What timm is to know of a variant with weights: their file, classes and input; nothing without."""
    file = shipped_file(variant)
    if file is None:
        return {}
    header = read_header(file)
    prepared = {
        key: tuple(value) if isinstance(value, list) else value for key, value in header["input"].items()
    }
    return prepared | {
        "file": str(file),
        "num_classes": header["arguments"]["num_classes"],
        "label_names": tuple(header["classes"]) or None,
    }


def shipped_arguments(variant: str) -> dict[str, Any]:
    """Constructor arguments of the model whose weights are shipped; nothing if there are none."""
    file = shipped_file(variant)
    if file is None:
        return {}
    header = read_header(file)
    known = {name: value for name, value in header["arguments"].items() if name not in _OF_TRAINING}
    return known | {"trained_widths": header["trained_widths"]}


def read_header(file: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote beside the weights.

    Raises:
        KeyError: this project did not write the file.
        OSError: it cannot be read.
        ConfigError: its header is damaged.
        SafetensorError: it is damaged.
    """
    with safetensors.safe_open(file, framework="numpy") as opened:
        header: dict[str, Any] = json.loads((opened.metadata() or {})[HEADER])
    return header
