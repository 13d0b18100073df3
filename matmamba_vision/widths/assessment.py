"""What a validation finds out from encoded images: every number with its interval, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
from matmamba_retrieval import prefix

from ..galleries.embedder import Embedder
from ..measures import Predictions
from ..measures.calibration import Reliability, reliability
from ..measures.significance import mcnemar, sign_flip_test, with_intervals
from ..progress import Reporter
from .quality_and_cost import Labelled, Values, embedder_row, retrieval_values

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ValidationPlan:
    """What to measure.

    Attributes:
        widths: of the queries.
        gallery_widths: of the gallery; on the first, and by the longest dim, widths are compared.
        dims: embedding dims.
        knn: k of kNN classification.
        pairs: widths to test against each other.
        probe: whether to fit linear probes.
        seed: of resampling and of what a probe holds out.
        classified: whether the model tells apart the classes of the images.
    """

    widths: Sequence[str]
    gallery_widths: Sequence[str]
    dims: Sequence[int]
    knn: Sequence[int]
    pairs: Sequence[tuple[str, str]]
    probe: bool
    seed: int
    classified: bool = True


@dataclass(frozen=True, eq=False)
class EncodedSides:
    """What a model says about the held-out images and about the gallery, at each width."""

    queries: Mapping[str, Labelled]
    gallery: Mapping[str, Labelled]


def assess(
    embedder: Embedder, plan: ValidationPlan, encoded: EncodedSides, report: Reporter
) -> dict[str, list[Row]]:
    """Lists of rows: widths, retrieval, comparisons, calibration, and probes if planned."""
    return _Assessment(embedder, plan, encoded, report).tables()


class _Assessment:
    """Searches once; every table is made from what was found."""

    def __init__(
        self, embedder: Embedder, plan: ValidationPlan, encoded: EncodedSides, report: Reporter
    ) -> None:
        self._embedder, self._plan, self._encoded, self._report = embedder, plan, encoded, report
        wanted = list(product(plan.widths, plan.gallery_widths, plan.dims))
        self._cells = {
            (query, gallery, dim): retrieval_values(
                encoded.queries[query], encoded.gallery[gallery], dim, plan.knn
            )
            for query, gallery, dim in self._tracked(wanted, "searching", "searches")
        }

    def tables(self) -> dict[str, list[Row]]:
        plan = self._plan
        tables = {
            "widths": self._widths(),
            "retrieval": self._retrieval(),
            "comparisons": [self._comparison(*pair) for pair in plan.pairs],
            "calibration": [self._calibration(width) for width in plan.widths if plan.classified],
        }
        return tables | ({"probes": self._probes()} if plan.probe else {})

    def _tracked(self, wanted: Sequence[T], stage: str, unit: str) -> Iterator[T]:
        with self._report.meter(stage, len(wanted), unit) as meter:
            for one in wanted:
                yield one
                meter.advance(1)

    def _widths(self) -> list[Row]:
        widths = self._plan.widths
        with self._report.stage("measuring latency"):
            latencies = self._embedder.latencies(widths)
        found = with_intervals([self._quality(width) for width in widths], self._plan.seed)
        return [
            embedder_row(self._embedder, width)
            | quality
            | ({"ece": self._reliability(width).error} if self._plan.classified else {})
            | {"encode_ms": latency.median}
            for width, quality, latency in zip(widths, found, latencies, strict=True)
        ]

    def _quality(self, width: str) -> dict[str, Values]:
        cell = self._reference(width)
        found = {"knn1": cell["knn1"], "map10": cell["map10"]}
        if not self._plan.classified:
            return found
        said = self._predictions(width)
        return {
            "top1": said.correct,
            "top5": said.in_top5,
            "nll": -said.log_likelihoods,
            "brier": said.briers,
        } | found

    def _predictions(self, width: str) -> Predictions:
        found = self._encoded.queries[width]
        assert isinstance(found, Predictions)
        return found

    def _reference(self, width: str) -> dict[str, Values]:
        """What queries of the width find where widths are compared."""
        return self._cells[width, self._plan.gallery_widths[0], max(self._plan.dims)]

    def _reliability(self, width: str) -> Reliability:
        found = self._predictions(width)
        return reliability(found.confidences, found.correct)

    def _retrieval(self) -> list[Row]:
        # Of tens of thousands of images it takes half a minute.
        with self._report.stage("resampling images"):
            found = with_intervals(list(self._cells.values()), self._plan.seed)
        return [
            {"query_width": query, "gallery_width": gallery, "dim": dim} | quality
            for (query, gallery, dim), quality in zip(self._cells, found, strict=True)
        ]

    def _comparison(self, first: str, second: str) -> Row:
        """First minus second, image by image; p of McNemar's exact test, and of a sign-flip test for mAP."""
        plan, tests = self._plan, dict[str, float]()
        precise = [self._reference(width)["map10"] for width in (first, second)]
        differences: dict[str, Values] = {}
        if plan.classified:
            right = [self._predictions(width).correct for width in (first, second)]
            differences["top1_difference"] = right[0].astype(float) - right[1]
            tests["top1_p"] = mcnemar(*right)
        differences["map10_difference"] = precise[0] - precise[1]
        (quality,) = with_intervals([differences], plan.seed)
        known = {"first": first, "second": second}
        where = {"gallery_width": plan.gallery_widths[0], "dim": max(plan.dims)}
        tests["map10_p"] = sign_flip_test(differences["map10_difference"], plan.seed)
        return known | where | quality | tests

    def _calibration(self, width: str) -> Row:
        bins = self._reliability(width)
        means = {
            name: [None if np.isnan(value) else float(value) for value in values]
            for name, values in (("confidences", bins.confidences), ("accuracies", bins.accuracies))
        }
        return {"width": width, "ece": bins.error, "counts": bins.counts.tolist(), **means}

    def _probes(self) -> list[Row]:
        """Trained on the gallery, both sides encoded by the width."""
        # Here, because scikit-learn may not be installed.
        from ..measures.probe import linear_probe

        plan, encoded = self._plan, self._encoded
        wanted, probes = list(product(plan.widths, plan.dims)), []
        for width, dim in self._tracked(wanted, "fitting linear probes", "probes"):
            stored, asked = encoded.gallery[width], encoded.queries[width]
            xt, xq = prefix(stored.embeddings, dim), prefix(asked.embeddings, dim)
            probes.append(linear_probe(xt, stored.labels, xq, asked.labels, plan.seed))
        found = with_intervals([{"probe": probe.correct} for probe in probes], plan.seed)
        return [
            {"width": width, "dim": dim, "strength": probe.strength} | quality
            for (width, dim), probe, quality in zip(wanted, probes, found, strict=True)
        ]
