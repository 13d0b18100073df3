"""Find the images of a gallery that are most like some query images.

single-shot encodes the query at full width and compares it with every image. shortlist encodes it by a
small width, finds candidates by a short prefix in FAISS, and reranks them by full-width, full-length
embeddings; funnel reranks in steps. auto takes single-shot up to 10,000 images, where the exact answer
takes milliseconds, and shortlist beyond. Scores are cosine similarities of full-length embeddings.

examples:
  matmamba search --gallery G query.jpg
  matmamba search --gallery G a.jpg b.png --k 5 --json
  matmamba search --gallery G query.jpg --strategy shortlist
  matmamba search --gallery G query.jpg --strategy shortlist --query-width 1/4 --dim 64 --shortlist 500
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
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint
from .arguments import parse

# Up to so many images the exact answer takes milliseconds, about as long as encoding the query a second time:
# measured by benchmarks/small_gallery.py.
SMALL_GALLERY = 10_000


@dataclass
class Args:
    # Query images.
    queries: Annotated[list[Path], tyro.conf.Positional]
    # Folder of the gallery.
    gallery: Path
    # Hits for each query, at most as many as the gallery has; by default 10, or fewer in a smaller gallery.
    k: int | None = None
    # How to search, see above.
    strategy: Literal["auto", "single-shot", "shortlist", "funnel"] = "auto"
    # Width that encodes the query first; by default full for single-shot, else the smallest trained one.
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
        checkpoint = _load(args, gallery)
        embedder = Embedder(checkpoint)
        gallery.require(embedder.spec())
        k = min(10, len(gallery)) if args.k is None else args.k
        strategy = _strategy(args, gallery, checkpoint, k)
        hits = strategy.search(embedder.queries(_read_queries(args.queries, checkpoint)), k)
        rows = [gallery.rows(keys) for keys in hits.I]
    show = _print_json if args.json else _print_tables
    show(args, strategy, hits, rows)


def _load(args: Args, gallery: Gallery) -> Checkpoint:
    path = args.checkpoint or Path(gallery.checkpoint_path)
    if args.checkpoint is None and not path.is_file():
        raise CheckpointError(
            f"the checkpoint of {args.gallery} is no longer at {path}: name it with --checkpoint"
        )
    return load_checkpoint(path)


def _strategy(args: Args, gallery: Gallery, checkpoint: Checkpoint, k: int) -> Strategy:
    if args.strategy == "single-shot" or (args.strategy == "auto" and len(gallery) <= SMALL_GALLERY):
        return SingleShot(gallery, checkpoint.model.label(args.query_width or "full"))
    width = checkpoint.model.label(args.query_width or checkpoint.model.trained_widths[-1])
    dim = args.dim or min(gallery.shortlist_dims(), default=gallery.spec.dim)
    length = min(len(gallery), args.shortlist or max(200, 10 * k))
    if args.strategy in ("auto", "shortlist"):
        return Shortlist(gallery, width, dim, length)
    return Funnel(gallery, width, *funnel_steps(dim, gallery.spec.dim, length, k))


def funnel_steps(dim: int, full_dim: int, length: int, k: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Dims that double below the full one, and lengths that halve but never fall under k."""
    dims = [dim]
    while 2 * dims[-1] < full_dim:
        dims.append(2 * dims[-1])
    return tuple(dims), (length, *(max(k, length >> step) for step in range(1, len(dims))))


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
    print(json.dumps({"strategy": _settings(strategy), "cost": _cost(hits), "answers": answers}, indent=2))


def _hit(rank: int, score: float, row: Row) -> dict[str, Any]:
    return {"rank": rank + 1, "score": float(score), "id": row.id, "path": row.path, "label": row.label}


def _settings(strategy: Strategy) -> dict[str, Any]:
    name = {SingleShot: "single-shot", Shortlist: "shortlist", Funnel: "funnel"}[type(strategy)]
    return {"name": name, **{key: value for key, value in vars(strategy).items() if key != "gallery"}}


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
    console = Console(highlight=False)
    for query, scores, images in zip(args.queries, hits.D, rows, strict=True):
        table = Table(box=None, pad_edge=False)
        for name, justify in (("", "right"), ("score", "right"), ("label", "left")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("image", overflow="fold")
        for rank, (score, row) in enumerate(zip(scores, images, strict=True)):
            table.add_row(str(rank + 1), f"{score:.4f}", row.label or "", escape(row.id))
        console.print(f"[bold]{escape(str(query))}[/bold]", soft_wrap=True)
        console.print(table)
    settings = _settings(strategy)
    shown = "".join(
        f", {name.replace('_', ' ')} {_plain(value)}" for name, value in settings.items() if name != "name"
    )
    stages = ", ".join(f"{stage} {ms:.2f} ms" for stage, ms in hits.cost.ms.items())
    console.print(f"{settings['name']}{shown}", soft_wrap=True)
    console.print(f"spent per query: {hits.cost.macs / 1e6:,.1f} MMACs to encode; {stages}", soft_wrap=True)


def _plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
