"""Find the images of a gallery that are most like some query images.

A small width encodes each query, a short prefix of its embedding finds a shortlist in FAISS, and the
shortlist is reranked by full-width, full-length embeddings. Scores are cosine similarities of the latter.

examples:
  matmamba search --gallery G query.jpg
  matmamba search --gallery G a.jpg b.png --k 5 --json
  matmamba search --gallery G query.jpg --strategy single-shot
  matmamba search --gallery G query.jpg --query-width 1/4 --dim 64 --shortlist 500
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from matmamba_datasets import eval_transform, read_image
from matmamba_retrieval import Funnel, Gallery, Hits, Row, Shortlist, SingleShot, Strategy
from matmamba_retrieval.embedder import Embedder
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..checkpoint import Checkpoint, load_checkpoint
from .arguments import parse


@dataclass
class Args:
    # Query images.
    queries: Annotated[list[Path], tyro.conf.Positional]
    # Folder of the gallery.
    gallery: Path
    # Hits for each query; by default 10, or as many as the gallery has.
    k: int | None = None
    # single-shot compares everything at full width; funnel reranks in steps.
    strategy: Literal["shortlist", "funnel", "single-shot"] = "shortlist"
    # Width that encodes the query for the shortlist; by default the smallest trained one.
    query_width: str = ""
    # Dim of the shortlist index; by default the shortest that the gallery has.
    dim: int | None = None
    # Candidates to rerank; by default 200, or 10 k.
    shortlist: int | None = None
    # Where the checkpoint is, if it was moved.
    checkpoint: Path | None = None
    # Print JSON instead of tables.
    json: bool = False


def run(arguments: list[str]) -> None:
    """Search and print."""
    args = parse(Args, "search", __doc__, arguments)
    if not args.queries:
        raise ValueError("no query image given: matmamba search --gallery G IMAGE ...")
    with Gallery(args.gallery) as gallery:
        checkpoint = load_checkpoint(args.checkpoint or gallery.checkpoint_path)
        embedder = Embedder(checkpoint)
        gallery.spec.require(embedder.spec(), f"gallery {args.gallery}")
        k = min(10, len(gallery)) if args.k is None else args.k
        strategy = _strategy(args, gallery, checkpoint, k)
        hits = strategy.search(embedder.queries(_read_queries(args.queries, checkpoint)), k)
        rows = [gallery.rows(keys) for keys in hits.I]
    _print_json(args, strategy, hits, rows) if args.json else _print_tables(args, strategy, hits, rows)


def _strategy(args: Args, gallery: Gallery, checkpoint: Checkpoint, k: int) -> Strategy:
    if args.strategy == "single-shot":
        return SingleShot(gallery, args.query_width or "full")
    width = checkpoint.model.label(args.query_width or checkpoint.model.trained_widths[-1])
    dim = args.dim or min(gallery.shortlist_dims(), default=gallery.spec.dim)
    length = min(len(gallery), args.shortlist or max(200, 10 * k))
    if args.strategy == "shortlist":
        return Shortlist(gallery, width, dim, length)
    return Funnel(gallery, width, *funnel_steps(dim, gallery.spec.dim, length, k))


def funnel_steps(dim: int, full_dim: int, length: int, k: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Dims that double below the full one, and lengths that halve but never fall under k."""
    dims = [dim]
    while 2 * dims[-1] < full_dim:
        dims.append(2 * dims[-1])
    return tuple(dims), tuple(max(k, length >> step) for step in range(len(dims)))


def _read_queries(files: list[Path], checkpoint: Checkpoint) -> Tensor:
    transform = eval_transform(checkpoint.model.input)
    return torch.stack([transform(read_image(file)) for file in files])


def _print_json(args: Args, strategy: Strategy, hits: Hits, rows: list[list[Row]]) -> None:
    answers = [
        {
            "query": str(query),
            "hits": [_hit(rank, *found) for rank, found in enumerate(zip(scores, images, strict=True))],
        }
        for query, scores, images in zip(args.queries, hits.D, rows, strict=True)
    ]
    print(
        json.dumps({"strategy": _settings(args, strategy), "cost": _cost(hits), "answers": answers}, indent=2)
    )


def _hit(rank: int, score: float, row: Row) -> dict[str, Any]:
    return {"rank": rank + 1, "score": float(score), "id": row.id, "path": row.path, "label": row.label}


def _settings(args: Args, strategy: Strategy) -> dict[str, Any]:
    known = {name: value for name, value in vars(strategy).items() if name != "gallery"}
    return {"name": args.strategy, **known}


def _cost(hits: Hits) -> dict[str, Any]:
    cost = hits.cost
    ms = {stage: round(value, 3) for stage, value in cost.ms.items()}
    return {
        "encoder_gmacs": cost.macs / 1e9,
        "candidates": cost.candidates,
        "bytes_read": cost.bytes_read,
        "ms": ms,
    }


def _print_tables(args: Args, strategy: Strategy, hits: Hits, rows: list[list[Row]]) -> None:
    console = Console()
    for query, scores, images in zip(args.queries, hits.D, rows, strict=True):
        table = Table("", "score", "label", "id", "path", title=str(query), title_justify="left")
        for rank, (score, row) in enumerate(zip(scores, images, strict=True)):
            table.add_row(str(rank + 1), f"{score:.4f}", row.label or "", row.id, row.path)
        console.print(table)
    settings = ", ".join(f"{name} {value}" for name, value in _settings(args, strategy).items())
    stages = ", ".join(f"{stage} {ms:.2f} ms" for stage, ms in hits.cost.ms.items())
    console.print(
        f"{settings}\nper query: {hits.cost.macs / 1e6:,.1f} MMACs of encoder, {stages}", highlight=False
    )
