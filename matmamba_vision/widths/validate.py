"""Measuring a checkpoint at each width on held-out images: `validate`, and what it gives back and writes."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from matmamba_common.settings import require_crew, require_least
from matmamba_common.words import shown
from matmamba_datasets import Batch, DataConfig, DataError, Images, Splits

from ..checkpoint import write_whole
from ..device import limit_threads
from ..errors import ConfigError
from ..galleries.embedder import Embedder
from ..galleries.encoding import embed_images, some
from ..galleries.gallery_model import ModelLike, embedder_at
from ..given import PathLike, require_folder, require_lists
from ..measures import predict
from ..measures.environment import environment
from ..measures.significance import RESAMPLES
from ..progress import Listener, Reporter
from ..public_call import public_call
from .assessment import EncodedSides, ValidationPlan, assess
from .held_out import BatchReader, classes_fit, data_config, open_data
from .quality_and_cost import Embeddings, Labelled
from .slices import NamedWidth, named_label

Row = dict[str, Any]
SMALLEST_DIM = 8
# What identifies a row, and what its other entries are not.
KEYS = ("width", "query_width", "gallery_width", "dim", "first", "second")
TABLES = ("widths", "retrieval", "comparisons", "probes")
FILES = ("results.json", "results.csv", "heatmap.png", "calibration.png")


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """What `validate` found out; rows are plain values, and `NAME_interval` is the 95 % interval of `NAME`.

    Attributes:
        checkpoint: the file, or the name of another encoder.
        digest: SHA-256 of its weights.
        data: name and root of the data set.
        images: how many there are in the gallery, and among the queries.
        settings: votes of kNN, embedding dims, seed and number of resamples.
        widths: one row for each width: cost, accuracy, calibration, and retrieval on the first gallery width;
            without accuracy and calibration where the model does not tell apart the classes of the data.
        retrieval: one row for each width of the query, width of the gallery, and dim.
        comparisons: differences of two widths with their p, each for one test alone.
        calibration: for each width images, confidence and accuracy by bins of confidence; empty where there
            is no accuracy.
        probes: accuracy of a linear classifier by width and dim; None if none was fitted.
        seconds: that encoding and all the rest took.
        environment: commit, versions and machine.
        output: the folder that was written; None if none was named.
    """

    checkpoint: Path
    digest: str
    data: Mapping[str, str]
    images: Mapping[str, int]
    settings: Mapping[str, Any]
    widths: Sequence[Row]
    retrieval: Sequence[Row]
    comparisons: Sequence[Row]
    calibration: Sequence[Row]
    probes: Sequence[Row] | None = None
    seconds: Mapping[str, float]
    environment: Mapping[str, Any]
    output: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in results.json."""
        return {
            "checkpoint": str(self.checkpoint),
            "digest": self.digest,
            "data": dict(self.data),
            "images": dict(self.images),
            "settings": dict(self.settings),
            "widths": list(self.widths),
            "retrieval": list(self.retrieval),
            "comparisons": list(self.comparisons),
            "calibration": list(self.calibration),
            **({} if self.probes is None else {"probes": list(self.probes)}),
            "seconds": dict(self.seconds),
            **self.environment,
        }


@public_call
def validate(
    checkpoint: ModelLike,
    *,
    output: PathLike | None = None,
    data: str = "",
    root: PathLike = "",
    widths: Sequence[NamedWidth] = (),
    gallery_widths: Sequence[NamedWidth] = (),
    dims: Sequence[int] = (),
    knn: Sequence[int] = (10, 20),
    compare: tuple[NamedWidth, NamedWidth] | None = None,
    probe: bool = False,
    gallery_images: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    threads: int = 0,
    seed: int = 0,
    progress: Listener | None = None,
) -> Validation:
    """Measure a checkpoint at each width on held-out images.

    The held-out images are classified, and asked against a gallery of the training images, where those of
    the same class are relevant. Cost is counted, and the latency of one image is measured on this machine.
    A model of other classes than the data set's, or an encoder without classes, is measured in retrieval
    alone.

    Args:
        checkpoint: as the model of `index`: any encoder; one that is not nested has the width full alone.
        output: folder to write results.json, results.csv, heatmap.png and calibration.png to; an earlier
            validation there is replaced. By default nothing is written.
        data: name of the data set, if not that of the training run.
        root: its folder, if not that of the training run.
        widths: to measure, or files of slices that `select` wrote; by default those that were trained.
        gallery_widths: of the gallery, the first for the paired tests; by default full and `widths`.
        dims: embedding dims; by default those of the MRL loss, or powers of two from 8, and all.
        knn: numbers of neighbours that vote in kNN classification; all, where the gallery has fewer.
        compare: two of the widths to test against each other; by default the first against each other one.
        probe: fit linear probes on the embeddings of each width and dim, which is slow; needs scikit-learn.
        gallery_images: most images in the gallery, picked by chance; by default all.
        batch_size: images encoded at once.
        workers: processes that decode images.
        device: cpu, cuda, or auto for whichever is there.
        threads: that compute, in this process from now on; 0 for as many as there are.
        seed: of all that is left to chance.
        progress: is told how far it is.

    Returns:
        All figures with their intervals.

    Raises:
        CheckpointError: no such checkpoint.
        EncoderError: an encoder that cannot be had.
        ConfigError: an argument, or a slice, that cannot be.
        WidthError: the model has no such width.
        DataError: the data set is missing or unreadable.
        TypeError: an argument of a wrong type.
    """
    require_lists(widths=widths, gallery_widths=gallery_widths, dims=dims, knn=knn)
    require_least(1, gallery_images=gallery_images, knn=knn, dims=dims, batch_size=batch_size)
    require_crew(workers=workers, threads=threads)
    require_least(0, seed=seed)
    folder = None if output is None else require_folder("output", output)
    if probe:
        # Before the work, so that a missing package costs none.
        import sklearn  # noqa: F401
    limit_threads(threads)
    known, report = embedder_at(checkpoint, device, name="checkpoint"), Reporter(progress)
    plan = _plan(known, widths, gallery_widths, dims, knn=knn, compare=compare, probe=probe, seed=seed)
    config = data_config(known, data, root)
    splits = open_data(report, config, folder)
    plan = replace(plan, classified=_classified(known, splits, report))
    splits = Splits(some(splits.train, gallery_images, seed), splits.held_out)
    if folder is not None:
        # Before the work, so that a folder that cannot be written costs none.
        folder.mkdir(parents=True, exist_ok=True)
    reader = BatchReader(embedder=known, report=report, batch_size=batch_size, workers=workers)
    found = _measured(reader, plan, splits, config, folder)
    if folder is not None:
        _write(folder, found)
    return found


def _classified(embedder: Embedder, splits: Splits, report: Reporter) -> bool:
    """Whether top-1 can be measured; it is told if not."""
    fits = classes_fit(embedder, splits)
    if not fits:
        report.say(
            f"{embedder.name} tells apart other classes than those of this data set: top-1 was skipped,"
            " retrieval is measured"
        )
    return fits


def _plan(
    embedder: Embedder,
    wanted: Sequence[NamedWidth],
    stored: Sequence[NamedWidth],
    dims: Sequence[int],
    *,
    knn: Sequence[int],
    compare: tuple[NamedWidth, NamedWidth] | None,
    probe: bool,
    seed: int,
) -> ValidationPlan:
    widths = _named(wanted, embedder) or list(embedder.trained_widths)
    gallery = _named(stored, embedder) or list(dict.fromkeys(["full", *widths]))
    pairs = [(widths[0], width) for width in widths[1:]]
    if compare is not None:
        if isinstance(compare, str) or not isinstance(compare, Sequence) or len(compare) != 2:
            raise TypeError(f"compare is {shown(compare)}: it can be two of the widths")
        first, second = _named(compare, embedder, once=False)
        for width in (first, second):
            if width not in widths:
                known = ", ".join(widths)
                raise ConfigError(f"compare {width}: it can be one of the widths {known}")
        pairs = [(first, second)]
    return ValidationPlan(
        widths=widths,
        gallery_widths=gallery,
        dims=_dims(embedder, dims),
        knn=sorted(set(knn)),
        pairs=pairs,
        probe=probe,
        seed=seed,
    )


def _named(names: Sequence[NamedWidth], embedder: Embedder, *, once: bool = True) -> list[str]:
    labels = [named_label(name, embedder) for name in names]
    return list(dict.fromkeys(labels)) if once else labels


def _dims(embedder: Embedder, dims: Sequence[int]) -> list[int]:
    longest = embedder.dim
    if dims:
        if max(dims) > longest:
            raise ConfigError(f"dims {max(dims)}: embeddings of this checkpoint have {longest} dims")
        return sorted(set(dims))
    powers = [SMALLEST_DIM << power for power in range(longest.bit_length())]
    run = {} if embedder.checkpoint is None else embedder.checkpoint.run
    known = run.get("objective", {}).get("mrl_dims") or powers
    return sorted({*(dim for dim in known if dim < longest), longest})


def _measured(
    reader: BatchReader, plan: ValidationPlan, splits: Splits, config: DataConfig, output: Path | None
) -> Validation:
    embedder, start = reader.embedder, time.monotonic()
    encoded = _encode(reader, plan, splits)
    middle = time.monotonic()
    tables = assess(embedder, plan, encoded, reader.report)
    end = time.monotonic()
    sides = {"gallery": encoded.gallery, "queries": encoded.queries}
    return Validation(
        checkpoint=Path(embedder.name),
        digest=embedder.digest,
        data={"name": config.name, "root": config.root},
        images={name: len(next(iter(found.values())).labels) for name, found in sides.items()},
        settings={
            "knn": list(plan.knn),
            "dims": list(plan.dims),
            "seed": plan.seed,
            "resamples": RESAMPLES,
        },
        **tables,
        seconds={"encode": round(middle - start, 2), "assess": round(end - middle, 2)},
        environment=environment(),
        output=output,
    )


def _encode(reader: BatchReader, plan: ValidationPlan, splits: Splits) -> EncodedSides:
    """Both sides, each image read once for each way in which the widths want it prepared."""

    def encode(what: str, images: Images, widths: Sequence[str]) -> dict[str, Labelled]:
        batches = partial(reader.batches, f"encoding {what}", images)
        if plan.classified:
            found = _predicted(reader, batches, widths)
        else:
            found = _embedded(reader.embedder.for_many(len(images)), batches, widths)
        if not found:
            said = (
                f"no image of the {what} can be read"
                if len(images)
                else f"there are no images for the {what}"
            )
            raise DataError(f"{said}: name another data set, or another root")
        return found

    # A probe learns from the training images at the width that it is for.
    stored = list(dict.fromkeys([*plan.gallery_widths, *(plan.widths if plan.probe else ())]))
    return EncodedSides(
        encode("queries", splits.held_out, plan.widths), encode("gallery", splits.train, stored)
    )


def _predicted(
    reader: BatchReader, batches: Callable[..., Iterable[Batch]], widths: Sequence[str]
) -> dict[str, Labelled]:
    """What each width says about images, classes too; nothing if there are none."""
    predictions = predict(reader.checkpoint.model, batches(), widths)
    return dict(zip(widths, predictions, strict=True)) if predictions else {}


def _embedded(
    embedder: Embedder, batches: Callable[..., Iterable[Batch]], widths: Sequence[str]
) -> dict[str, Labelled]:
    """What each width says about images; nothing if there are none."""
    by_width, labels, _ = embed_images(embedder, widths, batches)
    return {width: Embeddings(found, labels) for width, found in by_width.items()} if len(labels) else {}


def _write(folder: Path, found: Validation) -> None:
    """Write the files into a folder that exists; all of them or none."""
    # Here, because importing it takes most of a second.
    from .validation_plots import draw_calibration, draw_heatmaps

    results = found.to_dict()
    votes = [k for k in found.settings["knn"] if k > 1][-1:]
    titles = {"knn1": "1-NN", **{f"knn{k}": f"{k}-NN" for k in votes}, "map10": "mAP@10"}
    calibration = folder / "calibration.png"
    if not found.calibration:
        calibration.unlink(missing_ok=True)
    write_whole(
        ({calibration: draw_calibration(found.calibration)} if found.calibration else {})
        | {
            folder / "heatmap.png": draw_heatmaps(found.retrieval, titles),
            folder / "results.csv": _csv(results).encode(),
            folder / "results.json": json.dumps(results, indent=2).encode(),
        }
    )


def _csv(results: dict[str, Any]) -> str:
    """One line for each number: the table it is from, what identifies it, its value and interval."""
    text = StringIO()
    writer = csv.DictWriter(text, ["table", *KEYS, "metric", "value", "low", "high"], lineterminator="\n")
    writer.writeheader()
    for table in TABLES:
        for row in results.get(table, []):
            writer.writerows(_lines(table, row))
    return text.getvalue()


def _lines(table: str, row: Row) -> Iterator[Row]:
    known = {"table": table, **{key: row[key] for key in KEYS if key in row}}
    for name, value in row.items():
        if name not in KEYS and isinstance(value, int | float):
            low, high = row.get(f"{name}_interval", (None, None))
            yield {**known, "metric": name, "value": value, "low": low, "high": high}
