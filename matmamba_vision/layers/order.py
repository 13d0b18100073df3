"""Token orders: in which order a causal scan meets the tokens of an image.

Tokens are kept in one layout everywhere: registers, patches in raster order, class token. A block that scans
in another order permutes them on the way in and back on the way out. In every order the registers are spread
evenly among the patches (Mamba-R, arXiv 2405.14858), and the class token comes last: it has seen everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..errors import ConfigError
from ..ops import apply_where_wanted

# What a block does: once or twice over the tokens, in these directions.
BLOCK_SCANS: dict[str, tuple[str, ...]] = {
    "rows": ("rows",),
    "rows_reversed": ("rows_reversed",),
    "columns": ("columns",),
    "columns_reversed": ("columns_reversed",),
    "both": ("rows", "rows_reversed"),
}
# What the blocks of a model do, in turn.
SCANS: dict[str, tuple[str, ...]] = {
    # MatMamba, arXiv 2410.06718.
    "raster": ("rows",),
    # Adventurer, arXiv 2410.07599.
    "flip": ("rows", "rows_reversed"),
    # The four directions of VMamba, arXiv 2401.10166, one for each block.
    "cross": ("rows", "rows_reversed", "columns", "columns_reversed"),
    # Vim, arXiv 2401.09417, with the weights of both directions shared.
    "bidirectional": ("both",),
}


def scans_of_blocks(scan: str | Sequence[str], depth: int) -> tuple[str, ...]:
    """A key of `BLOCK_SCANS` for each of `depth` blocks, from a key of `SCANS` or such a list.

    Raises:
        ConfigError: there is no such scan, or the list has another length.
    """
    if isinstance(scan, str):
        if scan not in SCANS:
            raise ConfigError(
                f"scan {scan!r} is none of {', '.join(SCANS)}, nor a list with an entry per block"
            )
        return tuple(SCANS[scan][block % len(SCANS[scan])] for block in range(depth))
    if len(scan) != depth or not set(scan) <= set(BLOCK_SCANS):
        raise ConfigError(f"scan {list(scan)} is not {depth} entries of {', '.join(BLOCK_SCANS)}")
    return tuple(scan)


@dataclass(frozen=True)
class TokenOrder:
    """A permutation of tokens.

    Attributes:
        index: (L,) the token that stands at each place of the order.
        inverse: (L,) the place of each token.
    """

    index: Tensor
    inverse: Tensor

    def arrange(self, t_BLX: Tensor) -> Tensor:
        """Tokens (B, L, ...) as the scan meets them."""
        return _permute(t_BLX, self.index, self.inverse)

    def restore(self, t_BLX: Tensor) -> Tensor:
        """What `arrange` was given."""
        return _permute(t_BLX, self.inverse, self.index)

    def in_frames(self, count: int) -> TokenOrder:
        """The order of as many frames behind each other, each of which is read in this order."""
        starts = torch.arange(count, device=self.index.device)[:, None] * len(self.index)
        return TokenOrder((starts + self.index).flatten(), (starts + self.inverse).flatten())


# The orders in which a block scans; None leaves the tokens as they are.
Orders: TypeAlias = "tuple[TokenOrder | None, ...]"


def scan_orders(
    scans: Sequence[str], grid: tuple[int, int], registers: int, prefix: int, device: torch.device
) -> dict[str, Orders]:
    """The orders of each of `scans`, keys of `BLOCK_SCANS`.

    Args:
        scans: what the blocks do.
        grid: rows and columns of patches.
        registers: how many stand before them.
        prefix: tokens before all others that stay first.
        device: of the indices.
    """
    directions = {direction for scan in scans for direction in BLOCK_SCANS[scan]}
    known = {direction: _order(direction, grid, registers, prefix, device) for direction in directions}
    return {scan: tuple(known[direction] for direction in BLOCK_SCANS[scan]) for scan in {*scans}}


def _order(
    direction: str, grid: tuple[int, int], registers: int, prefix: int, device: torch.device
) -> TokenOrder | None:
    if direction == "rows" and not registers:
        return None
    patches = torch.arange(grid[0] * grid[1], device=device).view(grid) + prefix + registers
    patches = (patches.mT if direction.startswith("columns") else patches).flatten()
    patches = patches.flip(0) if direction.endswith("reversed") else patches
    first = torch.arange(prefix + registers, device=device)
    spread = [first[:prefix]]
    for number, part in enumerate(patches.tensor_split(registers + 1)):
        spread += [part, first[prefix + number : prefix + number + 1]]
    last = patches.new_full((1,), prefix + registers + len(patches))
    index = torch.cat([*spread, last])
    return TokenOrder(index, index.argsort())


def _permute(t_BLX: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return t_BLX.index_select(1, index)
    return apply_where_wanted(_Permutation, t_BLX, index, inverse)


class _Permutation(torch.autograd.Function):
    """As `index_select`, whose own backward does not know that each token is taken once, and adds up."""

    @staticmethod
    def forward(ctx: Any, t_BLX: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        if ctx is not None:
            ctx.save_for_backward(inverse)
        return t_BLX.index_select(1, index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BLX: Tensor) -> tuple[Tensor | None, ...]:
        return dy_BLX.index_select(1, ctx.saved_tensors[0]), None, None
