"""Measure a checkpoint at each width on held-out images.

Classification: top-1, top-5, expected calibration error (15 bins), negative log-likelihood, Brier score.
Retrieval, the held-out images asked, the training images the gallery, same class relevant: 1-NN and kNN
accuracy (votes weighted by exp(similarity / 0.07)), mAP@10 (MRL's, divided by 10) and hit@10, for each width
of the query, width of the gallery and embedding dim. Cost: parameters, multiply-adds, latency of one image.
What is a mean over the held-out images has a 95 % bootstrap interval; widths are tested against each other
in pairs, each p for one test alone.
The folder receives results.json, results.csv, heatmap.png and calibration.png. Data settings are those of
the training run unless flags change them.

examples:
  matmamba validate --checkpoint runs/photos
  matmamba validate --checkpoint runs/photos --widths full 1/4 3/16 --gallery-widths full --json
  matmamba validate --checkpoint runs/photos --compare 1/2 1/4 --dims 16 64 --probe
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.table import Table

from .arguments import parse
from .bars import Shown
from .computing import Computing, NamedData
from .console import Console, say
from .measured_model import folder_beside, require_model

if TYPE_CHECKING:
    from ..widths.validate import Validation

Row = dict[str, Any]


@dataclass
class ValidateFlags:
    # Run folder, checkpoint file, shipped name, or any encoder: timm:NAME, open_clip:ARCH/TAG, an ONNX file.
    checkpoint: Path
    # Folder to write; by default the folder `validate` beside the checkpoint, or runs/validate for a model
    # that has no folder here. An earlier validation there is replaced.
    output: Path | None = None
    # The data set, if not the one of the training run.
    data: NamedData = field(default_factory=NamedData)
    # Widths to measure, or slices that `matmamba select` wrote; by default the widths that were trained.
    widths: list[str] = field(default_factory=list)
    # Widths of the gallery, the first for the paired tests; by default full and the widths to measure.
    gallery_widths: list[str] = field(default_factory=list)
    # Embedding dims; by default those of the MRL loss, or powers of two from 8, and all.
    dims: list[int] = field(default_factory=list)
    # Neighbours that vote in kNN classification; all, where the gallery has fewer.
    knn: list[int] = field(default_factory=lambda: [10, 20])
    # Two of the widths to test against each other; by default the first against each other one.
    compare: tuple[str, str] | None = None
    # Fit linear probes on the embeddings of each width and dim, which is slow; needs scikit-learn.
    probe: bool = False
    # Most images in the gallery, picked by chance; by default all.
    gallery_images: int | None = None
    # Of the computation.
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)


def run(arguments: list[str]) -> None:
    """Measure, write the folder, print tables or JSON."""
    args = parse(ValidateFlags, "validate", __doc__, arguments)
    require_model(args.checkpoint)
    from ..widths.validate import validate

    console = args.computing.console()
    with Shown(console) as listener:
        found = validate(
            args.checkpoint,
            output=args.output or folder_beside(args.checkpoint, "validate"),
            data=args.data.name,
            root=args.data.root,
            widths=args.widths,
            gallery_widths=args.gallery_widths,
            dims=args.dims,
            knn=args.knn,
            compare=args.compare,
            probe=args.probe,
            gallery_images=args.gallery_images,
            **args.computing.settings(),
            progress=listener,
        )
    if args.computing.json:
        say(json.dumps(found.to_dict(), indent=2))
    else:
        _print(console, found)


def _print(console: Console, found: Validation) -> None:
    """Tables of widths, retrieval, comparisons and probes, and where the files are."""
    from ..widths.validate import FILES

    images = found.images
    console.print(
        f"queries: {images['queries']:,} held-out images; gallery: {images['gallery']:,} training images;"
        " ±: half of a 95 % bootstrap interval",
        soft_wrap=True,
    )
    console.print(_widths(found.widths))
    for name, title in (("knn1", "1-NN"), ("map10", "mAP@10")):
        console.print(_matrix(found.retrieval, name, title))
    if found.comparisons:
        console.print(_comparisons(found.comparisons))
    if found.probes is not None:
        console.print(_probes(found.probes))
    assert found.output is not None
    written = [name for name in FILES if (found.output / name).is_file()]
    console.print(f"{found.output}: {', '.join(written)}", soft_wrap=True)


def _widths(rows: Sequence[Row]) -> Table:
    classified = "top1" in rows[0]
    quality = ("top-1", "top-5", "ECE", "NLL") if classified else ("1-NN", "mAP@10")
    table = _table(("width", *quality, "params", "MMACs", "encode ms"), "widths", left=1)
    for row in rows:
        said = [f"{row[name]:.3f}" for name in ("top5", "ece", "nll")] if classified else []
        found = ("top1",) if classified else ("knn1", "map10")
        table.add_row(
            row["width"],
            *(_with_interval(row, name) for name in found),
            *said,
            f"{row['params']:,}",
            f"{1e3 * row['gmacs']:,.1f}",
            f"{row['encode_ms']:.1f}",
        )
    return table


def _matrix(cells: Sequence[Row], name: str, title: str) -> Table:
    """A row for each query width and gallery width, a column for each dim."""
    dims = list(dict.fromkeys(cell["dim"] for cell in cells))
    known = {(cell["query_width"], cell["gallery_width"], cell["dim"]): cell[name] for cell in cells}
    table = _table(("query", "gallery", *map(str, dims)), f"{title} by embedding dim", left=2)
    last = ""
    for query, gallery in dict.fromkeys(key[:2] for key in known):
        if last and query != last:
            table.add_section()
        values = (f"{known[query, gallery, dim]:.3f}" for dim in dims)
        table.add_row("" if query == last else query, gallery, *values)
        last = query
    return table


def _comparisons(rows: Sequence[Row]) -> Table:
    tested = [name for name in ("top1", "map10") if f"{name}_p" in rows[0]]
    titles = {"top1": "top-1", "map10": "mAP@10"}
    names = ("width", "against", *(text for name in tested for text in (titles[name], "p")))
    table = _table(names, "differences; p: McNemar, sign flips", left=2)
    for row in rows:
        cells = [
            text
            for name in tested
            for text in (_with_interval(row, f"{name}_difference", "+"), f"{row[f'{name}_p']:.2g}")
        ]
        table.add_row(row["first"], row["second"], *cells)
    return table


def _probes(rows: Sequence[Row]) -> Table:
    """A row for each width, a column for each dim."""
    dims = list(dict.fromkeys(row["dim"] for row in rows))
    known = {(row["width"], row["dim"]): row["probe"] for row in rows}
    table = _table(("width", *map(str, dims)), "linear probe by embedding dim", left=1)
    for width in dict.fromkeys(row["width"] for row in rows):
        table.add_row(width, *(f"{known[width, dim]:.3f}" for dim in dims))
    return table


def _table(names: Sequence[str], title: str, left: int) -> Table:
    table = Table(*names, title=title)
    for column in table.columns[:left]:
        column.overflow = "fold"
    for column in table.columns[left:]:
        column.justify = "right"
        column.no_wrap = True
    return table


def _with_interval(row: Row, name: str, sign: str = "") -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:{sign}.3f} ±{(high - low) / 2:.3f}"
