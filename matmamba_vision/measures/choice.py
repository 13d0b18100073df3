"""The choice among evaluated widths: by log-likelihood, within the budget as measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..models import MatMamba
from ..width import Width
from .budget import Budget, BudgetError
from .cost import count_macs, count_parameters
from .latency import Latency, measure_latency
from .memory import MIB, measure_memory
from .mixnmatch import Candidate, ranked
from .score import Score

# Measured together: the likeliest that should fit.
_FINALISTS = 5


@dataclass(frozen=True)
class Costs:
    """What a width costs, counted and measured on this machine.

    Attributes:
        gmacs: multiply-adds per image, in billions.
        params: parameters.
        latency: ms for one batch.
        memory_mb: MiB of weights and of the peak of activations, see `measure_memory`.
    """

    gmacs: float
    params: int
    latency: Latency
    memory_mb: float

    def under(self, key: str) -> float:
        """The cost in the unit of a budget's key; of a latency the median."""
        return self.latency.median if key == "latency_ms" else float(getattr(self, key))


class Measurements:
    """Costs of the extracted submodels of some widths, each measured once.

    Args:
        batch_size: images in one forward, for latency and memory.
    """

    def __init__(self, model: MatMamba, batch_size: int = 1) -> None:
        self.batch_size = batch_size
        self._model = model
        self._known: dict[Width, Costs] = {}

    def of(self, widths: Sequence[Width]) -> list[Costs]:
        """Costs in the order given; latencies of those that are new are measured in turn."""
        new = [width for width in dict.fromkeys(widths) if width not in self._known]
        latencies = measure_latency(self._model, new, self.batch_size) if new else []
        self._known |= {
            width: self._costs(width, latency) for width, latency in zip(new, latencies, strict=True)
        }
        return [self._known[width] for width in widths]

    def __contains__(self, width: Width) -> bool:
        return width in self._known

    def __iter__(self) -> Iterator[Costs]:
        return iter(self._known.values())

    def _costs(self, width: Width, latency: Latency) -> Costs:
        model = self._model
        memory = sum(measure_memory(model, width, self.batch_size)) / MIB
        return Costs(count_macs(model, width) / 1e9, count_parameters(model, width), latency, memory)


@dataclass(frozen=True)
class Choice:
    """The chosen width, and the best one that needed no search.

    Attributes:
        chosen: what to use.
        rule: the best of the trained and uniform widths and of the rule, if one is within the budget.
        found: the best of all, which is `chosen` if it is better than `rule` on other images too.
        held_back: scores of these on the images that took no part in the search.
    """

    chosen: Candidate
    rule: Candidate | None
    found: Candidate
    held_back: dict[Width, Score]


def choose(
    candidates: Sequence[Candidate],
    budget: Budget,
    measurements: Measurements,
    score_held_back: Callable[[Width], Score],
) -> Choice:
    """Take the likeliest candidate within the budget; a find of the search only if other images confirm it.

    The best of many is flattered by the images that picked it, so where a find of the search is no better
    than the rule on images that took no part, the rule is used.

    Raises:
        BudgetError: what should fit does not when it is measured.
    """
    found = _likeliest_within(candidates, budget, measurements)
    if found is None:
        least = min(costs.under(budget.key) for costs in measurements)
        raise BudgetError(f"no width was measured within {budget}: the least was {budget.key}={least:.4g}")
    unsearched = [candidate for candidate in candidates if candidate.origin != "search"]
    rule = _likeliest_within(unsearched, budget, measurements)
    held_back = {known.width: score_held_back(known.width) for known in dict.fromkeys([found, rule]) if known}
    if rule is None or rule is found:
        return Choice(found, rule, found, held_back)
    confirmed = held_back[found.width].gain_over(held_back[rule.width])[0] > 0
    return Choice(found if confirmed else rule, rule, found, held_back)


def _likeliest_within(
    candidates: Sequence[Candidate], budget: Budget, measurements: Measurements
) -> Candidate | None:
    within = ranked(candidate for candidate in candidates if candidate.cost <= budget.limit)
    for start in range(0, len(within), _FINALISTS):
        finalists = within[start : start + _FINALISTS]
        costs = measurements.of([candidate.width for candidate in finalists])
        for candidate, cost in zip(finalists, costs, strict=True):
            if cost.under(budget.key) <= budget.limit:
                return candidate
    return None
