"""Width: how many leading SSD heads each block uses (the compute axis; MatMamba, arXiv 2410.06718)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias


class WidthError(ValueError):
    """A width that this model does not have; the message says what would be allowed."""


@dataclass(frozen=True)
class Width:
    """Active heads per block, an immutable value that is passed with each call; 0 skips the block.

    Attributes:
        heads: one count per block.
    """

    heads: tuple[int, ...]

    def label(self, full: Sequence[int]) -> str:
        """Name of this width where blocks have `full` heads: "full", "1/4", or "4-8-16" when they differ."""
        shares = {Fraction(active, heads) for active, heads in zip(self.heads, full, strict=True)}
        if shares == {Fraction(1)}:
            return "full"
        return str(shares.pop()) if len(shares) == 1 else "-".join(map(str, self.heads))


WidthLike: TypeAlias = Width | str | float | Sequence[int]


def resolve_width(wanted: WidthLike, full: Sequence[int]) -> Width:
    """The `Width` meant by `wanted` in a model with `full` heads per block.

    Args:
        wanted: "full", a share of the heads ("1/4", 0.25), one head count per block ([4, 8] or "4-8"), or a
            `Width`. full: heads of each block.

    Raises:
        WidthError: the share does not give whole heads, the list has the wrong length, or a count is out of
            range.
    """
    if isinstance(wanted, Width):
        return _checked(wanted.heads, full)
    if isinstance(wanted, str) and "-" in wanted:
        return _checked(_parse_counts(wanted), full)
    if isinstance(wanted, str | float | int):
        return Width(_share_of(wanted, full))
    return _checked(tuple(wanted), full)


def _share_of(wanted: str | float, full: Sequence[int]) -> tuple[int, ...]:
    share = Fraction(1) if wanted == "full" else _parse_share(wanted)
    heads = [share * count for count in full]
    if any(count.denominator != 1 for count in heads):
        raise WidthError(
            f"width {wanted!r} leaves a fraction of a head: blocks have {_summary(full)} heads, "
            f"so shares are multiples of {_smallest_share(full)}"
        )
    return tuple(int(count) for count in heads)


def _parse_share(wanted: str | float) -> Fraction:
    try:
        share = Fraction(str(wanted).strip())
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise WidthError(f"width {wanted!r} is neither 'full' nor a share such as '1/4' or 0.25 in (0, 1]")
    return share


def _parse_counts(wanted: str) -> tuple[int, ...]:
    try:
        return tuple(int(count) for count in wanted.split("-"))
    except ValueError as error:
        raise WidthError(f"width {wanted!r} is not a head count per block, such as 4-8-8-16") from error


def _checked(heads: tuple[int, ...], full: Sequence[int]) -> Width:
    if len(heads) != len(full):
        raise WidthError(f"width {list(heads)} names {len(heads)} blocks, the model has {len(full)}")
    for block, (active, most) in enumerate(zip(heads, full, strict=True)):
        if isinstance(active, bool) or not isinstance(active, int) or not 0 <= active <= most:
            raise WidthError(f"width {list(heads)}: block {block} can have 0 to {most} heads, not {active!r}")
    return Width(heads)


def _smallest_share(full: Sequence[int]) -> Fraction:
    whole = [
        count for count in range(1, full[0] + 1) if all((count * other) % full[0] == 0 for other in full)
    ]
    return Fraction(whole[0], full[0])


def _summary(full: Sequence[int]) -> str:
    return str(full[0]) if len(set(full)) == 1 else "-".join(map(str, full))
