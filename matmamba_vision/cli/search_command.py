"""Find the images of a gallery that are most like some query images.

A query is an image file, a folder of them, a file:// URL, a frame of a video (talk.mp4#t=12:03.5), or `-` for
one image on standard input. Hits that are frames of videos are listed by scene, too. --like ID
asks with an image of the gallery, without encoding anything, and leaves that image out of its answer. --not
takes a file or an id that answers should not be like: the query vector becomes query - weight * mean of
these, normalised again, at each width (Rocchio's relevance feedback); ids among them are not answered.

--text asks in words where the gallery's encoder has a text tower, as those of open_clip do: alone, or joined
with each query, as the mean of the two unit vectors, normalised again. Several texts are queries of their
own; then there can be no others.

A gallery of vectors made elsewhere is asked with vectors of the same model (--vectors), or with --like.

A filter (--where) works inside the search: k hits are found among the images that fulfil the condition, or
the answer says why there are fewer. It is SQL over id, path, label and metadata: comparisons, LIKE, IN,
BETWEEN, IS NULL, AND, OR, NOT. Queries that cannot be read are named, the others are answered, and the exit
status is 1; it is 2 if there are no others.

single-shot encodes the query at full width and compares it with every image. shortlist encodes it by a
small width, finds candidates by a short prefix in FAISS, and reranks them by full-width, full-length
embeddings; funnel reranks in steps. auto does what `matmamba plan` chose for this gallery; without a plan it
takes single-shot up to 10,000 images, where the exact answer takes milliseconds, and shortlist beyond. Scores
are cosine similarities of full-length embeddings. In a gallery that a teacher encoded for its student, the
full width is the teacher, and `student`, `student 1/2` and so on are the widths of the student.

examples:
  matmamba search --gallery G query.jpg
  matmamba search --gallery G a.jpg b.png PHOTOS --k 5 --json
  matmamba search --gallery G query.jpg --html hits.html
  matmamba search --gallery G - < query.jpg
  matmamba search --gallery V "talk.mp4#t=12:03.5" --where "video <> 'talk.mp4' AND time < 600"
  matmamba search --gallery G --like cats/0001.jpg --not dogs/0002.jpg
  matmamba search --gallery W --text "a red bicycle in snow"
  matmamba search --gallery W query.jpg --text "in snow"
  matmamba search --gallery C --vectors queries.npy --model-name clip-vit-b32
  matmamba search --gallery G query.jpg --where "label = 'cat' AND year >= 2020" --min-score 0.8
  matmamba search --gallery G query.jpg --strategy shortlist --query-width 1/4 --dim 64 --shortlist 500
  matmamba search --gallery T query.jpg --strategy single-shot --query-width "student 1/8"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from matmamba_datasets import BrokenImageError, Reading
from matmamba_retrieval.gallery.addresses import as_written
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from ..galleries.answers import Answer, answers_to_dict, mean_cost, spent_text
from ..galleries.given_vectors import GivenVectors
from ..galleries.query_images import asked_images
from ..galleries.result_page import write_page
from ..galleries.search_pass import DEFAULT_K
from ..galleries.strategies import plan_text, strategy_text
from ..given import require_place
from ..upkeep.image_gallery import ImageGallery, open_gallery
from ..video.scene_hits import by_scene, has_frames
from ..video.scene_page import write_scene_page
from .arguments import parse
from .bars import reporter
from .console import Console, say


@dataclass
class SearchFlags:
    # Query images: files, folders, file:// URLs, or - for one on standard input.
    queries: Annotated[list[str], tyro.conf.Positional]
    # Folder of the gallery.
    gallery: Path
    # Id of an image of the gallery to find more like; can be given several times.
    like: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    # What pictures should show, in words; can be given several times.
    text: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
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
    # Hits for each query, by default 10; fewer, and it is said, where the gallery has fewer images.
    k: int | None = None
    # How to search, see above.
    strategy: Literal["auto", "single-shot", "shortlist", "funnel"] = "auto"
    # Width that encodes the query first; by default full for single-shot, else the smallest trained one.
    query_width: str = ""
    # Dim of the shortlist index; by default the shortest that the gallery has.
    dim: int | None = None
    # Candidates to rerank; by default 200, or 10 k.
    shortlist: int | None = None
    # Where the model is, if it was moved.
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
    args = parse(SearchFlags, "search", __doc__, arguments)
    if not (args.queries or args.like or args.text or args.given.vectors):
        raise ConfigError("no query image given: matmamba search --gallery G IMAGE ...")
    if args.html is not None:
        require_place("--html", args.html)
    with open_gallery(args.gallery, model=args.checkpoint, threads=args.threads) as gallery:
        answers = _search(args, gallery)
        broken = [answer for answer in answers if answer.error]
        if len(broken) == len(answers):
            raise BrokenImageError(broken[0].query, broken[0].error)
        if args.html:
            _write_page(args, gallery, answers)
    if args.json:
        say(json.dumps(answers_to_dict(answers), indent=2))
    else:
        _print(Console(highlight=False), answers)
        if args.html:
            say(f"page with the pictures: {args.html}")
    for answer in broken:
        say(f"matmamba: {answer.query} cannot be read: {answer.error}", stderr=True)
    return 1 if broken else 0


def _search(args: SearchFlags, gallery: ImageGallery) -> list[Answer]:
    asked, left_out = asked_images(args.queries, sys.stdin.buffer, args.reading)
    reporter(Console(stderr=True)).left_out(left_out)
    return gallery.search(
        asked,
        args.k,
        text=args.text,
        like=args.like,
        unlike=args.away,
        unlike_weight=args.not_weight,
        vectors=args.given if args.given.vectors else None,
        where=args.where,
        min_score=args.min_score,
        strategy=args.strategy,
        query_width=args.query_width,
        dim=args.dim,
        shortlist=args.shortlist,
        reading=args.reading,
    )


def _write_page(args: SearchFlags, gallery: ImageGallery, answers: Sequence[Answer]) -> None:
    """The page, with a strip of frames for each scene where hits lie in videos."""
    assert args.html is not None
    intro = _intro(args, len(gallery))
    if not has_frames(answers):
        write_page(answers, args.html, intro=intro)
        return
    with gallery.reading() as opened:
        write_scene_page(opened, answers, args.html, intro=intro)


def _intro(args: SearchFlags, count: int) -> str:
    filtered = f", where {args.where}" if args.where else ""
    k = min(DEFAULT_K if args.k is None else args.k, count)
    return f"The {k} images most like each query, of {count:,} in {as_written(args.gallery)}{filtered}."


def _print(console: Console, answers: Sequence[Answer]) -> None:
    """A table for each answer, and what was done and spent."""
    for answer in answers:
        console.print(f"[bold]{escape(answer.heading)}[/bold]", soft_wrap=True)
        if answer.error:
            console.print(f"cannot be read: {escape(answer.error)}", soft_wrap=True)
            continue
        if answer.hits:
            console.print(_table(answer))
        if has_frames([answer]):
            console.print(_scenes(answer))
        if answer.reason:
            console.print(escape(answer.reason), soft_wrap=True)
    first = answers[0]
    console.print(strategy_text(first.strategy), soft_wrap=True)
    if first.plan is not None:
        console.print(plan_text(first.plan), soft_wrap=True, markup=False)
    console.print(f"spent per query: {spent_text(mean_cost(answers))}", soft_wrap=True)


def _scenes(answer: Answer) -> Table:
    """The hits gathered by scene, with the times of the frames."""
    table = Table(box=None, pad_edge=False)
    table.add_column("score", justify="right", no_wrap=True)
    for name in ("scene", "video", "found at"):
        table.add_column(name, overflow="fold")
    for scene in by_scene(answer.hits):
        video = scene.best.id if scene.note is None else scene.note.video
        table.add_row(f"{scene.best.score:.4f}", scene.span, escape(video), ", ".join(scene.moments))
    return table


def _table(answer: Answer) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, justify in (("", "right"), ("score", "right"), ("label", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("id", overflow="fold")
    table.add_column("path", overflow="fold")
    for hit in answer:
        label, score = escape(hit.label or ""), f"{hit.score:.4f}"
        table.add_row(str(hit.rank), score, label, escape(hit.id), escape(hit.path))
    return table
