"""The published constructor arguments, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matmamba_common.words import shown

from ..errors import ConfigError
from ..models import MatMamba

# Published name: ours, and the published default.
_SIZES = {
    "d_model": ("embed_dim", None),
    "n_layer": ("depth", None),
    "n_classes": ("num_classes", 1000),
    "patch_size": ("patch_size", 16),
    "image_size": ("img_size", 224),
}
_STATE_SIZES = {"d_state": 128, "d_conv": 4}
_RATES = ("drop_rate", "proj_drop_rate", "drop_path_rate")
_POOLS = {"cls": "token", "avg": "avg"}
# What a published model may have, and ours may not.
_FIXED: dict[str, Any] = {"d_intermediate": 0, "attn_layer_idx": [], "rms_norm": False, "norm_epsilon": 1e-5}
_FIXED_MIXER: dict[str, Any] = {
    "layer": "MatMamba2", "expand": 2, "d_ssm": None, "ngroups": 1, "bias": False, "conv_bias": True,
    "rmsnorm": True, "norm_before_gate": False, "D_has_hdim": False, "dt_limit": None,
}  # fmt: skip
# How a result is computed, not what it is.
_FREE = ("chunk_size",)


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `MatMamba` for a published config; the published defaults stand for what it lacks.

    The published code makes heads of d_model // 32, whatever the config says.

    Raises:
        ConfigError: naming the key of `config` that is missing, wrong, or asks for what `MatMamba` has not.
    """
    mixer = config.get("ssm_cfg") or {}
    if not isinstance(mixer, Mapping):
        raise ConfigError(
            f"config: ssm_cfg is {shown(mixer)}: it can be a mapping, such as {{'d_state': 128}}"
        )
    _require_fixed(config, _FIXED)
    _require_fixed(mixer, _FIXED_MIXER)
    sizes = {ours: _size(config, key, ours, default) for key, (ours, default) in _SIZES.items()}
    dim = sizes["embed_dim"]
    head_dim = dim // 32
    if not head_dim or 2 * dim % head_dim:
        raise ConfigError(f"config: d_model (embed_dim) {dim} has no whole heads of d_model // 32")
    pool = config.get("pool", "cls")
    if pool not in list(_POOLS):
        raise ConfigError(
            f"config: pool (global_pool) {pool!r} is none of {', '.join(sorted(map(str, _POOLS)))}"
        )
    shape = {key: _size(mixer, key, key, default) for key, default in _STATE_SIZES.items()}
    heads = {"num_heads": 2 * dim // head_dim, "head_dim": head_dim}
    return {**sizes, **heads, **shape, **_rates(config), "global_pool": _POOLS[pool]}


def config_of(model: MatMamba) -> dict[str, Any]:
    """The published config of `model`, without what is the published default.

    Raises:
        ConfigError: naming the argument of `model` that no published config expresses.
    """
    ours = model.arguments
    # Pairs, and a number for each block, with us are one number there.
    first = {name: value[0] if isinstance(value, list) and value else value for name, value in ours.items()}
    config: dict[str, Any] = {key: first[name] for key, (name, _) in _SIZES.items()}
    config["ssm_cfg"] = {
        key: first[key] for key, default in _STATE_SIZES.items() if key == "d_state" or first[key] != default
    }
    config |= {key: ours[key] for key in _RATES if ours[key]}
    config |= {"pool": "avg"} if ours["global_pool"] == "avg" else {}
    expressed = MatMamba(**arguments_of(config), device="meta").arguments
    for name, value in ours.items():
        if value != expressed[name] and name not in _FREE:
            raise ConfigError(
                f"{name} {value!r} is not in the published layout, which has {expressed[name]!r}"
            )
    return config


def _require_fixed(config: Mapping[str, Any], fixed: dict[str, Any]) -> None:
    for key, only in fixed.items():
        # Published files write an absent list as null or as [].
        if (config.get(key, only) or None) != (only or None):
            raise ConfigError(f"config: {key} {shown(config[key])} is not supported, only {shown(only)}")


def _size(config: Mapping[str, Any], key: str, ours: str, default: int | None) -> int:
    value = config.get(key, default)
    if value is None:
        raise ConfigError(f"config of the published model lacks {key!r}")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"config: {key} ({ours}) {shown(value)} is not a positive whole number")
    return value


def _rates(config: Mapping[str, Any]) -> dict[str, float]:
    rates = {key: config[key] for key in _RATES if config.get(key)}
    for key, rate in rates.items():
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ConfigError(f"config: {key} {shown(rate)} is not in [0, 1)")
    return rates
