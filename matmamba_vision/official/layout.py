"""The published MatMamba-Vision checkpoints (ScaledFoundations/MatMamba), read into our weight layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .models import MatMamba

# The published code fixes these, whatever its config says.
_EXPAND, _HEADS = 2, 64


def load_official(state_dict: dict[str, Tensor], config: dict[str, Any]) -> MatMamba:
    """A model with the weights of a published checkpoint, in evaluation mode.

    Args:
        state_dict: tensors under the published names, projections packed as [z | x | B | C | dt].
        config: the published constructor arguments: d_model, n_layer, n_classes, patch_size, image_size and
            ssm_cfg with d_state.

    Raises:
        ValueError: a key of `config` is missing, or tensors are missing, left over or of another shape.
    """
    try:
        model = _empty_model(config)
    except KeyError as error:
        raise ValueError(f"config of the published model lacks {error}") from error
    remaining = dict(state_dict)
    try:
        ours = _convert(remaining, model)
    except KeyError as error:
        raise ValueError(f"state dict of the published model lacks {error}") from error
    if remaining:
        raise ValueError(f"state dict of the published model has unknown tensors: {sorted(remaining)[:5]}")
    try:
        model.load_state_dict(ours)
    except RuntimeError as error:
        raise ValueError(f"state dict does not fit the config: {error}") from error
    return model.eval()


def _empty_model(config: dict[str, Any]) -> MatMamba:
    dim = config["d_model"]
    return MatMamba(
        img_size=config["image_size"],
        patch_size=config["patch_size"],
        num_classes=config["n_classes"],
        embed_dim=dim,
        depth=config["n_layer"],
        num_heads=_HEADS,
        head_dim=_EXPAND * dim // _HEADS,
        d_state=config["ssm_cfg"].get("d_state", 128),
    )


def _convert(theirs: dict[str, Tensor], model: MatMamba) -> dict[str, Tensor]:
    """Our state dict, emptying `theirs` of what was used."""
    ours = {name: theirs.pop(name) for name in ("cls_token", "pos_embed")}
    for their_name, name in (("patch_embed.proj", "patch_embed.proj"), ("norm_f", "norm"), ("head", "head")):
        ours |= {f"{name}.{part}": theirs.pop(f"{their_name}.{part}") for part in ("weight", "bias")}
    for index, block in enumerate(model.stack):
        prefix = f"layers.{index}."
        ours |= {
            f"blocks.{index}.norm.{part}": theirs.pop(f"{prefix}norm.{part}") for part in ("weight", "bias")
        }
        mixer = {name: theirs.pop(f"{prefix}mixer.{name}") for name in _PACKED}
        heads, head_dim = block.mixer.norm.shape
        unpacked = unpack_mixer(mixer, heads, head_dim)
        ours |= {f"blocks.{index}.mixer.{name}": tensor for name, tensor in unpacked.items()}
    return ours


_PACKED = (
    "in_proj.weight", "conv1d.weight", "conv1d.bias", "dt_bias", "A_log", "D", "norm.weight",
    "out_proj.weight",
)  # fmt: skip


def unpack_mixer(packed: dict[str, Tensor], heads: int, head_dim: int) -> dict[str, Tensor]:
    """Head-first tensors of a mixer (see `layers.MixerWeights`) from the published packed ones."""
    inner, per_head = heads * head_dim, (heads, head_dim)
    rows = packed["in_proj.weight"]
    z, x, BC, dt = rows.split([inner, inner, rows.shape[0] - 2 * inner - heads, heads])
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
