"""Published MatMamba-Vision checkpoints as models, and models as published checkpoints."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from matmamba_common.settings import require
from matmamba_common.words import shown
from safetensors.torch import save
from torch import Tensor

from ..checkpoint import FILE_NAME, CheckpointError, unwrapped, write_whole
from ..errors import ConfigError
from ..models import MatMamba
from ..public_call import public_call
from .layout import pack, unpack
from .published_config import arguments_of, config_of
from .source import CONFIG, PICKLED, SUFFIXES, Config, locate, read_config, read_weights

_VARIANT = "matmamba_small_patch16_224"


@public_call
def load_official(
    source: Mapping[str, Any] | str | os.PathLike[str], config: Config | None = None
) -> MatMamba:
    """A model with the weights of a published checkpoint (arXiv 2410.06718), float32, in evaluation mode.

    Args:
        source: tensors under the published names, projections packed as [z | x | B | C | dt]; or a file of
            them (safetensors, or PyTorch's, from which no code is run); or a folder with such a file; or a
            name on the Hugging Face Hub, such as "scaledfoundations/MatMamba-Vision-35M-ImageNet". They may
            stand under "model" or "state_dict", and begin with "module." or "_orig_mod.".
        config: the published constructor arguments, of which d_model and n_layer have no default; or their
            JSON file, which is the config.json beside the weights if nothing is given.

    Raises:
        ConfigError: naming the key of `config`, or the tensors that are missing, left over, of another shape
            or not finite.
        CheckpointError: the same of a file, which is named, too; or why the Hub gave none.
    """
    if isinstance(source, Mapping):
        if config is None:
            raise ConfigError("a state dict does not say its sizes: give `config`, the published arguments")
        return _build(source, read_config(config))
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source is {shown(source)}: it can be a state dict, a path or a name on the Hub")
    file, config = locate(source, config)
    arguments, weights = read_config(config), read_weights(file)
    try:
        return _build(weights, arguments)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


@public_call
@torch.no_grad()
def to_official(model: MatMamba) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Published state dict and config of `model`: copies on the CPU, such that `load_official` gives it back.

    Raises:
        ConfigError: naming the argument or the tensors of `model` that the published layout has no place for:
            it has raster order, mixers only, and heads of d_model // 32 in every block.
    """
    require("model", model, MatMamba)
    config = config_of(model)
    packed = pack(model.state_dict(), len(model.heads))
    # Contiguous, whatever memory format the model was moved to.
    whole = torch.contiguous_format
    return {name: tensor.cpu().clone(memory_format=whole) for name, tensor in packed.items()}, config


@public_call
def save_official(model: MatMamba, path: str | os.PathLike[str]) -> Path:
    """Write `model` as a published checkpoint, both of its files or none.

    Args:
        model: of raster order, as `to_official` takes it.
        path: a folder, which gets model.safetensors and config.json; or the weights' file, beside which
            config.json is put. The published `from_pretrained` reads a file named pytorch_model.bin.

    Returns:
        The weights' file.

    Raises:
        ConfigError: as `to_official`; nothing is written.
    """
    state, config = to_official(model)
    path = Path(path)
    file = path if path.suffix in SUFFIXES else path / FILE_NAME
    about = json.dumps(config, indent=4) + "\n"
    write_whole({file: _encode(state, file.suffix), file.with_name(CONFIG): about.encode()})
    return file


def _encode(state: dict[str, Tensor], suffix: str) -> bytes:
    if suffix not in PICKLED:
        return save(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _build(state: Any, config: Mapping[str, Any]) -> MatMamba:
    # By a name that timm knows, so that whatever is made of the model can be saved for timm.
    model: MatMamba = timm.create_model(_VARIANT, **arguments_of(config))  # type: ignore[assignment]
    depth = len(model.heads)
    theirs = _fitting(unwrapped(state), pack(model.state_dict(), depth))
    model.load_state_dict(unpack(theirs, depth))
    return model.eval()


def _fitting(theirs: Mapping[str, Any], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """`theirs` in float32, if names and shapes are those of `wanted` and all numbers are finite."""
    if missing := sorted(wanted.keys() - theirs.keys()):
        raise ConfigError(f"state dict of the published model lacks {', '.join(missing[:5])}")
    if unknown := sorted(theirs.keys() - wanted.keys()):
        raise ConfigError(f"state dict of the published model has unknown tensors: {', '.join(unknown[:5])}")
    return {name: _float32(name, theirs[name], like.shape) for name, like in wanted.items()}


def _float32(name: str, tensor: Any, shape: torch.Size) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise ConfigError(f"{name} is not a tensor of floating-point numbers")
    if tensor.shape != shape:
        raise ConfigError(f"{name} has shape {tuple(tensor.shape)}, its config asks for {tuple(shape)}")
    values = tensor.float()
    if not values.isfinite().all():
        raise ConfigError(f"{name} holds numbers that are not finite")
    return values
