"""A grid of search strategies on labelled images: `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from matmamba_common.settings import require_crew, require_least
from matmamba_common.words import shown
from matmamba_datasets import Splits
from matmamba_retrieval.planning.grid import Grid, strategies_of
from matmamba_retrieval.planning.savings import notes_of
from matmamba_retrieval.strategies.strategy import Strategy

from ..config_file import found_config, load_into, shipped_config
from ..device import limit_threads
from ..errors import ConfigError
from ..galleries.embedder import Embedder
from ..galleries.encoding import some
from ..galleries.gallery_model import ModelLike, embedder_at
from ..given import PathLike, require_folder, require_type
from ..measures.environment import environment
from ..measures.significance import RESAMPLES
from ..progress import Listener, Reporter
from ..public_call import public_call
from ..widths.held_out import BatchReader, data_config, open_data
from ..widths.slices import named_label
from .experiment import Workshop
from .modes import require_modes, widths_asked, widths_stored
from .study import Study, write_study
from .study_tables import tables_of

# Grids that are shipped, by name.
GRIDS = {"quick": "retrieval/quick.yaml", "full": "retrieval/adaptive.yaml"}
# In a study's folder: embeddings, the gallery and rows that are done, which a later call goes on from.
ENCODED = "encoded"
# Of the quick grid: most images in the gallery, and most queries.
QUICK_IMAGES, QUICK_QUERIES = 10_000, 1_000


@public_call
def evaluate(
    checkpoint: ModelLike,
    *,
    grid: str | os.PathLike[str] | Grid = "quick",
    output: PathLike | None = None,
    data: str = "",
    root: PathLike = "",
    gallery_images: int | None = None,
    queries: int | None = None,
    modes: Sequence[str] = (),
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    threads: int = 0,
    seed: int = 0,
    progress: Listener | None = None,
) -> Study:
    """Run a grid of search strategies on labelled images: what they reach against what they spend.

    The training images are the gallery, the held-out ones are asked, same class relevant. Tried is every
    combination of the grid: single-shot, shortlist and rerank, funnel and gated, by query width, gallery
    width, dim of the first stage, shortlist and index; each against single-shot at full width. Gates are
    calibrated on other queries than those that they are measured on.

    Of a student with its teacher (`with_teacher`), the teacher is the full width and encodes the gallery of
    all strategies, which the student asks. Exact search is by mode, named after the encoders of query and
    gallery: teacher-teacher, student-student and student-teacher.

    Args:
        checkpoint: as the model of `index`: any encoder; one that is not nested has the width full alone.
        grid: quick, which ends within minutes; full, every strategy, index and dim; a YAML file; or a `Grid`.
        output: folder to write results.json, results.csv and plots to. Embeddings, gallery and rows that are
            done are kept there, so that the same call goes on where it was stopped. By default nothing is
            kept.
        data: name of the data set, if not that of the training run.
        root: its folder, if not that of the training run.
        gallery_images: most images in the gallery, picked by chance; by default all, but 10,000 for the quick
            grid.
        queries: most held-out images that are asked, picked by chance; by default all, but 1,000 for the
            quick grid.
        modes: of a student with its teacher, those wanted; by default all three. With teacher-teacher the
            others are compared, so that it is always there. Without student-teacher the student is in no
            strategy.
        batch_size: images encoded at once.
        workers: processes that decode images.
        device: cpu, cuda, or auto for whichever is there.
        threads: that compute, in this process from now on; 0 for as many as there are.
        seed: of all that is left to chance.
        progress: is told how far it is.

    Returns:
        A row for each strategy.

    Raises:
        CheckpointError: no such checkpoint.
        EncoderError: an encoder that cannot be had.
        ConfigError: an argument or a grid that cannot be.
        WidthError: the model has no such width.
        DataError: the data set is missing or unreadable.
        TypeError: an argument of a wrong type.
    """
    require_least(1, gallery_images=gallery_images, batch_size=batch_size)
    require_least(2, queries=queries)
    require_crew(workers=workers, threads=threads)
    require_least(0, seed=seed)
    require_type("grid", grid, (str, os.PathLike, Grid), "a name, a file, or a Grid")
    place = None if output is None else require_folder("output", output)
    limit_threads(threads)
    tried = opened_grid(grid)
    if grid == "quick":
        gallery_images, queries = gallery_images or QUICK_IMAGES, queries or QUICK_QUERIES
    known, report = embedder_at(checkpoint, device, name="checkpoint"), Reporter(progress)
    wanted_modes = require_modes(modes, known)
    tried = _with_widths(tried, known)
    config = data_config(known, data, root)
    splits = open_data(report, config, place)
    splits = Splits(some(splits.train, gallery_images, seed), some(splits.held_out, queries, seed))
    full, asked = known.dim, widths_asked(wanted_modes, tried.query_widths)
    wanted = strategies_of(tried, asked, full, len(splits.train))
    say_few(report, wanted, len(splits.held_out))
    reader = BatchReader(embedder=known, report=report, batch_size=batch_size, workers=workers)
    about = {"name": config.name, "root": config.root, "seed": seed, "held_out": config.held_out}
    stored = widths_stored(wanted_modes, tried.gallery_widths)
    with _working_folder(place) as folder:
        kept = folder / ENCODED
        with Workshop(kept, reader).open(splits, about, tried.query_widths, stored) as experiment:
            tables = tables_of(experiment, tried, wanted, seed, kept, report, wanted_modes)
    study = Study(
        checkpoint=Path(known.name),
        digest=known.digest,
        data={"name": config.name, "root": config.root},
        settings={"k": tried.k, "seed": seed, "resamples": RESAMPLES, "grid": asdict(tried)},
        environment=environment(),
        **tables,
        notes=notes_of(tables["rows"]),
        modes=wanted_modes,
        output=place,
    )
    if place is not None:
        write_study(place, study)
    return study


def opened_grid(grid: str | os.PathLike[str] | Grid) -> Grid:
    """The grid that is meant: by the name of one that is shipped, in a YAML file, or as it is."""
    if isinstance(grid, Grid):
        return grid
    named = GRIDS.get(str(grid))
    if not named and not found_config(Path(grid)).is_file():
        raise ConfigError(
            f"grid is {shown(str(grid))}: it can be {', '.join(GRIDS)}, of a gallery plan, or a YAML file"
        )
    return load_into(Grid, shipped_config(named) if named else Path(grid))


def _with_widths(grid: Grid, embedder: Embedder) -> Grid:
    """The same with labels of the query widths, full first, and of the gallery widths."""

    def labels(names: Sequence[str]) -> list[str]:
        return [named_label(name, embedder) for name in names]

    asked = labels(grid.query_widths) or list(embedder.widths)
    stored = list(dict.fromkeys(labels(grid.gallery_widths)))
    return replace(grid, query_widths=list(dict.fromkeys(["full", *asked])), gallery_widths=stored)


def say_few(report: Reporter, wanted: Sequence[tuple[Strategy, float]], queries: int) -> None:
    """Tell it if one query is more than a gate may lose."""
    one = 100 / queries
    losses = sorted({loss for strategy, loss in wanted if strategy.kind == "gated" and loss < one})
    if losses:
        targets = ", ".join(f"{loss:g}" for loss in losses)
        report.say(
            f"{queries:,} queries are too few for gates that may lose {targets} points:"
            f" one query is {one:.2g} points of 1-NN"
        )


@contextmanager
def _working_folder(place: Path | None) -> Iterator[Path]:
    """The folder that was named, made before the work so that one that cannot be written costs none."""
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        yield place
        return
    with TemporaryDirectory() as scratch:
        yield Path(scratch)
