"""The Pareto front of evaluated widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .mixnmatch import Candidate


def pareto_front(
    candidates: Sequence[Candidate],
    quality: Callable[[Candidate], float] = lambda candidate: candidate.score.log_likelihood,
) -> list[Candidate]:
    """Ascending in cost, those than which nothing at most as expensive has as high a `quality`."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.cost, -quality(candidate))):
        if not front or quality(candidate) > quality(front[-1]):
            front.append(candidate)
    return front
