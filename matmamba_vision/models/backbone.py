"""From images to tokens: patch embedding, positions, nested blocks, norm.

`Backbone` is the network; below it stand the functions that build its modules, choose the features that timm
asks for, and fit positions to images of other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError
from ..layers import Attention, Block, Mixer, MixerSetting, Mlp, scan_orders
from ..width import Width, WidthError, WidthLike, resolve_width
from .architecture import Architecture
from .patches import PatchEmbed, fill_normal
from .variants import data_config

FORMATS = ("NCHW", "NLC")
# torch.fx takes them as a whole: what they do depends on their arguments.
for _name in ("positions_for", "require_size", "scan_orders"):
    torch.fx.wrap(_name)


@dataclass(frozen=True)
class Noted:
    """What timm would have noted of a model that was made without it, found out when it is asked for.

    Attributes:
        input: how images are to be prepared.
        found: gives the rest.
    """

    input: Mapping[str, Any]
    found: Callable[[], dict[str, Any]]


class Backbone(nn.Module):
    """A `MatMamba` without pooling and head: it turns images into normalised tokens, at any width.

    Args:
        architecture: what is built.
        trained_widths: the widths in the training loss, full first.
        ssd_backend: see `ops.resolve`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ConfigError: a trained width that this architecture does not have, or in the wrong order.
    """

    norm: nn.Module

    def __init__(
        self,
        architecture: Architecture,
        trained_widths: Sequence[WidthLike],
        ssd_backend: str,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.architecture, self.ssd_backend = architecture, ssd_backend
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        dim = self.embed_dim = self.num_features = self.head_hidden_size = architecture.embed_dim
        self.in_chans = architecture.in_chans
        # Before the patches; the class token stands behind them.
        self.num_prefix_tokens = architecture.reg_tokens
        self.grad_checkpointing = False
        self._noted: dict[str, Any] | Noted | None = None
        self.patch_embed = _make_patch_embed(architecture, place)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim, **place))
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches + 1, dim, **place))
        if architecture.reg_tokens:
            self.reg_token = nn.Parameter(torch.empty(1, architecture.reg_tokens, dim, **place))
        blocks = [_make_block(architecture, block, ssd_backend, place) for block in range(architecture.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, **place)
        self.trained_widths = _largest_first(self._resolved(trained_widths), self.full)

    def _resolved(self, trained_widths: Sequence[WidthLike]) -> tuple[Width, ...]:
        try:
            return tuple(map(self.width, trained_widths))
        except WidthError as error:
            raise WidthError(f"num_heads and trained_widths do not agree: {error}") from error

    @property
    def arguments(self) -> dict[str, Any]:
        """Constructor arguments that give this architecture again, as JSON has them."""
        return self.architecture.as_arguments()

    @property
    def pretrained_cfg(self) -> dict[str, Any] | None:
        """What timm notes: where the weights come from, and how images are to be prepared."""
        if isinstance(self._noted, Noted):
            self._noted = self._noted.found()
        return self._noted

    @pretrained_cfg.setter
    def pretrained_cfg(self, noted: dict[str, Any] | Noted | None) -> None:
        self._noted = noted

    default_cfg = pretrained_cfg

    # What timm notes about a model to save it. It notes what a model was made of; these say what it is now.

    @property
    def _model_args(self) -> dict[str, Any]:
        smaller = [self.label(width) for width in self.trained_widths[1:]]
        return self.arguments | {"trained_widths": ["full", *smaller]}

    @_model_args.setter
    def _model_args(self, noted: dict[str, Any]) -> None:
        pass

    @property
    def _traits(self) -> dict[str, Any]:
        strict = not self.architecture.dynamic_img_size
        size = tuple(self.patch_embed.img_size)
        return {"img_size": size, "fixed_input_size": strict, "first_conv": "patch_embed.proj"}

    @_traits.setter
    def _traits(self, noted: dict[str, Any]) -> None:
        pass

    @property
    def stack(self) -> list[Block]:
        """The blocks, first to last."""
        return cast("list[Block]", list(self.blocks))

    @property
    def full(self) -> Width:
        """All heads and states."""
        return Width(self.architecture.heads, self.architecture.states)

    @property
    def heads(self) -> tuple[int, ...]:
        """All heads of each block."""
        return self.architecture.heads

    @property
    def input(self) -> dict[str, Any]:
        """How images are to be prepared: timm's data configuration (size, mean, std, interpolation, crop)."""
        size = (self.in_chans, *self.patch_embed.img_size)
        noted = self._noted.input if isinstance(self._noted, Noted) else self._noted
        return data_config(size, noted or {})

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """For each block: its name, the channels of its tokens, and pixels per token."""
        reduction = self.patch_embed.patch_size[0]
        return [
            {"module": f"blocks.{block}", "num_chs": self.embed_dim, "reduction": reduction}
            for block in range(len(self.blocks))
        ]

    def random_images(self, count: int) -> Tensor:
        """(count, in_chans, S, S) normally distributed images that fit the model, the same in each call."""
        shape = (count, self.in_chans, *self.patch_embed.img_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.pos_embed)

    def width(self, wanted: WidthLike) -> Width:
        """The `Width` meant by "full", "1/4", 0.25 or a head count per block; `WidthError` if none is."""
        return resolve_width(wanted, self.full)

    def label(self, wanted: WidthLike) -> str:
        """Short name of a width of this model, such as "1/4"."""
        return self.width(wanted).label(self.full)

    def active(self, wanted: WidthLike | None) -> list[tuple[int, int]]:
        """Active heads and active state size of each block."""
        # torch.fx stands in for a width that is not given.
        given = wanted is not None and not isinstance(wanted, torch.fx.Proxy)
        width = self.width(wanted) if given else self.full  # type: ignore[arg-type]
        return list(zip(width.heads, width.states or self.architecture.states, strict=True))

    def forward_features(self, x: Tensor, width: WidthLike | None = None) -> Tensor:
        """Normalised tokens (B, L, D): registers, patches in raster order, the class token.

        Raises:
            ConfigError: images of a size that the model does not take.
            WidthError: no such width.
        """
        x, grid = self._tokens(x)
        orders = self._orders(grid, x)
        for block, active in zip(self.stack, self.active(width), strict=True):
            x = self._through(block, x, active, orders)
        return self.norm(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        width: WidthLike | None = None,
    ) -> Any:
        """Features behind some blocks, and what `forward_features` gives.

        Args:
            x: images.
            indices: the last n blocks, these blocks, or all.
            return_prefix_tokens: also give the registers and the class token.
            norm: whether features are normalised.
            stop_early: leave out the blocks behind the last one asked for.
            output_fmt: "NCHW" or "NLC".
            intermediates_only: give the features alone.
            output_dict: give them by name.
            width: as for `forward_features`.

        Returns:
            (tokens, features): (B, L, D), and for each block (B, D, h, w) or (B, h w, D).

        Raises:
            ConfigError: no such output format or block.
        """
        if output_fmt not in FORMATS:
            raise ConfigError(f"output_fmt {output_fmt!r} is none of {', '.join(FORMATS)}")
        taken = blocks_asked_for(indices, len(self.blocks))
        x, grid = self._tokens(x)
        orders, active, found = self._orders(grid, x), self.active(width), list[Tensor]()
        for index, block in enumerate(self.stack[: max(taken) + 1] if stop_early else self.stack):
            x = self._through(block, x, active[index], orders)
            if index in taken:
                found.append(self.norm(x) if norm else x)
        tokens = None if intermediates_only else self.norm(x)
        on_grid = grid if output_fmt == "NCHW" else None
        features = [self._patches(behind, on_grid) for behind in found]
        others = [self._others(behind) for behind in found] if return_prefix_tokens else None
        return _as_asked(tokens, features, others, output_dict)

    def _patches(self, tokens: Tensor, grid: tuple[int, int] | None) -> Tensor:
        """Patch tokens (B, h w, D), or (B, D, h, w) on a grid."""
        patches = tokens[:, self.num_prefix_tokens : -1]
        return patches if grid is None else patches.mT.unflatten(-1, grid).contiguous()

    def _others(self, tokens: Tensor) -> Tensor:
        """Registers and class token (B, registers + 1, D)."""
        return torch.cat([tokens[:, : self.num_prefix_tokens], tokens[:, -1:]], dim=1)

    def _tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, L, D) of images with their positions, and the grid of the patches."""
        dynamic, patch, grid = self.architecture.dynamic_img_size, self.patch_embed.patch_size, self.grid
        height, width = x.shape[2:]
        require_size((height, width), self.patch_embed.img_size, patch, dynamic)
        if dynamic:
            grid = (height // patch[0], width // patch[1])
        x = self.patch_embed(x)
        positions = positions_for(self.pos_embed, self.grid, grid)
        x = torch.cat([x, self.cls_token.expand(x.shape[0], -1, -1)], dim=1) + positions
        if self.architecture.reg_tokens:
            x = torch.cat([self.reg_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x, grid

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.patch_embed.grid_size

    def _orders(self, grid: tuple[int, int], like: Tensor) -> dict[str, Any]:
        known, scans = self.architecture, [block.scan for block in self.stack]
        return scan_orders(scans, grid, known.reg_tokens, int(known.mean_token), like.device)

    def _through(self, block: Block, x: Tensor, active: tuple[int, int], orders: dict[str, Any]) -> Tensor:
        inputs = (x, *active, orders[block.scan])
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Take images, or patches, of another size from now on; positions and patch weights are interpolated.

        Raises:
            ConfigError: patches do not fill the image; nothing is changed.
        """
        size, patch = img_size or self.patch_embed.img_size, patch_size or self.patch_embed.patch_size
        old, architecture = self.grid, self.architecture.changed(img_size=size, patch_size=patch)
        self.architecture = architecture
        new: Any = architecture.img_size, architecture.patch_size
        self.patch_embed.set_input_size(*new)
        with torch.no_grad():
            resized = positions_for(self.pos_embed, old, self.grid)
        self.pos_embed = nn.Parameter(resized, requires_grad=self.pos_embed.requires_grad)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def use_backend(self, name: str) -> None:
        """Compute all scans by another backend from now on, see `ops.resolve`."""
        for block in self.stack:
            if isinstance(block.mixer, Mixer):
                block.mixer.use_backend(name)
        self.ssd_backend = name

    def compile_blocks(self) -> None:
        """Compute the layers by `torch.compile` from now on: one graph for each width, when it is first used.

        Blocks of equal size share it, and the batch size is free. Results agree up to rounding.
        """
        for block in self.stack:
            for _, layer in block.layers():
                layer.compile(fullgraph=True, dynamic=False)
            block.compiled = True

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise every parameter; what branches add is scaled by 1/sqrt(number of branches)."""
        self.patch_embed.proj.reset_parameters()
        fill_normal(self.pos_embed, 0.02)
        fill_normal(self.cls_token, 0.02)
        if self.architecture.reg_tokens:
            fill_normal(self.reg_token, 0.02)
        branches = sum(len([*block.layers()]) for block in self.stack)
        for block in self.stack:
            block.reset_parameters(max(1, branches) ** -0.5)
        if isinstance(self.norm, nn.LayerNorm):
            self.norm.reset_parameters()


def _largest_first(widths: tuple[Width, ...], full: Width) -> tuple[Width, ...]:
    """The widths, if the full one stands first and each is no larger than the one before it, its teacher."""
    sizes = [(sum(width.heads), sum(width.states or full.states)) for width in widths]
    ordered = sizes == sorted(sizes, reverse=True) and len({*widths}) == len(widths)
    if not widths or widths[0] != Width(full.heads) or not ordered:
        labels = [width.label(full) for width in widths]
        raise ConfigError(
            f"trained_widths {labels}: give different ones, full first, then from large to small"
        )
    return widths


def _make_patch_embed(known: Architecture, place: dict[str, Any]) -> PatchEmbed:
    """Patches to tokens; `place` is device and dtype."""
    size: Any = known.img_size
    patch: Any = known.patch_size
    return PatchEmbed(size, patch, known.in_chans, known.embed_dim, **place)


def _make_block(known: Architecture, block: int, backend: str, place: dict[str, Any]) -> Block:
    """Block number `block`; stochastic depth grows linearly from 0."""
    dim, heads, hidden = known.embed_dim, known.heads[block], known.hidden(block)
    is_attention = block in known.attention_blocks
    mixer: Mixer | Attention
    if is_attention:
        all_heads = heads if known.nested_attention else dim // known.attn_head_dim
        shape: dict[str, Any] = {"head_dim": known.attn_head_dim, "nested": known.nested_attention}
        mixer = Attention(dim, all_heads, **shape, **place)
    else:
        setting = MixerSetting(backend, known.chunk_size, known.heads_per_group or heads)
        shape = {"head_dim": known.head_dim, "state_dim": known.states[block], "conv_size": known.d_conv}
        mixer = Mixer(dim, heads, **shape, setting=setting, bias=known.bias, **place)
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


def blocks_asked_for(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Blocks by number: the last n, those of a list (negative ones from the end), or all.

    Raises:
        ConfigError: there is no such block.
    """
    asked = depth if indices is None else indices
    blocks = range(-asked, 0) if isinstance(asked, int) else asked
    if not blocks or not all(-depth <= block < depth for block in blocks):
        raise ConfigError(f"indices {indices}: the model has blocks 0 to {depth - 1}")
    return [block % depth for block in blocks]


def _as_asked(tokens: Tensor | None, features: list[Any], others: list[Tensor] | None, by_name: bool) -> Any:
    """Tokens and features, with other tokens beside each feature, or all by name; None is left out."""
    if by_name:
        names = ("image_features", "image_intermediates", "image_intermediates_prefix")
        named = dict(zip(names, (tokens, features, others), strict=True))
        return {name: value for name, value in named.items() if value is not None}
    if others is not None:
        features = list(zip(features, others, strict=True))
    return features if tokens is None else (tokens, features)


def positions_for(pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions (1, L, D) of patches and class token on another grid, interpolated (bicubic, antialiased).

    Args:
        pos_embed: positions of the old grid's patches, then of the class token.
        old: its rows and columns.
        new: rows and columns of the other grid.
    """
    if tuple(old) == tuple(new):
        return pos_embed
    from timm.layers import resample_abs_pos_embed

    patches = resample_abs_pos_embed(pos_embed[:, :-1], list(new), list(old), num_prefix_tokens=0)
    return torch.cat([patches, pos_embed[:, -1:]], dim=1)


def require_size(size: Any, trained: Any, patch: Any, dynamic: bool) -> None:
    """Raise `ConfigError` unless images of `size` are taken."""
    if not dynamic and tuple(size) != tuple(trained):
        raise ConfigError(
            f"images of {size[0]}x{size[1]} pixels: this model takes {trained[0]}x{trained[1]}"
            " (set_input_size changes that, dynamic_img_size=True takes any)"
        )
    if any(whole < part or whole % part for whole, part in zip(size, patch, strict=True)):
        raise ConfigError(
            f"images of {size[0]}x{size[1]} pixels are no multiple of patches of {patch[0]}x{patch[1]}"
        )
