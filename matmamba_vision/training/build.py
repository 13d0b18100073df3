"""The model that a run starts from: a fresh one, or a checkpoint made to fit."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

from ..checkpoint import (
    CheckpointError,
    ForeignFileError,
    checkpoint_file,
    fit_weights,
    load_checkpoint,
    unwrapped,
)
from ..encoders import is_named
from ..errors import ConfigError
from ..models import Architecture, MatMamba, importance_of_weights, sort_heads
from ..models.matmamba import TRAINED_WIDTHS
from ..models.registry import checkpoint_filter_fn
from ..nearest import did_you_mean
from ..official import load_official
from ..official.source import CONFIG, read_weights
from .sections import ModelConfig

# What is done with a model, rather than asked of its constructor.
_DONE_TO_IT = ("init", "warm_start", "sort_heads", "head_bias", "grad_checkpointing")
# What a model does not take over when it begins with another's weights.
_ANEW = ("head.", "projection.")
# What a checkpoint's weights would not fit.
_ARCHITECTURE = ("scan", "mean_token", "reg_tokens", "mlp_ratio", "projection", "global_pool")
_RATES = ("drop_rate", "proj_drop_rate", "drop_path_rate")


def build_model(config: ModelConfig, classes: int) -> MatMamba:
    """A model to train, on the CPU: of a registered variant, or from the checkpoint `config.init`.

    A checkpoint keeps its weights and, if it has as many classes, its head; another number of classes gets a
    new head, and other image or patch sizes get positions and patch weights by interpolation. Its rates of
    dropout are those of `config`. With `sort_heads`, a checkpoint that was trained at full width alone gets
    the usual trained widths, unless `config` names others.

    Args:
        config: which model, and what is changed about it.
        classes: outputs of the head.

    Raises:
        ConfigError: no such variant; a setting that cannot work, or not together with `init`.
        CheckpointError: `init` cannot be read.
    """
    if config.sort_heads and not config.init:
        raise ConfigError("model.sort_heads sorts the heads of a checkpoint: name it by model.init")
    if config.init and config.warm_start:
        raise ConfigError("model.init and model.warm_start: a model begins with one checkpoint")
    model = _from_checkpoint(config, config.init, classes) if config.init else _fresh(config, classes)
    model.set_grad_checkpointing(config.grad_checkpointing)
    return model.train()


def _fresh(config: ModelConfig, classes: int) -> MatMamba:
    known = timm.list_models(module="registry")
    if config.name not in known:
        raise ConfigError(
            f"model {config.name!r} is none with nested widths: take one of {', '.join(known)}"
            f"{did_you_mean(config.name, known)}"
        )
    arguments: dict[str, Any] = {
        name: value for name, value in asdict(config).items() if value is not None and name not in _DONE_TO_IT
    }
    arguments |= {"num_classes": classes, "model_name": arguments.pop("name")}
    if config.img_size:
        arguments["pretrained_cfg_overlay"] = {"input_size": (3, config.img_size, config.img_size)}
    try:
        model = timm.create_model(**arguments)
    except TypeError as error:
        raise ConfigError(f"model: {error}") from error
    assert isinstance(model, MatMamba)
    _set_head_bias(model, config)
    if config.warm_start:
        _take_weights(model, config.warm_start)
    return model


def _take_weights(model: MatMamba, source: str) -> None:
    """Give a model the weights of a checkpoint, but for projection and classifier, in place."""
    weights = checkpoint_filter_fn(load_checkpoint(source).model.float().state_dict(), model)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(_ANEW)}
    weights = {name: value for name, value in weights.items() if not name.startswith(_ANEW)}
    unfit = [
        name
        for name in sorted(own.keys() | weights)
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    ]
    if unfit:
        raise ConfigError(
            f"model.warm_start: {len(unfit)} weights of {source} do not fit this model, such as {unfit[0]}"
        )
    model.load_state_dict(weights, strict=False)


def _from_checkpoint(config: ModelConfig, init: str, classes: int) -> MatMamba:
    model = _load(init, config)
    _require_architecture(config, model.architecture, init)
    if config.head_bias is not None and model.num_classes == classes:
        raise ConfigError(f"model.head_bias: {init} has {classes} classes already, and keeps its head")
    if config.sort_heads:
        model = sort_heads(model, importance_of_weights(model))
    model.set_input_size(config.img_size, config.patch_size)
    if model.num_classes != classes:
        model.reset_classifier(classes)
        _set_head_bias(model, config)
    return _made_again(model, config)


def _load(init: str, config: ModelConfig) -> MatMamba:
    """A checkpoint of this project, a published one with its config.json beside it, or weights alone."""
    if is_named(init):
        raise ConfigError(
            f"model.init: {init} is no model of ours, from whose weights training could start; `distill`"
            " (`matmamba distill`) trains a student of any encoder"
        )
    try:
        return load_checkpoint(init).model
    except ForeignFileError:
        return _load_foreign(checkpoint_file(init), config)
    except CheckpointError:
        # Published weights have other names, too.
        if Path(init).exists() and not checkpoint_file(init).is_file():
            return _load_foreign(Path(init), config)
        raise


def _load_foreign(file: Path, config: ModelConfig) -> MatMamba:
    """Published weights, or the weights of `config.name` under our names, as `torch.save` writes them."""
    if file.is_dir() or file.with_name(CONFIG).is_file():
        return load_official(file)
    state = unwrapped(read_weights(file))
    head = state.get("head.weight")
    model = _fresh(replace(config, head_bias=None), 0 if head is None else len(head))
    try:
        fit_weights(model, state)
    except ValueError as error:
        raise CheckpointError(f"{file} does not hold the weights of {config.name}: {error}") from error
    return model


def _require_architecture(config: ModelConfig, known: Architecture, init: str) -> None:
    given = {name: getattr(config, name) for name in _ARCHITECTURE}
    other = {
        name: value for name, value in given.items() if value is not None and _differs(known, name, value)
    }
    if other:
        asked = ", ".join(f"model.{name} {value}" for name, value in other.items())
        has = ", ".join(f"{name} {known.as_arguments()[name]}" for name in other)
        raise ConfigError(f"{asked}: the weights of {init} have {has}; leave it out, or train from scratch")


def _differs(known: Architecture, name: str, value: Any) -> bool:
    try:
        return known.changed(**{name: value}) != known
    except ValueError:
        return True


def _made_again(model: MatMamba, config: ModelConfig) -> MatMamba:
    """The same weights in a model with the rates and trained widths of `config`."""
    rates = {name: getattr(config, name) for name in _RATES}
    fresh = MatMamba(
        **model.architecture.changed(**rates).as_arguments(),
        trained_widths=_trained_widths(model, config),
        ssd_backend=model.ssd_backend,
    )
    fresh.load_state_dict(model.state_dict())
    fresh.pretrained_cfg = copy.deepcopy(model.pretrained_cfg)
    if fresh.pretrained_cfg:
        input_size = (fresh.in_chans, *fresh.patch_embed.img_size)
        fresh.pretrained_cfg |= {"input_size": input_size, "num_classes": fresh.num_classes}
    return fresh


def _trained_widths(model: MatMamba, config: ModelConfig) -> list[Any]:
    if config.trained_widths is not None:
        return [*config.trained_widths]
    ordinary = len(model.trained_widths) == 1
    return [*(TRAINED_WIDTHS if config.sort_heads and ordinary else model.trained_widths)]


def _set_head_bias(model: MatMamba, config: ModelConfig) -> None:
    head = model.get_classifier()
    if config.head_bias is not None and isinstance(head, nn.Linear):
        nn.init.constant_(head.bias, config.head_bias)
