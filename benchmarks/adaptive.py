"""What small queries cost and lose: every query width by every strategy, against single-shot at full width.

    .venv/bin/python benchmarks/adaptive.py --data TINYIMAGENET --checkpoint runs/tinyimagenet --runs DIR

The training images are the gallery, the held-out ones are asked, relevant is the same class. Gates are
calibrated on other queries than those that they are measured on, in ten folds. Embeddings, gallery and
finished rows are kept in --runs, and a run that was stopped goes on. Writes results/adaptive.json and .md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import torch
from matmamba_datasets import Splits
from matmamba_retrieval.planning.grid import FunnelSteps, Grid, strategies_of
from matmamba_retrieval.planning.planner import EXPAND
from matmamba_retrieval.planning.savings import compared, is_reference
from matmamba_vision import keep_freed_memory
from matmamba_vision.checkpoint import Checkpoint, load_checkpoint
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.galleries.encoding import some
from matmamba_vision.measures.environment import environment
from matmamba_vision.progress import Event, Notice, Reporter
from matmamba_vision.studies.experiment import Experiment, Workshop
from matmamba_vision.studies.strategy_rows import first_stage, over_single_shot
from matmamba_vision.studies.study_tables import tables_of
from matmamba_vision.widths.held_out import BatchReader, data_config, open_data
from measuring import RESULTS, write_json

Row = dict[str, Any]
RESULT = RESULTS / "adaptive.json"
# What it has to reach: points lost by a reranked query at the smallest width, by a gated one, and the share
# of the encoder's multiply-adds that the gate may spend.
RERANKED, GATED, SHARE = 0.5, 0.1, 0.6


def main(arguments: Sequence[str] | None = None) -> None:
    """Encode, try, print the table, and write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    keep_freed_memory()
    checkpoint = load_checkpoint(options.checkpoint)
    with open_experiment(options, checkpoint) as experiment:
        dim = checkpoint.model.embed_dim
        grid, widths = grid_of(dim), list(experiment.queries.by_width)
        asked = options.query_widths or widths
        wanted = strategies_of(
            grid, [known for known in widths if known in asked], dim, len(experiment.gallery)
        )
        report = Reporter(tell)
        tables = tables_of(experiment, grid, wanted, seed=0, folder=options.runs, report=report)
    result = {
        "command": f"benchmarks/adaptive.py --data {Path(options.data).name.upper()} --runs RUNS"
        + given(options),
        "data": Path(options.data).name,
        "checkpoint": Path(options.checkpoint).name,
        "digest": checkpoint.digest,
        "targets": {"reranked": RERANKED, "gated": GATED, "share": SHARE},
        **environment(),
        **tables,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, result)
    options.output.with_suffix(".md").write_text(table(result) + "\n")
    print(table(result))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of Parquet files")
    parser.add_argument("--checkpoint", default="matmamba_nano_patch4_32", help="run, file or shipped model")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what is kept")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gallery-images", type=int, help="most images in the gallery")
    parser.add_argument("--query-widths", nargs="+", default=[], help="by default all that were trained")
    parser.add_argument("--queries", type=int, help="most held-out images")
    return parser.parse_args(arguments)


def given(options: argparse.Namespace) -> str:
    """Flags that were given and change what is measured, as they are written; paths as their last name."""
    flags: dict[str, str | int | None] = {"checkpoint": Path(options.checkpoint).name}
    flags |= {"query-widths": " ".join(options.query_widths) or None}
    flags |= {"gallery-images": options.gallery_images, "queries": options.queries}
    return "".join(f" --{name} {value}" for name, value in flags.items() if value is not None)


def tell(event: Event) -> None:
    """Print notices, and stages that have come to an end."""
    if isinstance(event, Notice):
        print(event.text)
    elif event.finished:
        print(f"{event.stage}: {event.done:,} {event.unit}" if event.total else event.stage)


def open_experiment(options: argparse.Namespace, checkpoint: Checkpoint) -> Experiment:
    """Images encoded at every trained width, and the gallery at the full and at the smallest one."""
    embedder = Embedder(checkpoint)
    config = data_config(embedder, "parquet", options.data)
    splits = open_data(Reporter(tell), config)
    splits = Splits(some(splits.train, options.gallery_images, 0), some(splits.held_out, options.queries, 0))
    widths = [checkpoint.model.label(width) for width in checkpoint.model.trained_widths]
    reader = BatchReader(embedder=embedder, report=Reporter(tell), batch_size=128)
    workshop = Workshop(options.runs, reader)
    data = {"name": "parquet", "root": str(options.data), "images": options.gallery_images}
    return workshop.open(splits, data, widths, ["full", widths[-1]])


def grid_of(dim: int) -> Grid:
    """What is tried: shortlists, funnels, and gates that may lose nothing, or the target."""
    alone = FunnelSteps([dim], [2000], ["same"], EXPAND)
    return Grid(
        dims=sorted({known for known in (32, dim) if known <= dim}),
        shortlists=[200, 1000, 2000],
        strategies=["single-shot", "shortlist", "funnel", "gated"],
        funnels=[FunnelSteps([32, 64], [1000, 400]), alone],
        gate_dims=[dim],
        gate_shortlists=[1000],
        gate_losses=[0.0, GATED],
        gate_expands=[0, EXPAND],
    )


def table(result: Mapping[str, Any]) -> str:
    """For each query width: alone, reranked as cheaply as the target allows, gated; and single-shot."""
    rows = chosen(result["rows"])
    full = next(row for title, row in rows if title == "single-shot")
    names = (
        "query",
        "strategy",
        "first stage",
        "1-NN lost",
        "mAP@10 lost",
        "by full",
        "encoder",
        "search MMACs",
        "over single-shot: ms, MACs",
    )
    lines = [names, ("---",) * len(names)]
    for title, row in rows:
        lost = (points(row, name) for name in ("knn1_loss", "map_loss"))
        share = f"{100 * row['encoder_macs'] / full['encoder_macs']:.0f} %"
        spent = (f"{100 * row['by_full']:.0f} %", share, f"{row['search_macs'] / 1e6:.1f}")
        lines.append((row["query_width"], title, first_stage(row), *lost, *spent, over_single_shot(row)))
    images = result["images"]
    best = f"single-shot: 1-NN {100 * full['knn1']:.2f} %, mAP@10 {100 * full['map']:.2f} %"
    return (
        f"{result['data']}: gallery {images['gallery']:,} images, {images['queries']:,} queries;"
        f" {best}. Points lost against it, with 95 % bootstrap intervals; gates were calibrated on other"
        " queries than those that they are measured on, to the loss that is named; by full: queries that the"
        " full width answered; encoder: multiply-adds against those of the full width; over single-shot: all"
        " that one query takes, above 1 it costs more.\n\n"
        + "\n".join("| " + " | ".join(line) + " |" for line in lines)
    )


def chosen(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Rows to show, with what they are and what they cost over single-shot."""
    found = []
    full = next(row for row in rows if is_reference(row))
    rows = [compared(row, full) for row in rows]
    full = compared(full, full)
    for width in dict.fromkeys(row["query_width"] for row in rows):
        mine = [row for row in rows if row["query_width"] == width]
        alone = next(row for row in mine if row["strategy"] == "single-shot")
        found.append(("single-shot" if width == "full" else "small width alone", alone))
        found += [("alone, expanded", row) for row in mine if row["strategy"] == "funnel" and row["expand"]]
        found += [(f"shortlist of {row['lengths'][0]}", row) for row in mine if _is_usual(row)]
        shortest = _cheapest(mine)
        if shortest is not None and not _is_usual(shortest):
            found.append((f"cheapest within {RERANKED}", shortest))
        found += shown_gates(mine, full | {"query_width": width})
    return found


def shown_gates(rows: Sequence[Row], single_shot: Row) -> list[tuple[str, Row]]:
    """With and without expansion, the cheapest gate that keeps to the target; single-shot if none pays."""
    found = []
    for expand in dict.fromkeys(row["expand"] for row in rows if row["gate"]):
        gates = [row for row in rows if row["gate"] and row["expand"] == expand]
        paying = [row for row in gates if row["calibrated"]["met"] and not row["falls_back"]]
        if paying:
            best = min(paying, key=lambda row: (_lost(row) > GATED, row["encoder_macs"]))
            found.append(("gated", best))
        else:
            kind = "gated, expanded" if expand else "gated"
            found.append((f"{kind}: no saving, single-shot instead", single_shot))
    return found


def _lost(row: Row) -> float:
    """The larger loss of 1-NN and mAP, in points."""
    return 100 * max(row["knn1_loss"], row["map_loss"])


def _is_usual(row: Row) -> bool:
    return row["strategy"] == "shortlist" and row["dims"] == [32] and row["lengths"] == [200]


def _cheapest(rows: Sequence[Row]) -> Row | None:
    """The shortlist of least search work whose losses are within the target."""
    known = [row for row in rows if row["strategy"] == "shortlist" and _lost(row) <= RERANKED]
    return min(known, key=lambda row: row["search_macs"], default=None)


def points(row: Row, name: str) -> str:
    """Points with their interval."""
    low, high = row[f"{name}_interval"]
    return f"{100 * row[name] + 0.0:.2f} ({100 * low:.2f} to {100 * high:.2f})"


if __name__ == "__main__":
    main()
