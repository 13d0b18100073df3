"""MatMamba: a Mamba2 image classifier whose heads are nested (arXiv 2410.06718)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.data import resolve_data_config
from timm.layers import PatchEmbed, to_2tuple, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..layers import Block, Mixer
from ..width import Width, WidthLike, resolve_width

TRAINED_WIDTHS = ("full", "1/2", "1/4", "1/8")
POOLS = ("token", "avg", "")


class MatMamba(nn.Module):
    """Patch embedding, nested Mamba2 blocks, norm, pool, linear head.

    Images are (B, in_chans, S, S). The class token stands last, because the scan is causal. Every method
    takes a `width`: anything `width()` understands, full by default.

    Args:
        img_size, patch_size: pixels. num_heads: heads of each block, or one number for all of them. head_dim,
            d_state, d_conv: Mamba2's P, N and convolution taps. global_pool: "token", "avg" (patch tokens) or
            "" (none). drop_rate: dropout before the head. proj_drop_rate: dropout of each block's update.
            drop_path_rate: stochastic depth of the last block, growing linearly from 0. trained_widths: the
            widths in the training loss, full first. ssd_backend: see `ops.resolve`. chunk_size: largest chunk
            of the scan, in tokens.

    Raises:
        ValueError: an argument that cannot work, named in the message.
    """

    # Set by timm: where the weights come from and how images are to be prepared.
    pretrained_cfg: dict[str, Any] | None = None

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 512,
        depth: int = 20,
        num_heads: int | Sequence[int] = 64,
        head_dim: int = 16,
        d_state: int = 128,
        d_conv: int = 4,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        trained_widths: Sequence[WidthLike] = TRAINED_WIDTHS,
        ssd_backend: str = "auto",
        chunk_size: int = 64,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _require_pool(global_pool)
        size, patch = _whole_patches(img_size, patch_size)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.heads = _heads_per_block(num_heads, depth)
        self.arguments: dict[str, Any] = {
            "img_size": list(size), "patch_size": list(patch), "in_chans": in_chans,
            "num_classes": num_classes, "global_pool": global_pool, "embed_dim": embed_dim, "depth": depth,
            "num_heads": list(self.heads),
            "head_dim": head_dim, "d_state": d_state, "d_conv": d_conv, "drop_rate": drop_rate,
            "proj_drop_rate": proj_drop_rate, "drop_path_rate": drop_path_rate, "chunk_size": chunk_size,
        }  # fmt: skip
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.ssd_backend = ssd_backend
        self.grad_checkpointing = False

        self.patch_embed = PatchEmbed(size, patch, in_chans, embed_dim, **place)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim, **place))
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches + 1, embed_dim, **place))
        self.blocks = self._make_blocks(place)
        self.norm = nn.LayerNorm(embed_dim, **place)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = _linear_head(embed_dim, num_classes, **place)
        self.trained_widths = _largest_first(tuple(map(self.width, trained_widths)), self.heads)
        self.init_weights()

    def _make_blocks(self, place: dict[str, Any]) -> nn.ModuleList:
        """One block for each entry of `heads`; stochastic depth grows linearly from 0."""
        known, blocks = self.arguments, []
        shape = known["head_dim"], known["d_state"], known["d_conv"]
        for index, heads in enumerate(self.heads):
            mixer = Mixer(self.embed_dim, heads, *shape, self.ssd_backend, known["chunk_size"], **place)
            drop_path = known["drop_path_rate"] * index / max(1, len(self.heads) - 1)
            blocks.append(Block(mixer, self.embed_dim, known["proj_drop_rate"], drop_path, **place))
        return nn.ModuleList(blocks)

    @property
    def stack(self) -> list[Block]:
        """The blocks, first to last."""
        return cast("list[Block]", list(self.blocks))

    @property
    def input(self) -> dict[str, Any]:
        """How images are to be prepared: timm's data configuration (size, mean, std, interpolation, crop)."""
        return resolve_data_config({}, model=self)  # type: ignore[no-untyped-call]

    def width(self, wanted: WidthLike) -> Width:
        """The `Width` meant by "full", "1/4", 0.25 or a head count per block; `WidthError` if none is."""
        return resolve_width(wanted, self.heads)

    def label(self, wanted: WidthLike) -> str:
        """Short name of a width of this model, such as "1/4"."""
        return self.width(wanted).label(self.heads)

    def forward(self, x: Tensor, width: WidthLike | None = None) -> Tensor:
        """Logits (B, num_classes) of images (B, in_chans, S, S)."""
        return self.forward_head(self.forward_features(x, width))

    def forward_features(self, x: Tensor, width: WidthLike | None = None) -> Tensor:
        """Normalised tokens (B, L, D): patches in raster order, then the class token."""
        x = self.patch_embed(x)
        x = torch.cat([x, self.cls_token.expand(x.shape[0], -1, -1)], dim=1) + self.pos_embed
        heads = self.heads if width is None else self.width(width).heads
        for block, active in zip(self.stack, heads, strict=True):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, active, use_reentrant=False)
            else:
                x = block(x, active)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, L, D) to logits (B, num_classes), or to the pooled features (B, D) if `pre_logits`."""
        x = self.head_drop(self._pool(x))
        return x if pre_logits else self.head(x)

    def embed(self, x: Tensor, width: WidthLike | None = None, dim: int | None = None) -> Tensor:
        """Embeddings (B, dim), float32, L2-normalised: the leading `dim` pooled features (MRL).

        Raises:
            ValueError: `dim` is not in 1..D, or the model does not pool.
        """
        if not self.global_pool:
            raise ValueError("a model with global_pool '' has no embedding: it keeps every token")
        dim = self.embed_dim if dim is None else dim
        if not 1 <= dim <= self.embed_dim:
            raise ValueError(f"embedding dim {dim} is not in 1..{self.embed_dim}")
        return F.normalize(self._pool(self.forward_features(x, width))[:, :dim].float(), dim=-1)

    def _pool(self, x: Tensor) -> Tensor:
        if self.global_pool == "token":
            return x[:, -1]
        return x[:, :-1].mean(dim=1) if self.global_pool == "avg" else x

    def get_classifier(self) -> nn.Module:
        """The linear head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a fresh one for `num_classes` classes (0: none), and the pooling if given."""
        self.global_pool = self.global_pool if global_pool is None else _require_pool(global_pool)
        self.num_classes = num_classes
        like = self.pos_embed
        self.head = _linear_head(self.embed_dim, num_classes, device=like.device, dtype=like.dtype)
        self.arguments |= {"num_classes": num_classes, "global_pool": self.global_pool}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def compile_blocks(self) -> None:
        """Compute the mixers by `torch.compile` from now on: one graph for each width, when it is first used.

        Blocks of equal size share it, and the batch size is free. Results agree up to rounding.
        """
        for block in self.stack:
            block.mixer.compile(fullgraph=True, dynamic=False)
            block.compiled = True

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are vectors per channel or per head, whatever their shape."""
        plain = ("A_log", "D", "dt_bias", "norm", "conv_x_bias", "conv_BC_bias")
        vectors = {
            name for name, _ in self.named_parameters() if ".mixer." in name and name.split(".")[-1] in plain
        }
        return vectors | {"pos_embed", "cls_token"}

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise every parameter; output projections are scaled by 1/sqrt(depth)."""
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)
        for block in self.stack:
            block.mixer.reset_parameters(out_scale=max(1, len(self.blocks)) ** -0.5)


def _require_pool(global_pool: str) -> str:
    if global_pool not in POOLS:
        raise ValueError(f"global_pool {global_pool!r} is none of {POOLS}")
    return global_pool


def _whole_patches(img_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> tuple[Any, Any]:
    """(height, width) of image and of patch, if patches fill the image; Any: timm types them as int."""
    size, patch = to_2tuple(img_size), to_2tuple(patch_size)
    if any(whole < part or whole % part for whole, part in zip(size, patch, strict=True)):
        raise ValueError(f"img_size {img_size} is not a multiple of patch_size {patch_size}")
    return size, patch


def _heads_per_block(num_heads: int | Sequence[int], depth: int) -> tuple[int, ...]:
    heads = (num_heads,) * depth if isinstance(num_heads, int) else tuple(num_heads)
    if len(heads) != depth or any(count < 1 for count in heads):
        raise ValueError(f"num_heads {list(heads)} is not {depth} positive numbers, one for each block")
    return heads


def _largest_first(widths: tuple[Width, ...], full: tuple[int, ...]) -> tuple[Width, ...]:
    """The widths, if the full one stands first and each is no larger than the one before it, its teacher."""
    sizes = [sum(width.heads) for width in widths]
    ordered = sizes == sorted(sizes, reverse=True) and len({*widths}) == len(widths)
    if not widths or widths[0].heads != full or not ordered:
        labels = [width.label(full) for width in widths]
        raise ValueError(
            f"trained_widths {labels}: give different ones, full first, then from large to small"
        )
    return widths


def _linear_head(dim: int, classes: int, **place: Any) -> nn.Module:
    if classes == 0:
        return nn.Identity()
    head = nn.Linear(dim, classes, **place)
    trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
