"""Find the images of a gallery that are most like some query images.

A query is an image file, a folder of them, a file:// URL, or `-` for one image on standard input. --like ID
asks with an image of the gallery, without encoding anything, and leaves that image out of its answer. --not
takes a file or an id that answers should not be like: the query vector becomes query - weight * mean of
these, normalised again, at each width (Rocchio's relevance feedback); ids among them are not answered.

A gallery of vectors made elsewhere is asked with vectors of the same model (--vectors), or with --like.

A filter (--where) works inside the search: k hits are found among the images that fulfil the condition, or
the answer says why there are fewer. It is SQL over id, path, label and metadata: comparisons, LIKE, IN,
BETWEEN, IS NULL, AND, OR, NOT. Queries that cannot be read are named, the others are answered, and the exit
status is 1; it is 2 if there are no others.

single-shot encodes the query at full width and compares it with every image. shortlist encodes it by a
small width, finds candidates by a short prefix in FAISS, and reranks them by full-width, full-length
embeddings; funnel reranks in steps. auto does what `matmamba plan` chose for this gallery; without a plan it
takes single-shot up to 10,000 images, where the exact answer takes milliseconds, and shortlist beyond. Scores
are cosine similarities of full-length embeddings.

examples:
  matmamba search --gallery G query.jpg
  matmamba search --gallery G a.jpg b.png PHOTOS --k 5 --json
  matmamba search --gallery G query.jpg --html hits.html
  matmamba search --gallery G - < query.jpg
  matmamba search --gallery G --like cats/0001.jpg --not dogs/0002.jpg
  matmamba search --gallery C --vectors queries.npy --model-name clip-vit-b32
  matmamba search --gallery G query.jpg --where "label = 'cat' AND year >= 2020" --min-score 0.8
  matmamba search --gallery G query.jpg --strategy shortlist --query-width 1/4 --dim 64 --shortlist 500
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from matmamba_datasets import BrokenImageError, Reading, eval_transform
from matmamba_retrieval import Gallery, GalleryError, Plan, Queries, Strategy
from matmamba_retrieval.exchange.importing import made_elsewhere
from matmamba_retrieval.planning.planner import funnel_schedule
from matmamba_retrieval.strategies.examples import Joined, Stored

from ..device import limit_threads
from ..errors import ConfigError
from ..galleries.checkpoints import checkpoint_of
from ..galleries.embedder import Embedder
from .answers import as_json, plan_text, print_answer, spent_text, strategy_text, write_page
from .arguments import parse
from .asked import Asked, asked_images, key_of, local_path, read_batch
from .computing import require_least, require_place
from .console import Console, say
from .given_vectors import GivenVectors
from .progress import reporter
from .searching import Answer, Search

# Up to so many images the exact answer takes milliseconds, about as long as encoding the query a second time:
# measured by benchmarks/small_gallery.py.
SMALL_GALLERY = 10_000


@dataclass
class Args:
    # Query images: files, folders, file:// URLs, or - for one on standard input.
    queries: Annotated[list[str], tyro.conf.Positional]
    # Folder of the gallery.
    gallery: Path
    # Id of an image of the gallery to find more like; can be given several times.
    like: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    # Query vectors.
    given: tyro.conf.OmitArgPrefixes[GivenVectors] = field(default_factory=GivenVectors)
    # File, or id of the gallery, that answers should not be like; can be given several times.
    away: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(name="not")] = field(
        default_factory=list
    )
    # How far queries are moved away from those.
    not_weight: float = 0.5
    # Condition that hits have to fulfil, in SQL.
    where: str = ""
    # Cosine similarity below which images are no hits.
    min_score: float | None = None
    # Hits for each query; fewer, and it is said, where the gallery has fewer images.
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
    # Of folders, and of every image.
    reading: tyro.conf.OmitArgPrefixes[Reading] = field(default_factory=Reading)
    # Threads that encode and search; 0 for as many as there are.
    threads: int = 0
    # Print JSON instead of tables.
    json: bool = False
    # Write a page with the pictures, which holds everything and opens from disk.
    html: Path | None = None


def run(arguments: list[str]) -> int:
    """Search and print; returns the exit status, 1 if a query could not be read."""
    args = parse(Args, "search", __doc__, arguments)
    if not (args.queries or args.like or args.given.vectors):
        raise ConfigError("no query image given: matmamba search --gallery G IMAGE ...")
    require_least(args, dim=1, shortlist=1, threads=0)
    limit_threads(args.threads)
    require_place("--html", args.html)
    if args.min_score is not None and np.isnan(args.min_score):
        raise GalleryError("--min-score is not a number")
    if args.strategy == "single-shot" and (args.dim or args.shortlist):
        raise GalleryError("--dim and --shortlist mean nothing for --strategy single-shot")
    with Gallery(args.gallery) as gallery:
        asked, left_out = asked_images(args.queries, sys.stdin.buffer, args.reading)
        reporter(Console(stderr=True)).left_out(left_out)
        liked = np.array([key_of(gallery, image_id) for image_id in args.like], dtype=np.int64)
        embedder = _embedder(args, gallery, asked)
        search = _search(args, gallery, embedder)

        def answers() -> Iterator[Answer]:
            if embedder is not None:
                yield from search.images(asked, eval_transform(embedder.model.input), embedder.queries)
            for rows, xq in args.given.parts(gallery):
                yield from search.vectors([row.id for row in rows], xq)
            yield from search.more_like(liked)

        return _show(args, search, answers())


def _embedder(args: Args, gallery: Gallery, asked: Sequence[Asked]) -> Embedder | None:
    """What encodes images for this gallery; None if its vectors were made elsewhere.

    Raises:
        GalleryError: there are images to be encoded, and it is None; or it does not fit the gallery.
    """
    if made_elsewhere(gallery.spec):
        if asked:
            raise GalleryError(
                f"{gallery.folder} holds vectors that were made elsewhere: ask with --vectors or --like, not"
                f" with {asked[0].name}"
            )
        return None
    embedder = Embedder(checkpoint_of(args.gallery, gallery.generation, args.checkpoint))
    gallery.require_queries(embedder.spec())
    return embedder


def _search(args: Args, gallery: Gallery, embedder: Embedder | None) -> Search:
    wanted = 10 if args.k is None else args.k
    k = min(wanted, len(gallery))
    if k < 1:
        raise GalleryError(
            f"k = {wanted} is not in 1..{len(gallery)}, the number of images in {gallery.folder}"
        )
    # An image of the gallery that is asked with is found first, and left out.
    strategy = _strategy(args, gallery, embedder, min(k + bool(args.like), len(gallery)))
    allowed = gallery.allowed(args.where or None)
    negatives, keys = _negatives(args, gallery, embedder)
    if len(keys):
        allowed = np.ones(gallery.key_count, dtype=bool) if allowed is None else allowed.copy()
        allowed[keys] = False
    search = Search(gallery, strategy, k, allowed, negatives, args.not_weight, args.min_score)
    if args.k is not None and k < args.k:
        search.few = f"the gallery has {k} images: fewer than k = {args.k}"
    return search


def _negatives(args: Args, gallery: Gallery, embedder: Embedder | None) -> tuple[Queries | None, np.ndarray]:
    """What queries are moved away from, and keys of those in the gallery."""
    keys, files = [], []
    for name in args.away:
        if local_path(name).is_file():
            files.append(Asked(name, local_path(name)))
        elif known := gallery.keys_of([name]):
            keys.append(known[name])
        else:
            raise GalleryError(f"--not {name!r} is neither a file nor an id of {args.gallery}")
    found = np.array(keys, dtype=np.int64)
    parts: list[Queries] = [Stored(gallery, found)] if keys else []
    parts += [_encoded(files, embedder, gallery)] if files else []
    return (Joined(parts) if parts else None), found


def _encoded(files: Sequence[Asked], embedder: Embedder | None, gallery: Gallery) -> Queries:
    if embedder is None:
        raise GalleryError(f"--not {files[0].name}: {gallery.folder} has no model for images; give an id")
    _, images, broken = read_batch(files, eval_transform(embedder.model.input))
    for position, reason in broken.items():
        raise BrokenImageError(files[position].name, reason)
    return embedder.queries(images)


def _show(args: Args, search: Search, answers: Iterator[Answer]) -> int:
    console = Console(highlight=False)
    kept, broken = list[Answer](), list[Answer]()
    pages = (
        write_page(args.html, answers, _intro(args, search)) if args.html else ((None, a) for a in answers)
    )
    for page, answer in pages:
        broken += [answer] if answer.error else []
        if args.json:
            kept.append(answer)
        elif not answer.error or search.answered:
            print_answer(console, answer)
        if page is not None:
            page.facts.update(
                {"strategy": strategy_text(search.strategy), "per query": spent_text(search.cost)}
            )
    if broken and not search.answered:
        raise BrokenImageError(broken[0].name, broken[0].error)
    if args.json:
        say(as_json(kept, search.strategy, search.cost))
    else:
        console.print(strategy_text(search.strategy), soft_wrap=True)
        if (plan := _plan(args, search.gallery, search.k)) is not None:
            console.print(plan_text(plan), soft_wrap=True, markup=False)
        console.print(f"spent per query: {spent_text(search.cost)}", soft_wrap=True)
    for answer in broken:
        say(f"matmamba: {answer.name} cannot be read: {answer.error}", stderr=True)
    return 1 if broken else 0


def _intro(args: Args, search: Search) -> str:
    filtered = f", where {args.where}" if args.where else ""
    return (
        f"The {search.k} images most like each query, of {len(search.gallery):,} in {args.gallery}{filtered}."
    )


def _strategy(args: Args, gallery: Gallery, embedder: Embedder | None, k: int) -> Strategy:
    if (plan := _plan(args, gallery, k)) is not None:
        return plan.require(gallery)
    dims = gallery.shortlist_dims()
    alone = (len(gallery) <= SMALL_GALLERY or not dims) and not (args.dim or args.shortlist)
    if args.strategy == "single-shot" or (args.strategy == "auto" and alone):
        return Strategy.single_shot(width=_width(args, embedder, "full"))
    if not dims:
        raise GalleryError(
            f"{gallery.folder} has no index for a shortlist:"
            f" matmamba index --gallery {gallery.folder} --dims 32 builds one"
        )
    width = _width(args, embedder, "smallest")
    dim = args.dim or min(dims)
    length = min(len(gallery), args.shortlist or max(200, 10 * k))
    if args.strategy in ("auto", "shortlist"):
        return Strategy.shortlist(width=width, dim=dim, length=length)
    steps, lengths = funnel_schedule(dim, gallery.spec.dim, length, k)
    return Strategy.funnel(width=width, dims=steps, lengths=lengths)


def _plan(args: Args, gallery: Gallery, k: int) -> Plan | None:
    """The plan that is followed, if there is one and nothing else was asked for."""
    if args.strategy != "auto" or args.query_width or args.dim or args.shortlist or not gallery.plan:
        return None
    plan = Plan.from_json(gallery.plan)
    # Made for another k, it may keep too few candidates.
    return plan if min(plan.strategy.lengths, default=k) >= k else None


def _width(args: Args, embedder: Embedder | None, default: str) -> str:
    """Label of the width that was asked for, by default the full or the smallest trained one.

    Raises:
        GalleryError: vectors that were made elsewhere have no such width.
    """
    if embedder is None:
        if args.query_width not in ("", "full"):
            raise GalleryError(
                f"--query-width {args.query_width}: vectors made elsewhere have only the full one"
            )
        return "full"
    if args.query_width or default == "full":
        return embedder.model.label(args.query_width or "full")
    return embedder.model.label(embedder.model.trained_widths[-1])
