"""The search for the best width within a budget: profile, explore by half of the images, choose by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matmamba_datasets import DataError, Images, Subset

from ..batch import LabelledBatch
from ..checkpoint import Checkpoint
from ..measures.budget import Budget, make_price, require_possible
from ..measures.choice import Choice, Measurements, choose
from ..measures.mixnmatch import Candidate, explore, head_levels, ranked, smallest_width, starting_widths
from ..measures.pareto import pareto_front
from ..measures.score import Score, score
from ..width import Width
from .held_out import BatchReader


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a search goes.

    Attributes:
        images: most images in each half of the held-out ones; they are kept in memory.
        evaluations: widths to evaluate, those before the search included.
        profile_batch: images in one forward when latency and memory are measured.
        skip_blocks: whether blocks may be skipped.
        seed: of the halves and of the search.
    """

    images: int
    evaluations: int
    profile_batch: int
    skip_blocks: bool
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchOutcome:
    """A finished or interrupted search.

    Attributes:
        checkpoint: of the nested model.
        budget: that the choice keeps to.
        choice: what was chosen, and against what.
        candidates: all that were evaluated.
        shown: those worth a row, all measured, ascending in cost.
        measurements: costs of these, and of others that were measured.
        images: how many decided, and how many were held back.
        cut_short: whether it was interrupted.
    """

    checkpoint: Checkpoint
    budget: Budget
    choice: Choice
    candidates: Sequence[Candidate]
    shown: Sequence[Candidate]
    measurements: Measurements
    images: tuple[int, int]
    cut_short: bool

    def label(self, candidate: Candidate) -> str:
        """Short name of a candidate's width."""
        return self.checkpoint.model.label(candidate.width)

    def cost(self, candidate: Candidate) -> float:
        """In the unit of the budget; as measured, where it was."""
        if candidate.width not in self.measurements:
            return candidate.cost
        return self.measurements.of([candidate.width])[0].under(self.budget.key)


class WidthSearch:
    """Profiles, explores, and chooses; what was evaluated before an interruption is kept.

    Args:
        reader: of the checkpoint whose widths are tried.
        held_out: images to decide by, and to report on.
        budget: the most that a width may cost.
        settings: how it goes.

    Raises:
        BudgetError: no width is within the budget.
        DataError: there are too few images, or none can be read.
    """

    def __init__(
        self, reader: BatchReader, held_out: Images, budget: Budget, settings: SearchSettings
    ) -> None:
        self._reader, self._budget, self._settings = reader, budget, settings
        self._report, self._model = reader.report, reader.checkpoint.model
        self._levels = head_levels(self._model, settings.skip_blocks)
        with self._report.stage(f"profiling for {budget.key}"):
            self._price = make_price(self._model, budget.key, self._levels, settings.profile_batch)
            smallest = smallest_width(self._model, self._levels, self._price)
            require_possible(budget, self._model, smallest, self._price)
            self._starts = starting_widths(self._model, self._levels, self._price, budget.limit)
        self._search_half, self._other_half = (self._read(half) for half in _halves(held_out, settings))
        self._measurements = Measurements(self._model, settings.profile_batch)
        self._candidates: list[Candidate] = []

    @property
    def deciding(self) -> int:
        """How many images the search decides by."""
        return sum(map(len, self._search_half))

    def run(self) -> SearchOutcome:
        """Explore and choose. An interruption ends that early: the choice is then among what was evaluated.

        Raises:
            KeyboardInterrupt: nothing was evaluated yet.
            BudgetError: what should fit does not when it is measured.
        """
        try:
            self._explore()
            return self._conclude(cut_short=False)
        except KeyboardInterrupt:
            if not self._candidates:
                raise
            self._report.say("interrupted: choosing among what was evaluated; once more to leave")
            return self._conclude(cut_short=True)

    def _explore(self) -> None:
        limit, evaluations = self._budget.limit, self._settings.evaluations
        with self._report.meter("evaluating", evaluations * self.deciding) as bar:

            def evaluate(width: Width) -> Score:
                note = self._standing()
                return score(self._model, self._search_half, width, lambda done: bar.advance(done, note))

            for candidate in explore(
                self._starts, self._levels, self._price, limit, evaluate, evaluations, self._settings.seed
            ):
                self._candidates.append(candidate)

    def _standing(self) -> str:
        within = ranked(known for known in self._candidates if known.cost <= self._budget.limit)
        best = f", best {within[0].score.log_likelihood:.4f} ({within[0].origin})" if within else ""
        return f"width {len(self._candidates) + 1} of {self._settings.evaluations}{best}"

    def _conclude(self, cut_short: bool) -> SearchOutcome:
        with self._report.stage("measuring finalists, and scoring them on the other half"):
            choice = choose(self._candidates, self._budget, self._measurements, self._score_held_back)
            known = [choice.chosen, choice.found, *([choice.rule] if choice.rule else [])]
            if not cut_short:
                known += pareto_front(
                    self._candidates, lambda known: known.cost, lambda known: known.score.log_likelihood
                )
                known += [candidate for candidate in self._candidates if candidate.origin == "trained"]
            shown = sorted(dict.fromkeys(known), key=lambda candidate: candidate.cost)
            self._measurements.of([candidate.width for candidate in shown])
        return SearchOutcome(
            checkpoint=self._reader.checkpoint,
            budget=self._budget,
            choice=choice,
            candidates=self._candidates,
            shown=shown,
            measurements=self._measurements,
            images=(self.deciding, sum(map(len, self._other_half))),
            cut_short=cut_short,
        )

    def _score_held_back(self, width: Width) -> Score:
        return score(self._model, self._other_half, width)

    def _read(self, images: Images) -> list[LabelledBatch]:
        read: list[LabelledBatch] = [
            batch for batch in self._reader.batches("reading images", images) if len(batch)
        ]
        if not read:
            raise DataError(f"{self._reader.checkpoint.path}: no held-out image of its data set can be read")
        return read


def _halves(images: Images, settings: SearchSettings) -> tuple[Images, Images]:
    """Two halves by chance, of at most so many images each: one to search by, one to report on."""
    if len(images) < 2:
        raise DataError(f"the data set has {len(images)} held-out images: select needs at least 2")
    order = np.random.default_rng(settings.seed).permutation(len(images))
    first, second = (half[: settings.images] for half in np.array_split(order, 2))
    return Subset(images, np.sort(first)), Subset(images, np.sort(second))
