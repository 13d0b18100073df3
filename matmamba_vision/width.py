"""Width: how much of each block is active (the compute axis; MatMamba, arXiv 2410.06718)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from matmamba_common.errors import MatMambaError
from matmamba_common.words import shown


class WidthError(MatMambaError):
    """A width that this model does not have; the message says what would be allowed."""


@dataclass(frozen=True)
class Width:
    """The active part of each block, an immutable value that is passed with each call.

    Attributes:
        heads: active heads of each block; 0 skips the block (elastic depth).
        states: active state size of each block; empty: all of it, as long as nobody asks for less. Blocks
            that have no state count as 0.
    """

    heads: tuple[int, ...]
    states: tuple[int, ...] = ()

    def label(self, full: Width) -> str:
        """Name where `full` is everything: "full", "1/4", "4-8-16" where blocks differ, ":1/2" for states."""
        name = _label(self.heads, full.heads)
        return f"{name}:{_label(self.states, full.states)}" if self.states else name


WidthLike: TypeAlias = Width | str | float | Sequence[int]


def resolve_width(wanted: WidthLike, full: Width) -> Width:
    """The `Width` meant by `wanted` in a model of which `full` is everything.

    Args:
        wanted: "full", a share of the heads ("1/4", 0.25), one head count per block ([4, 8] or "4-8"), or a
            `Width`; in text, a share or counts of the state may follow: "1/4:1/2", "4-8:16-32".
        full: heads and states of each block.

    Raises:
        WidthError: the share does not give whole heads, the list has the wrong length, or a count is out of
            range.
        TypeError: it is none of these.
    """
    if isinstance(wanted, Width):
        heads, states = wanted.heads, wanted.states
    elif isinstance(wanted, str):
        name, colon, state = wanted.partition(":")
        heads = _counts(name, full.heads, "heads")
        states = _counts(state, full.states, "states") if colon else ()
    elif isinstance(wanted, float | int | Fraction):
        heads, states = _share_of(wanted, full.heads, "heads"), ()
    elif isinstance(wanted, Iterable):
        heads, states = tuple(wanted), ()
    else:
        words = "'full', a share such as '1/4', or a head count for each block"
        raise TypeError(f"width is {shown(wanted)}: it can be {words}")
    return _checked(Width(heads, () if states == full.states else states), full)


def _label(counts: tuple[int, ...], full: tuple[int, ...]) -> str:
    # A block without a state has nothing to say about shares of it.
    shares = {Fraction(active, most) for active, most in zip(counts, full, strict=True) if most}
    if shares <= {Fraction(1)}:
        return "full"
    return str(shares.pop()) if len(shares) == 1 else "-".join(map(str, counts))


def _counts(wanted: str, full: tuple[int, ...], what: str) -> tuple[int, ...]:
    return _parse_counts(wanted) if "-" in wanted else _share_of(wanted, full, what)


def _share_of(wanted: str | float, full: tuple[int, ...], what: str) -> tuple[int, ...]:
    share = Fraction(1) if wanted == "full" else _parse_share(wanted)
    counts = [share * count for count in full]
    if any(count.denominator != 1 for count in counts):
        raise WidthError(
            f"width {wanted!r} leaves a fraction of a head or state: blocks have {_summary(full)} {what}, "
            f"so shares are multiples of {_smallest_share(full)}"
        )
    return tuple(int(count) for count in counts)


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
        raise WidthError(f"width {wanted!r} is not a count per block, such as 4-8-8-16") from error


def _checked(width: Width, full: Width) -> Width:
    _check_counts(width.heads, full.heads, 0, "heads")
    if width.states:
        # Without any state a scan passes nothing on: to leave a block out, give it no heads.
        _check_counts(width.states, full.states, 1, "states")
    return width


def _check_counts(counts: tuple[int, ...], full: tuple[int, ...], least: int, what: str) -> None:
    if len(counts) != len(full):
        raise WidthError(f"width {list(counts)} names {len(counts)} blocks, the model has {len(full)}")
    for block, (active, most) in enumerate(zip(counts, full, strict=True)):
        low = min(least, most)
        if isinstance(active, bool) or not isinstance(active, int) or not low <= active <= most:
            raise WidthError(
                f"width {list(counts)}: block {block} can have {low} to {most} {what}, not {active!r}"
            )


def _smallest_share(full: Sequence[int]) -> Fraction:
    most = max(full)
    whole = [count for count in range(1, most + 1) if all((count * other) % most == 0 for other in full)]
    return Fraction(whole[0], most)


def _summary(full: Sequence[int]) -> str:
    return str(full[0]) if len(set(full)) == 1 else "-".join(map(str, full))
