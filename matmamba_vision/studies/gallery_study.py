"""A gallery measured as it is, in a folder or pushed to an engine: `evaluate_gallery`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from matmamba_datasets import DataError, TableReading
from matmamba_retrieval import EncodedQueries, Plan, Strategy
from matmamba_retrieval.planning.grid import FULL, Grid, IndexSettings, strategies_of
from matmamba_retrieval.planning.savings import notes_of
from matmamba_retrieval.remedies import PLAN as MAKE_PLAN
from matmamba_retrieval.strategies.engines import AnyGallery

from ..errors import ConfigError
from ..galleries.drawn_apart import require_apart
from ..galleries.embedder import Embedder
from ..galleries.gallery_model import ModelLike
from ..galleries.given_vectors import GivenVectors
from ..galleries.plans import QueriesWanted, QueryImages, QueryVectors, encoded_queries, given_queries
from ..galleries.searched_gallery import MOST_QUERIES
from ..galleries.strategies import say_few as say_few_images
from ..given import PathLike, require_folder, require_type
from ..measures.environment import environment
from ..measures.significance import RESAMPLES
from ..progress import Listener, Reporter
from ..public_call import public_call
from ..upkeep.image_gallery import open_gallery
from ..widths.slices import named_label
from .evaluate import opened_grid, say_few
from .strategy_rows import StrategyRows
from .study import Study, write_study

# Instead of a grid: what the gallery's plan says, alone.
PLAN = "plan"


@public_call
def evaluate_gallery(
    gallery: PathLike,
    queries: QueryImages | None = None,
    *,
    vectors: QueryVectors | None = None,
    labels: Sequence[str | None] | None = None,
    grid: str | os.PathLike[str] | Grid = "quick",
    output: PathLike | None = None,
    most: int = MOST_QUERIES,
    model: ModelLike | None = None,
    max_broken: float = 0.01,
    reading: TableReading | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    threads: int = 0,
    seed: int = 0,
    progress: Listener | None = None,
) -> Study:
    """Measure a gallery as it is: strategies side by side, asked by the public search.

    Nothing is built or changed: strategies are those of the grid that its indexes answer, each index with the
    effort that it was built for, and its plan. Where the grid has none of its dims, those that are there are
    tried. Each is compared with single-shot at full width: recall, and the same first hit; where queries and
    gallery have labels, 1-NN and mAP, too.

    Args:
        gallery: its folder, or where it was pushed: `qdrant://host:port/collection`, `qdrants://` for TLS, or
            `edge:FOLDER`.
        queries: images that are not those of the gallery, which find themselves: a folder, Parquet files or
            shards, or a sequence of images.
        vectors: instead of images: an array (n, D), or a file of vectors made elsewhere.
        labels: of a sequence of images or an array of vectors, one each.
        grid: quick; full, every strategy and dim; plan, the gallery's plan alone; a YAML file; or a `Grid`.
        output: folder to write results.json, results.csv and plots to; by default nothing is written.
        most: queries, picked by chance, at most.
        model: what made the gallery, if that was moved, or is loaded already.
        max_broken: share of query images that may be unreadable before the call stops.
        reading: what is read of a place.
        batch_size: images encoded at once.
        workers: processes that decode images; with 0, a thread does.
        device: cpu, cuda, or auto for whichever is there.
        threads: that compute, in this process from now on; 0 for as many as there are.
        seed: of all that is left to chance.
        progress: is told how far it is.

    Returns:
        A row for each strategy; `planned` says which is the plan's.

    Raises:
        MatMambaError: no gallery there, a damaged one, or the model is missing or another one's; queries that
            cannot be read, or whose classes are none of the gallery's; no plan where that alone is asked for.
        TypeError: an argument is of another type.
    """
    if (queries is None) == (vectors is None):
        raise ConfigError("a gallery is measured with either queries, images, or vectors")
    require_type("grid", grid, (str, os.PathLike, Grid), "a name, a file, or a Grid")
    place = None if output is None else require_folder("output", output)
    if isinstance(queries, str | os.PathLike):
        require_apart("output", place, [queries])
    tried = None if grid == PLAN else opened_grid(grid)
    report = Reporter(progress)
    wanted = QueriesWanted(
        widths=(),
        most=most,
        max_broken=max_broken,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
        report=report,
    )
    with (
        open_gallery(gallery, model=model, device=device, threads=threads) as opened,
        opened.reading() as known,
    ):
        plan = _plan_of(known, tried)
        tried = tried or Grid(k=plan.k if plan else 1, strategies=["single-shot"], query_widths=["full"])
        if vectors is not None:
            encoded, classes = given_queries(vectors, labels, known, wanted)
        else:
            assert queries is not None
            embedder = opened.require_model()
            wanted = replace(wanted, widths=_widths(tried, plan, embedder))
            encoded, classes = encoded_queries(queries, labels, reading, embedder, wanted)
        say_few_images(report, known, tried.k, itself=False)
        asked = AskedGallery(known, encoded, _comparable(known, classes, report))
        study = _measured(asked, tried, plan, seed, report)
    study = replace(study, data={"queries": _words(queries if vectors is None else vectors)}, output=place)
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        write_study(place, study)
    return study


@dataclass(frozen=True, eq=False)
class AskedGallery:
    """A gallery with its queries.

    Attributes:
        gallery: open.
        queries: encoded at each width that asks.
        labels: class name of each, None where 1-NN and mAP mean nothing.
        name: of the queries; rows of a gallery are not kept, so that none is needed.
    """

    gallery: AnyGallery
    queries: EncodedQueries
    labels: Sequence[str] | None
    name: str = ""


def _plan_of(gallery: AnyGallery, grid: Grid | None) -> Plan | None:
    """The gallery's plan; `ConfigError` if there is none, and nothing else to try."""
    stored = gallery.plan
    if not stored and grid is None:
        raise ConfigError(f"grid {PLAN}: {gallery.folder} has no plan: {MAKE_PLAN} makes one")
    plan = Plan.from_json(stored) if stored else None
    if plan is not None:
        plan.require(gallery)
    return plan


def _widths(grid: Grid, plan: Plan | None, embedder: Embedder) -> list[str]:
    """Labels of the widths that ask: those of the grid, by default all that were trained, and of the plan."""
    of_grid = [named_label(width, embedder) for width in grid.query_widths] or list(embedder.widths)
    return list(dict.fromkeys([*of_grid, *(_widths_of(plan.strategy) if plan else ())]))


def _widths_of(strategy: Strategy) -> list[str]:
    """Labels of all widths that a query is encoded at."""
    return [width or FULL for width in (strategy.query_width, *strategy.widths)]


def _comparable(gallery: AnyGallery, classes: Sequence[str] | None, report: Reporter) -> Sequence[str] | None:
    """Classes of the queries, None if they cannot be compared with those of the gallery.

    Raises:
        DataError: none of them is a class of the gallery.
    """
    if classes is None or not gallery.labelled():
        who = "queries" if classes is None else f"images of {gallery.folder}"
        report.say(f"note: the {who} have no labels: 1-NN and mAP are left out")
        return None
    known = {label for label in gallery.labels() if label is not None}
    if known.isdisjoint(classes):
        raise DataError(
            f"no query is of a class of {gallery.folder}: {_some(known)} there, {_some({*classes})} asked"
        )
    return classes


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def _measured(asked: AskedGallery, grid: Grid, plan: Plan | None, seed: int, report: Reporter) -> Study:
    """A row for each strategy."""
    gallery, labelled = asked.gallery, asked.labels is not None
    grid = _fitted(grid, gallery, list(asked.queries.by_width), labelled)
    wanted = _wanted(grid, gallery)
    if labelled:
        say_few(report, wanted, len(asked.queries))
    planned = _planned(plan, grid.k, asked.queries, report)
    if planned is not None and (planned, 0.0) not in wanted:
        wanted.append((planned, 0.0))
    found = StrategyRows(asked, grid, seed, None, report).rows(wanted)
    rows = [row | {"planned": each == planned} for row, (each, _) in zip(found, wanted, strict=True)]
    return Study(
        checkpoint=Path(gallery.checkpoint_path),
        digest=gallery.spec.checkpoint,
        data={},
        settings={"k": grid.k, "seed": seed, "resamples": RESAMPLES, "grid": asdict(grid)},
        environment=environment(),
        images={"gallery": len(gallery), "queries": len(asked.queries)},
        exact=(),
        rows=rows,
        notes=notes_of(rows),
        gallery=str(gallery.folder),
    )


def _fitted(grid: Grid, gallery: AnyGallery, widths: list[str], labelled: bool) -> Grid:
    """The grid over the indexes that a gallery has, and for its number of images."""
    there = gallery.shortlist_dims()
    return replace(
        grid,
        k=min(grid.k, len(gallery)),
        query_widths=widths,
        gallery_widths=[FULL],
        dims=[dim for dim in grid.dims if dim in there] or there,
        indexes=[IndexSettings()],
        gate_dims=[dim for dim in grid.gate_dims if dim in there],
        gate_qualities=list(grid.gate_qualities) if labelled else ["recall"],
    )


def _wanted(grid: Grid, gallery: AnyGallery) -> list[tuple[Strategy, float]]:
    """Strategies of the grid that the gallery can answer, with the loss that their gates may have."""
    there, later = gallery.shortlist_dims(), gallery.step_dims()

    def answers(strategy: Strategy) -> bool:
        first, *others = strategy.dims or (0,)
        return not first or (first in there and (later is None or {*others} <= {*later}))

    found = strategies_of(grid, grid.query_widths, gallery.spec.dim, len(gallery))
    return [each for each in found if answers(each[0])]


def _planned(plan: Plan | None, k: int, queries: EncodedQueries, report: Reporter) -> Strategy | None:
    """The plan's strategy, if it keeps enough candidates for k hits, and the queries have its widths."""
    if plan is None:
        return None
    lacks = [width for width in _widths_of(plan.strategy) if width not in queries.by_width]
    why = f"encodes queries by width {lacks[0]}, which vectors have not" if lacks else ""
    if min(plan.strategy.lengths, default=k) < k:
        why = f"keeps {min(plan.strategy.lengths)} candidates, fewer than k = {k}"
    if why:
        report.say(f"note: the plan {why}: it is left out")
        return None
    return plan.strategy


def _words(queries: QueryImages | QueryVectors | None) -> str:
    """What the queries were given as."""
    if isinstance(queries, GivenVectors):
        return str(queries.vectors)
    return str(queries) if isinstance(queries, (str, os.PathLike)) else "given one by one"
