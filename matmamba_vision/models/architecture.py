"""What a model is: its constructor arguments, checked, and resolved to one entry for each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from matmamba_common.settings import Bounds, check

from ..errors import ConfigError
from ..layers import SCANS, scans_of_blocks

POOLS = ("token", "avg", "")
Count = Annotated[int, Bounds(least=0)]
Some = Annotated[int, Bounds(least=1)]
Rate = Annotated[float, Bounds(least=0, below=1)]
# In pixels: one number, or height and width.
Size = Annotated[int | tuple[int, int], Bounds(least=1)]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Constructor arguments of a `MatMamba`. What is given as one number holds for every block.

    Attributes:
        img_size: height and width in pixels, or one number for both.
        patch_size: height and width in pixels, or one number for both.
        in_chans: channels.
        num_classes: outputs of the head; 0 for none.
        global_pool: "token", "avg" (patch tokens) or "" (none).
        projection: length of the embedding, a linear map of the pooled features that the head reads too, as a
            student of another network needs; 0: the pooled features are the embedding.
        embed_dim: D.
        depth: blocks.
        num_heads: heads of each block; by default as many as `expand` asks for, and as D has room for where a
            block mixes by attention.
        expand: channels of a Mamba2 mixer over D; 2 by default.
        head_dim: P of Mamba2's heads.
        d_state: N, size of Mamba2's state; one number, or one for each block.
        d_conv: taps of Mamba2's convolution.
        heads_per_group: consecutive heads that share B and C; by default all of them do.
        bias: whether Mamba2's projections have biases.
        scan: "raster", "flip", "cross" or "bidirectional" (see `layers.SCANS`), or what each block does.
        mean_token: whether a scan reads the mean of the patch tokens first.
        reg_tokens: register tokens.
        attention_blocks: blocks that mix tokens by attention instead, from 0.
        attn_head_dim: P of those.
        nested_attention: whether their attention is nested; if not, only their MLP is.
        mlp_ratio: hidden units of an MLP behind the mixer, over D; 0 for none.
        drop_rate: dropout before the head.
        proj_drop_rate: dropout of each update.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        dynamic_img_size: whether images of other sizes are taken, with interpolated positions.
        chunk_size: largest chunk of the scan, in tokens.

    Raises:
        ConfigError: an argument that cannot work, named in the message.
        TypeError: an argument of a wrong type, named in the message.
    """

    img_size: Size = 224
    patch_size: Size = 16
    in_chans: Some = 3
    num_classes: Count = 1000
    global_pool: str = "token"
    projection: Count = 0
    embed_dim: Some = 512
    depth: Count = 20
    num_heads: int | Sequence[int] | None = None
    expand: Annotated[float | None, Bounds(above=0)] = None
    head_dim: Some = 16
    d_state: int | Sequence[int] = 128
    d_conv: Some = 4
    heads_per_group: Annotated[int | None, Bounds(least=1)] = None
    bias: bool = False
    scan: str | Sequence[str] = "raster"
    mean_token: bool = False
    reg_tokens: Count = 0
    attention_blocks: Sequence[int] = ()
    attn_head_dim: Some = 32
    nested_attention: bool = True
    mlp_ratio: Annotated[float | Sequence[float], Bounds(least=0)] = 0.0
    drop_rate: Rate = 0.0
    proj_drop_rate: Rate = 0.0
    drop_path_rate: Rate = 0.0
    dynamic_img_size: bool = False
    chunk_size: Some = 64

    def __post_init__(self) -> None:
        check(self)
        require_pool(self.global_pool)
        if self.projection and not self.global_pool:
            raise ConfigError(
                f"projection {self.projection}: it needs pooled features, and global_pool is ''"
            )
        _require_whole_patches(self.img_size, self.patch_size)
        attention = tuple(self.attention_blocks)
        if len({*attention}) < len(attention) or any(not 0 <= block < self.depth for block in attention):
            raise ConfigError(
                f"attention_blocks {list(attention)} are not different blocks of 0 to {self.depth - 1}"
            )
        self._require_an_effect(attention)
        scans_of_blocks(self.scan, self.depth)
        self._set(
            img_size=_pair(self.img_size), patch_size=_pair(self.patch_size),
            attention_blocks=tuple(sorted(attention)),
            scan=self.scan if isinstance(self.scan, str) else tuple(self.scan),
        )  # fmt: skip
        # One after the other, because each counts on those before it.
        self._set(num_heads=self._heads_of_blocks(), expand=None)
        self._set(d_state=self._states_of_blocks())
        self._set(mlp_ratio=self._mlp_ratios_of_blocks())

    def _require_an_effect(self, attention: tuple[int, ...]) -> None:
        """Refuse what is asked of Mamba2 blocks, or of attention, where there are none."""
        if self.depth and len(attention) == self.depth:
            asked = {
                "scan": self.scan != "raster" and {*self.scans} != {"rows"},
                "mean_token": self.mean_token,
                "heads_per_group": self.heads_per_group is not None,
                "bias": self.bias,
            }
            for name, is_asked in asked.items():
                if is_asked:
                    raise ConfigError(f"{name} {getattr(self, name)!r}: no block scans, all mix by attention")
        if self.depth and not attention and not self.nested_attention:
            raise ConfigError("nested_attention False: no block mixes by attention")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _heads_of_blocks(self) -> tuple[int, ...]:
        if self.num_heads is not None:
            if self.expand is not None and self._by_width(self.expand) != self.num_heads:
                raise ConfigError(
                    f"expand {self.expand} and num_heads {self.num_heads} do not agree: give one"
                )
            return _per_block("num_heads", self.num_heads, self.depth, least=1)
        mamba = self._by_width(2 if self.expand is None else self.expand)
        attention = self.embed_dim // self.attn_head_dim
        of_blocks = (attention if block in self.attention_blocks else mamba for block in range(self.depth))
        return _per_block("num_heads", tuple(of_blocks), self.depth, least=1)

    def _by_width(self, expand: float) -> int:
        heads = expand * self.embed_dim / self.head_dim
        if heads != int(heads) or heads < 1:
            raise ConfigError(
                f"expand {expand}: embed_dim {self.embed_dim}: no whole number of heads of {self.head_dim}"
            )
        return int(heads)

    def _states_of_blocks(self) -> tuple[int, ...]:
        states = (self.d_state,) * self.depth if isinstance(self.d_state, int) else tuple(self.d_state)
        kept = (0 if block in self.attention_blocks else state for block, state in enumerate(states))
        checked = _per_block("d_state", tuple(kept), self.depth, least=0)
        if any(state == 0 and block not in self.attention_blocks for block, state in enumerate(checked)):
            raise ConfigError(f"d_state {self.d_state}: a scan needs a state of at least 1")
        return checked

    def _mlp_ratios_of_blocks(self) -> tuple[float, ...]:
        ratios = self.mlp_ratio if isinstance(self.mlp_ratio, Sequence) else (self.mlp_ratio,) * self.depth
        if len(ratios) != self.depth or any(ratio < 0 for ratio in ratios):
            raise ConfigError(f"mlp_ratio {self.mlp_ratio}: it can be 0 or more, one number or {self.depth}")
        for block, ratio in enumerate(ratios):
            hidden, heads = ratio * self.embed_dim, self.heads[block]
            if abs(hidden - round(hidden)) > 1e-6 or round(hidden) % heads:
                raise ConfigError(
                    f"mlp_ratio {ratio:g}: {hidden:g} hidden units cannot be shared by the {heads} heads of"
                    f" block {block}: it can be a multiple of {heads / self.embed_dim:g}"
                )
            if not ratio and not self.nested_attention and block in self.attention_blocks:
                raise ConfigError(
                    f"nested_attention False leaves nothing nested in block {block}: give an mlp_ratio"
                )
        if self.attention_blocks and not self.nested_attention and self.embed_dim % self.attn_head_dim:
            raise ConfigError(
                f"attn_head_dim {self.attn_head_dim} does not divide embed_dim {self.embed_dim}"
            )
        return tuple(map(float, ratios))

    @property
    def heads(self) -> tuple[int, ...]:
        """Heads of each block."""
        assert isinstance(self.num_heads, tuple)
        return self.num_heads

    @property
    def states(self) -> tuple[int, ...]:
        """State size of each block; 0 for attention."""
        assert isinstance(self.d_state, tuple)
        return self.d_state

    @property
    def scans(self) -> tuple[str, ...]:
        """What each block does, keys of `layers.BLOCK_SCANS`."""
        return scans_of_blocks(self.scan, self.depth)

    def hidden(self, block: int) -> int:
        """Hidden units of a block's MLP; 0 for none."""
        assert isinstance(self.mlp_ratio, tuple)
        return round(self.mlp_ratio[block] * self.embed_dim)

    def of_blocks(self, heads: Sequence[int], states: Sequence[int]) -> Architecture:
        """The architecture with fewer active heads and states; blocks with none are left out."""
        kept = [block for block, active in enumerate(heads) if active]
        scans = tuple(self.scans[block] for block in kept)
        ratios = [self.hidden(block) / self.embed_dim * heads[block] / self.heads[block] for block in kept]
        attention = tuple(new for new, block in enumerate(kept) if block in self.attention_blocks)
        some_scan = len(attention) < len(kept)
        # Where no block scans, nothing is said about scans.
        scans = scans if some_scan else ("rows",) * len(kept)
        return replace(
            self,
            depth=len(kept),
            num_heads=tuple(heads[block] for block in kept),
            d_state=tuple(states[block] for block in kept),
            mlp_ratio=tuple(ratios),
            attention_blocks=attention,
            mean_token=self.mean_token and some_scan,
            heads_per_group=self.heads_per_group if some_scan else None,
            bias=self.bias and some_scan,
            nested_attention=self.nested_attention or not attention,
            # By name where it says the same, because published checkpoints are known by it.
            scan=next((name for name in SCANS if scans_of_blocks(name, len(kept)) == scans), scans),
        )

    def changed(self, **arguments: Any) -> Architecture:
        """The architecture with some arguments changed."""
        return replace(self, **arguments)

    def as_arguments(self) -> dict[str, Any]:
        """The arguments that give this architecture again, as JSON has them."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


def _per_block(name: str, value: int | Sequence[int], depth: int, least: int) -> tuple[int, ...]:
    counts = (value,) * depth if isinstance(value, int) else tuple(value)
    if len(counts) != depth or any(not isinstance(count, int) or count < least for count in counts):
        raise ConfigError(
            f"{name} {list(counts)} is not {depth} whole numbers of at least {least}, one for each block"
        )
    return counts


def _pair(size: Any) -> tuple[int, int]:
    """Height and width of what is one number for both, or two."""
    height, width = size if isinstance(size, Sequence) else (size, size)
    return height, width


def require_pool(global_pool: str) -> str:
    """The name of a pooling, if there is one like that."""
    if global_pool not in POOLS:
        raise ConfigError(f"global_pool {global_pool!r} is none of {', '.join(POOLS)}")
    return global_pool


def _require_whole_patches(img_size: Any, patch_size: Any) -> None:
    """Raise `ConfigError` unless patches fill the image."""
    size, patch = _pair(img_size), _pair(patch_size)
    if any(whole < part or whole % part for whole, part in zip(size, patch, strict=True)):
        raise ConfigError(f"img_size {img_size} is not a multiple of patch_size {patch_size}")
