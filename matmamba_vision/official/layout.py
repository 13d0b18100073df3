"""The published layout of the weights, and ours: names, and projections packed as [z | x | B | C | dt]."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError


def pack(ours: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The published state dict that holds our weights of `depth` blocks.

    Raises:
        ConfigError: one of our tensors is missing, or has no place in the published layout.
    """
    try:
        theirs = {name: ours[our_name] for name, our_name in _kept(depth).items()}
        for index in range(depth):
            mixer = pack_mixer(_below(f"blocks.{index}.mixer.", ours))
            theirs |= {f"layers.{index}.mixer.{name}": tensor for name, tensor in mixer.items()}
    except KeyError as error:
        raise ConfigError(f"the published layout needs {error}, which the model lacks") from error
    if left := sorted(ours.keys() - unpack(theirs, depth).keys()):
        raise ConfigError(f"the published layout has no place for {left[:5]}")
    return theirs


def unpack(theirs: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Our state dict, as views, from a published one that is complete."""
    ours = {our_name: theirs[name] for name, our_name in _kept(depth).items()}
    for index in range(depth):
        mixer = unpack_mixer(_below(f"layers.{index}.mixer.", theirs))
        ours |= {f"blocks.{index}.mixer.{name}": tensor for name, tensor in mixer.items()}
    return ours


def pack_mixer(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published packed tensors of a mixer from head-first ones (see `layers.MixerWeights`)."""
    z, x = ours["in_z"].flatten(0, 1), ours["in_x"].flatten(0, 1)
    return {
        "in_proj.weight": torch.cat([z, x, ours["in_BC"], ours["in_dt"]]),
        "conv1d.weight": torch.cat([ours["conv_x"].flatten(0, 1), ours["conv_BC"]]).unsqueeze(1),
        "conv1d.bias": torch.cat([ours["conv_x_bias"].flatten(), ours["conv_BC_bias"]]),
        "dt_bias": ours["dt_bias"],
        "A_log": ours["A_log"],
        "D": ours["D"],
        "norm.weight": ours["norm"].flatten(),
        "out_proj.weight": ours["out"].flatten(1),
    }


def unpack_mixer(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Head-first tensors of a mixer (see `layers.MixerWeights`), as views of the published packed ones."""
    heads, inner = len(packed["D"]), len(packed["norm.weight"])
    per_head = (heads, inner // heads)
    rows = packed["in_proj.weight"]
    z, x, BC, dt = rows.split([inner, inner, len(rows) - 2 * inner - heads, heads])
    kernel, bias = packed["conv1d.weight"].squeeze(1), packed["conv1d.bias"]
    return {
        "in_z": z.unflatten(0, per_head),
        "in_x": x.unflatten(0, per_head),
        "in_BC": BC,
        "in_dt": dt,
        "conv_x": kernel[:inner].unflatten(0, per_head),
        "conv_x_bias": bias[:inner].unflatten(0, per_head),
        "conv_BC": kernel[inner:],
        "conv_BC_bias": bias[inner:],
        "dt_bias": packed["dt_bias"],
        "A_log": packed["A_log"],
        "D": packed["D"],
        "norm": packed["norm.weight"].unflatten(0, per_head),
        "out": packed["out_proj.weight"].unflatten(1, per_head),
    }


def _kept(depth: int) -> dict[str, str]:
    """Published name to ours, of the tensors that are the same in both."""
    modules = {"patch_embed.proj": "patch_embed.proj", "norm_f": "norm", "head": "head"}
    modules |= {f"layers.{index}.norm": f"blocks.{index}.norm" for index in range(depth)}
    parts = {
        f"{name}.{part}": f"{ours}.{part}" for name, ours in modules.items() for part in ("weight", "bias")
    }
    return {"cls_token": "cls_token", "pos_embed": "pos_embed"} | parts


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
