"""Folders in the format of the Hugging Face Hub, which timm loads: weights, configuration, model card.

After `import matmamba_vision`, `timm.create_model("local-dir:FOLDER", pretrained=True)` gives the model back,
as does "hf-hub:NAME" once the folder is uploaded. The weights are a checkpoint of this project besides.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.models._hub import save_config_for_hf

from .checkpoint import FILE_NAME, save_checkpoint
from .errors import ConfigError
from .models import MatMamba

CARD, ONNX, CONFIG = "README.md", "model.onnx", "config.json"
# The configuration last: while a folder is being replaced, timm finds none rather than one of other weights.
FILES = (FILE_NAME, CARD, ONNX, CONFIG)


def occupied(folder: Path, overwrite: bool = False) -> Path | None:
    """What stands in the way of a new folder: a file that it would replace, or else a folder not empty.

    Args:
        overwrite: whether an earlier such folder may be replaced. A model card alone is none: somebody's own.

    Raises:
        NotADirectoryError: `folder` is a file.
    """
    present = {file.name for file in folder.iterdir()} if folder.exists() else set()
    if overwrite:
        own = CARD in present and not {FILE_NAME, CONFIG} & present
        return folder / CARD if own else None
    ours = next((folder / name for name in FILES if name in present), None)
    return ours or (folder if present else None)


def require_architecture(model: MatMamba) -> None:
    """Raise ConfigError if timm could not build `model` by name: it was not made by `timm.create_model`."""
    if not (model.pretrained_cfg or {}).get("architecture"):
        raise ConfigError("this model has no timm architecture, so only a .safetensors file can be written")


def save_for_hub(
    folder: Path | str,
    model: MatMamba,
    classes: tuple[str, ...],
    card: str,
    run: dict[str, Any] | None = None,
    attach: Sequence[Path] = (),
    overwrite: bool = False,
) -> None:
    """Write a folder that timm and `load_checkpoint` load, bit for bit; all of it or nothing.

    Args:
        classes: names in the order of the logits.
        card: the model card, Markdown.
        run: the configuration of the training run.
        attach: further files to copy, each named as one of `FILES`.
        overwrite: replace those of `FILES` that an existing folder has; whatever else is there stays.

    Raises:
        FileExistsError: the folder holds something, and `overwrite` is not set.
        ConfigError: timm does not know the model by name.
    """
    require_architecture(model)
    folder = Path(folder).resolve()
    if taken := occupied(folder, overwrite):
        raise FileExistsError(f"{taken} exists")
    partial = folder.with_name(folder.name + ".partial")
    # What a killed process left.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_checkpoint(partial, model, classes, run)
        save_timm_config(partial / CONFIG, model, classes)
        (partial / CARD).write_text(card)
        for file in attach:
            shutil.copy(file, partial)
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_timm_config(file: Path, model: MatMamba, classes: tuple[str, ...]) -> None:
    """Write the file by which timm loads the weights beside it.

    Raises:
        ConfigError: timm does not know the model by name.
    """
    require_architecture(model)
    # Some versions of timm call it a string and open it as a path.
    save_config_for_hf(model, file, {"label_names": list(classes)})  # type: ignore[arg-type]


def _publish(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    (folder / CONFIG).unlink(missing_ok=True)
    for name in FILES:
        if (partial / name).exists():
            (partial / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def hub_metadata(name: str, data: str, accuracies: dict[str, float]) -> dict[str, Any]:
    """What the Hugging Face Hub reads at the head of a card.

    Args:
        data: name of the data set.
        accuracies: on its held-out images, by title; none for not measured.
    """
    known: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["timm", "image-classification", "image-feature-extraction", "matmamba"],
    }
    if not accuracies:
        return known
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": data, "name": data, "split": "held out"},
        "metrics": [
            {"type": "accuracy", "name": title, "value": value} for title, value in accuracies.items()
        ],
    }
    return known | {"model-index": [{"name": name, "results": [result]}]}
