"""Widths worth trying within a budget: uniform ones, MatFormer's rule, and a local search from the best."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from random import Random

from ..models import MatMamba
from ..width import Width
from .budget import Price
from .profile import only_block
from .score import Score

# How many widths of each kind are tried before the search: the largest ones within the budget.
_UNIFORM, _RULE = 3, 2

Levels = Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A width that was evaluated.

    Attributes:
        origin: what proposed it: trained, uniform, rule, smallest or search.
        cost: counted or predicted, in the unit of the budget.
        score: on the images of the search.
    """

    width: Width
    origin: str
    cost: float
    score: Score


def head_levels(model: MatMamba, skip_blocks: bool = False) -> list[list[int]]:
    """For each block, ascending, the head counts that the search uses.

    They are those of the trained widths, below them halves down to one head, one in between any two, and 0
    (the block is skipped) if `skip_blocks`.
    """
    trained = [
        sorted({width.heads[block] for width in model.trained_widths} - {0}) for block in _blocks(model)
    ]
    return [[0] * skip_blocks + _fill(counts) for counts in trained]


def _fill(counts: Sequence[int]) -> list[int]:
    halves = {counts[0] >> step for step in range(1, counts[0].bit_length())}
    known = sorted({*counts, *halves})
    return sorted({*known, *((low + high) // 2 for low, high in pairwise(known))})


def uniform_widths(model: MatMamba) -> list[Width]:
    """Every share of the heads, ascending; rounded up to whole heads where blocks have different counts."""
    most = max(model.heads)
    shares = range(1, most + 1)
    return [model.width([-(-share * heads // most) for heads in model.heads]) for share in shares]


def least_slope(steps: Sequence[Width]) -> list[Width]:
    """Mix'n'Match by the rule of MatFormer (arXiv 2310.07707): non-decreasing with depth, least slope.

    Two neighbouring steps are mixed, the smaller one in the first blocks, the larger one in the last.

    Args:
        steps: ascending widths.

    Returns:
        The steps and all mixtures, ascending.
    """
    mixed = list(steps[:1])
    for low, high in pairwise(steps):
        for kept in reversed(range(len(low.heads))):
            mixed.append(replace(high, heads=low.heads[:kept] + high.heads[kept:]))
    return mixed


def smallest_width(model: MatMamba, levels: Levels, price: Price) -> Width:
    """The cheapest width there is: every block at its lowest level, or the cheapest block alone."""
    lowest = [counts[0] for counts in levels]
    if any(lowest):
        return model.width(lowest)
    alone = [only_block(model, block, levels[block][1]) for block in _blocks(model)]
    return min(alone, key=price)


def starting_widths(model: MatMamba, levels: Levels, price: Price, limit: float) -> dict[Width, str]:
    """What to try before any search, and what proposed it; the largest ones within the budget first.

    All trained widths, also those beyond the budget, for comparison; the largest uniform ones within it; and
    the largest ones of the rule within it, in steps of trained widths, of levels, and of single heads.
    """
    steps = uniform_widths(model)
    trained = {width.heads for width in model.trained_widths}
    of_levels = [
        step
        for step in steps
        if all(heads in counts for heads, counts in zip(step.heads, levels, strict=True))
    ]
    grains = [[step for step in steps if step.heads in trained], of_levels, steps]
    found = dict.fromkeys(model.trained_widths, "trained")
    for width in _largest(steps, price, limit, _UNIFORM):
        found.setdefault(width, "uniform")
    for grain in grains:
        for width in _largest(least_slope(grain), price, limit, _RULE):
            found.setdefault(width, "rule")
    if not any(price(width) <= limit for width in found):
        found[smallest_width(model, levels, price)] = "smallest"
    order = sorted(found, key=lambda width: (price(width) > limit, -price(width)))
    return {width: found[width] for width in order}


def _largest(ascending: Sequence[Width], price: Price, limit: float, count: int) -> Sequence[Width]:
    within = bisect_right(ascending, limit, key=price)
    return ascending[max(0, within - count) : within]


def explore(
    starts: Mapping[Width, str],
    levels: Levels,
    price: Price,
    limit: float,
    evaluate: Callable[[Width], Score],
    evaluations: int,
    seed: int = 0,
) -> Iterator[Candidate]:
    """Evaluate the starts, then neighbours of the best so far within the budget, one candidate at a time.

    The search compares log-likelihoods. Where the best has no untried neighbour, the next best is taken,
    until there is none or `evaluations` are spent. The same seed gives the same candidates.
    """
    found: dict[Width, Candidate] = {}
    climb = _climb(found, levels, lambda width: price(width) <= limit, Random(seed))
    for width, origin in islice(chain(starts.items(), climb), evaluations):
        found[width] = Candidate(width, origin, price(width), evaluate(width))
        yield found[width]


def _climb(
    found: Mapping[Width, Candidate], levels: Levels, fits: Callable[[Width], bool], random: Random
) -> Iterator[tuple[Width, str]]:
    """Untried neighbours, read from what is `found` at that time."""
    while True:
        bases = ranked(candidate for candidate in found.values() if fits(candidate.width))
        near = chain.from_iterable(_neighbours(base.width, levels, fits, random) for base in bases)
        untried = next((width for width in near if width not in found), None)
        if untried is None:
            return
        yield untried, "search"


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Most likely first; among equals the cheaper one."""
    return sorted(candidates, key=lambda candidate: (-candidate.score.log_likelihood, candidate.cost))


def _neighbours(
    width: Width, levels: Levels, fits: Callable[[Width], bool], random: Random
) -> Iterator[Width]:
    """The widths within the budget that have one block a level up, one down, or both, in random order."""
    blocks = [*range(len(levels)), None]
    pairs = [(up, down) for up in blocks for down in blocks if up != down]
    random.shuffle(pairs)
    for up, down in pairs:
        yield from islice(filter(fits, _moves(width, levels, up, down)), 1)


def _moves(width: Width, levels: Levels, up: int | None, down: int | None) -> Iterator[Width]:
    """Block `up` a level up, and block `down` one level down, then two, and so on: it pays for the other."""
    heads = list(width.heads)
    if up is not None:
        higher = [count for count in levels[up] if count > heads[up]]
        if not higher:
            return
        heads[up] = higher[0]
    if down is None:
        yield replace(width, heads=tuple(heads))
        return
    for lower in [count for count in reversed(levels[down]) if count < heads[down]]:
        heads[down] = lower
        if any(heads):
            yield replace(width, heads=tuple(heads))


def _blocks(model: MatMamba) -> range:
    return range(len(model.heads))
