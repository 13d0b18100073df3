"""The best way to search a gallery: measured on queries, chosen, and kept with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matmamba_common.settings import require, require_crew
from matmamba_datasets import (
    NO_LABEL,
    BrokenTally,
    DataError,
    Images,
    TableReading,
)
from matmamba_retrieval import Encoded, EncodedQueries, Gallery, GalleryError, Plan, Strategy
from matmamba_retrieval.planning.planner import NEED_LABELS, Goal, Planner, candidates
from matmamba_retrieval.strategies.engines import AnyGallery
from matmamba_retrieval.strategies.indexes import ensure_index
from numpy.typing import NDArray

from ..errors import ConfigError
from ..given import require_number, require_path, require_place, require_texts, require_whole
from ..measures.pareto import pareto_front
from ..progress import Reporter
from ..public_call import public_call
from .encoding import embed_images, some
from .given_images import ImageLike, collection_of
from .given_vectors import GivenVectors
from .plan_trials import keep_trials
from .queries import unit_vectors
from .strategies import say_few

if TYPE_CHECKING:
    from matmamba_datasets import Batch
    from matmamba_datasets.transforms import Transform

    from .embedder import Embedder

Row = dict[str, Any]
# Images of queries: a place, or a sequence of images.
QueryImages: TypeAlias = "str | os.PathLike[str] | Images | Sequence[ImageLike]"
QueryVectors: TypeAlias = "NDArray[np.floating] | GivenVectors | str | os.PathLike[str]"
# Numbers by name, or texts such as "recall=0.99".
Numbers: TypeAlias = "Mapping[str, float] | Sequence[str]"


@dataclass(frozen=True, kw_only=True)
class PlanFound:
    """What was tried, and what was chosen.

    Attributes:
        plan: the choice, as the gallery keeps it now.
        goal: what was asked for.
        tried: a row for each strategy: what it is, reaches and costs.
        chosen: the row of the choice.
        front: rows of which none is better in milliseconds and in quality; gates that fall back to
            single-shot are left out.
        single_shot: the row of single-shot at full width, which others are compared with.
        notes: what has to be said: gates that save nothing, small queries that do not pay, what costs more.
    """

    plan: Plan
    goal: Goal
    tried: tuple[Row, ...]
    chosen: Row
    front: tuple[Row, ...]
    single_shot: Row
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: the plan, the front, how many strategies were tried, single-shot, and notes."""
        return {
            "plan": self.plan.to_json(),
            "front": list(self.front),
            "tried": len(self.tried),
            "single_shot": self.single_shot,
            "notes": list(self.notes),
        }

    @public_call
    def write_plot(self, file: str | os.PathLike[str]) -> None:
        """Draw what was tried, with the Pareto front, into a PNG.

        Args:
            file: to write.

        Raises:
            ConfigError: its folder is not there.
            SystemRefusalError: it cannot be written.
            TypeError: it is no path.
        """
        # Here, because importing it takes most of a second.
        from .plan_plot import draw_plan

        place = require_place("file", file)
        drawn = draw_plan(self.tried, self.chosen, self.single_shot, self.goal.quality, str(self.goal))
        place.write_bytes(drawn)


@dataclass(frozen=True, kw_only=True)
class QueriesWanted:
    """Which queries a gallery is measured on, and how they are encoded.

    Raises:
        TypeError: an argument is of another type.
        ConfigError: an argument cannot be.
    """

    widths: Sequence[str]
    most: int
    max_broken: float
    batch_size: int
    workers: int
    seed: int
    report: Reporter

    def __post_init__(self) -> None:
        for name, least in (("most", 2), ("batch_size", 1), ("seed", 0)):
            require_whole(name, getattr(self, name), least)
        require_crew(workers=self.workers)
        require_texts("widths", self.widths)
        require_number("max_broken", self.max_broken)


@dataclass(frozen=True, kw_only=True)
class PlanWanted(QueriesWanted):
    """How a plan is to be found; the arguments of `ImageGallery.plan`.

    Raises:
        TypeError: an argument is of another type.
        ConfigError: an argument cannot be.
        GalleryError: the same, of the gallery.
    """

    goal: Goal
    k: int
    dims: Sequence[int]
    indexes: Sequence[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("k", self.k, 1)
        require("dims", self.dims, Sequence[int])
        for place, dim in enumerate(self.dims):
            require_whole(f"dims[{place}]", dim, 1)
        require_texts("indexes", self.indexes)


def goal_of(target: Numbers, budget: Numbers) -> Goal:
    """What a plan has to reach, and may spend.

    Args:
        target: numbers by name, or texts such as "recall=0.99".
        budget: the same.

    Raises:
        TypeError: neither.
        GalleryError: a name is unknown, a number cannot be, or there is neither target nor budget.
    """
    return Goal(_numbers("target", target), _numbers("budget", budget))


def _numbers(name: str, values: Numbers) -> Mapping[str, float]:
    if not isinstance(values, Mapping):
        return Goal.pairs(require_texts(name, values))
    for key, value in values.items():
        require(f"{name}: a name", key, str)
        require_number(f"{name} {key}", value)
    return values


def find_plan(
    gallery: AnyGallery, queries: EncodedQueries, labels: Sequence[str] | None, wanted: PlanWanted
) -> PlanFound:
    """Try strategies, choose one, and keep it with the gallery.

    Args:
        gallery: open for writing.
        queries: encoded at each width that may ask first.
        labels: class of each query, None if one has none.
        wanted: how.

    Raises:
        GalleryError: nothing reaches the goal, or labels are missing that it needs.
    """
    say_few(wanted.report, gallery, wanted.k, itself=False)
    k = min(wanted.k, len(gallery))
    planner = Planner(gallery, queries, k, wanted.goal, labels, wanted.seed)
    rows = _try(gallery, planner, list(queries.by_width), k, wanted)
    chosen = planner.choose(rows)
    plan = planner.plan(chosen)
    for step in plan.strategy.steps[:1]:
        ensure_index(gallery, step.dim, gallery.spec.width, step.index)
    gallery.save_plan(plan.to_json())
    offered = [row for row in rows if not row["falls_back"]]
    front = pareto_front(offered, lambda row: row["ms"], lambda row: row[wanted.goal.quality])
    if isinstance(gallery, Gallery):
        keep_trials(gallery.folder, plan, offered, front, chosen)
    return PlanFound(
        plan=plan,
        goal=wanted.goal,
        tried=tuple(rows),
        chosen=chosen,
        front=tuple(front),
        single_shot=planner.single_shot,
        notes=tuple(planner.notes(rows, chosen)),
    )


def _try(gallery: AnyGallery, planner: Planner, widths: list[str], k: int, wanted: PlanWanted) -> list[Row]:
    """A row for each strategy; indexes over the same dims take turns, each replacing the other."""
    dims = sorted(set(wanted.dims)) or gallery.shortlist_dims() or [min(32, gallery.spec.dim)]
    rows: list[Row] = []
    known: set[Strategy] = set()
    labelled = wanted.goal.quality in NEED_LABELS
    for name in dict.fromkeys(require_texts("indexes", wanted.indexes) or [""]):
        for dim in dims:
            with wanted.report.stage(f"building {name or 'the'} index over {dim} dims"):
                ensure_index(gallery, dim, gallery.spec.width, name)
        new = [one for one in candidates(gallery, widths, k, dims, labelled) if one not in known]
        known.update(new)
        with wanted.report.meter(f"trying strategies {name}".rstrip(), len(new), "strategies") as bar:
            for row in planner.run(new):
                if row is None:
                    bar.skip(1)
                else:
                    rows.append(row)
                    bar.advance(1, f"{row['strategy']}, query {row['query_width']}")
    if not rows:
        raise GalleryError(f"{gallery.folder}: there was nothing to try")
    return rows


def given_queries(
    vectors: QueryVectors, labels: Sequence[str | None] | None, gallery: AnyGallery, wanted: QueriesWanted
) -> tuple[EncodedQueries, list[str] | None]:
    """Query vectors, which cost no encoding, and their class names, if all have one.

    Args:
        vectors: an array (n, D), a file, or a file with the name of its model.
        labels: of an array.
        gallery: that is to be asked.
        wanted: how many of them.

    Raises:
        TypeError: an argument is of another type.
        GalleryError: vectors that do not fit the gallery.
    """
    if isinstance(vectors, np.ndarray):
        xq = unit_vectors("vectors", vectors, gallery.spec.dim, 2)
        if labels is not None and len(labels) != len(xq):
            raise ConfigError(f"labels has {len(labels)} for {len(xq)} vectors")
        chosen = np.sort(np.random.default_rng(wanted.seed).permutation(len(xq))[: wanted.most])
        xq, found = xq[chosen], [None if labels is None else labels[place] for place in chosen]
    else:
        if not isinstance(vectors, GivenVectors):
            vectors = GivenVectors(require_path("vectors", vectors))
        xq, found = vectors.some(gallery, wanted.most, wanted.seed)
    known = [label for label in found if label is not None]
    return EncodedQueries({"full": Encoded(xq, 0.0, 0.0)}), known if len(known) == len(found) else None


def encoded_queries(
    images: QueryImages,
    labels: Sequence[str | None] | None,
    reading: TableReading | None,
    embedder: Embedder,
    wanted: QueriesWanted,
) -> tuple[EncodedQueries, list[str] | None]:
    """Query images at each width, with the milliseconds of one; their class names, if all have one.

    Args:
        images: a place, or a sequence of images.
        labels: of a sequence.
        reading: what is read of a place.
        embedder: that encodes.
        wanted: how many of them, and at which widths.

    Raises:
        DataError: no image can be read, or too many cannot.
        WidthError: the model has no such width.
        ConfigError: multiply-adds have a budget, and nobody knows those of the model.
    """
    report = wanted.report
    asked = [embedder.label(width) for width in require_texts("widths", wanted.widths)]
    widths = list(dict.fromkeys(["full", *(asked or embedder.widths)]))
    if isinstance(wanted, PlanWanted) and "gmacs" in wanted.goal.budgets:
        _require_macs(embedder, widths)
    found = collection_of(images, _names(images), labels, reading, "queries")
    picked = some(found, wanted.most, wanted.seed)
    report.left_out(picked.left_out)
    by_width, numbers = _embed(picked, embedder, widths, wanted)
    with report.stage("measuring latency"):
        times = embedder.latencies(widths)
    encoded = {
        width: Encoded(by_width[width], embedder.macs(width), time.median)
        for width, time in zip(widths, times, strict=True)
    }
    known = None if NO_LABEL in numbers else [picked.classes[number] for number in numbers]
    return EncodedQueries(encoded), known


def _require_macs(embedder: Embedder, widths: Sequence[str]) -> None:
    if not all(map(embedder.macs, widths)):
        raise ConfigError(
            f"budget gmacs: nobody knows the multiply-adds of {embedder.name}: say them as macs, in the JSON"
            " beside an ONNX file or to encoder_from"
        )


def _names(images: Any) -> list[str] | None:
    """Names for a sequence of queries, which need no ids of their own."""
    listed = isinstance(images, Sequence) and not isinstance(images, (str, bytes))
    return [f"queries[{place}]" for place in range(len(images))] if listed else None


def _embed(
    images: Images, embedder: Embedder, widths: list[str], wanted: QueriesWanted
) -> tuple[dict[str, NDArray[np.float32]], list[int]]:
    """Embeddings by width, and labels, of the images that can be read; the others are told."""
    from matmamba_datasets import make_loader

    tally = BrokenTally(len(images), wanted.max_broken, "max_broken")

    def batches(transform: Transform) -> Iterable[Batch]:
        loader = make_loader(images, transform, wanted.batch_size, workers=wanted.workers)
        return wanted.report.watch("encoding queries", loader, tally)

    by_width, labels, _ = embed_images(embedder.for_many(len(images)), widths, batches)
    if not len(labels):
        raise DataError("queries: no image can be read")
    wanted.report.broken(tally)
    return by_width, labels.tolist()
