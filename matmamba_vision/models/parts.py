"""The modules of a backbone, as its architecture wants them."""

from __future__ import annotations

from typing import Any

from timm.layers import PatchEmbed

from ..layers import Attention, Block, Mixer, MixerSetting, Mlp
from .architecture import Architecture


def make_patch_embed(known: Architecture, place: dict[str, Any]) -> PatchEmbed:
    """Patches to tokens; `place` is device and dtype."""
    size: Any = known.img_size
    patch: Any = known.patch_size
    strict = not known.dynamic_img_size
    return PatchEmbed(size, patch, known.in_chans, known.embed_dim, strict_img_size=strict, **place)


def make_block(known: Architecture, block: int, backend: str, place: dict[str, Any]) -> Block:
    """Block number `block`; stochastic depth grows linearly from 0."""
    dim, heads, hidden = known.embed_dim, known.heads[block], known.hidden(block)
    is_attention = block in known.attention_blocks
    mixer: Mixer | Attention
    if is_attention:
        all_heads = heads if known.nested_attention else dim // known.attn_head_dim
        mixer = Attention(dim, all_heads, known.attn_head_dim, known.nested_attention, **place)
    else:
        setting = MixerSetting(backend, known.chunk_size, known.heads_per_group or heads)
        shape = known.head_dim, known.states[block], known.d_conv
        mixer = Mixer(dim, heads, *shape, setting, known.bias, **place)
    return Block(
        mixer,
        dim,
        Mlp(dim, hidden, heads, **place) if hidden else None,
        scan="rows" if is_attention else known.scans[block],
        mean_of=slice(known.reg_tokens, -1) if known.mean_token and not is_attention else None,
        proj_drop=known.proj_drop_rate,
        drop_path=known.drop_path_rate * block / max(1, known.depth - 1),
        **place,
    )
