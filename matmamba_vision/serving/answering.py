"""A batch of requests becomes answers: encoded together, searched for one by one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..galleries.answers import Answer
from ..galleries.image_queries import ImageQueries, QueryEncoder
from ..galleries.text_queries import TextQueries
from ..galleries.ways import FULL, way
from .asking import page_of
from .job import Job
from .served_version import IMAGE


@dataclass(frozen=True, kw_only=True)
class PageFound:
    """What one request of a batch is answered.

    Attributes:
        answer: hits of its page.
        more: whether there may be hits behind it.
        width: that encoded the query; "" where nothing was encoded.
        sent_on: whether the full width encoded it as well.
        encode_ms: milliseconds until it was encoded, by both.
    """

    answer: Answer
    more: bool
    width: str
    sent_on: bool
    encode_ms: float


def found_by(
    jobs: Sequence[Job], rank: int, send_on: Callable[[Job], bool], smaller: Callable[[int], None]
) -> Iterator[tuple[Job, PageFound | Exception]]:
    """What the requests of a batch find, in their order, or what went wrong with one.

    The image of each gives what it gives alone: all are encoded at once, by what computes each image by
    itself, and each searches by itself.

    Args:
        jobs: prepared, of one kind, to one version.
        rank: of the width that encodes images.
        send_on: whether a request may be encoded at full width as well.
        smaller: is told how many images there was memory for, where there was none for all.
    """
    version, kind, start = jobs[0].version, jobs[0].kind, time.perf_counter()
    width = version.widths[rank] if kind == IMAGE else ""
    images: Sequence[ImageQueries | None] = [None] * len(jobs)
    if kind == IMAGE and version.encoder is not None:
        try:
            images = encoded(version.encoder, [job.prepared for job in jobs], width, smaller)
        # Whatever it is, everyone of the batch is told.
        except Exception as error:
            yield from ((job, error) for job in jobs)
            return
    ms = 1e3 * (time.perf_counter() - start)
    for job, image in zip(jobs, images, strict=True):
        try:
            yield job, _found(job, width, image, ms, send_on)
        except Exception as error:
            yield job, error


def _found(
    job: Job, width: str, image: ImageQueries | None, ms: float, send_on: Callable[[Job], bool]
) -> PageFound:
    question, version, inquiry = job.question, job.version, job.inquiry
    assert inquiry is not None
    narrow = width not in ("", FULL)
    strategy = way(
        version.gallery,
        question.strategy,
        width or FULL,
        inquiry.wanted,
        send_on=narrow and FULL in version.widths and send_on(job),
    )
    text = TextQueries(version.opened.require_model(), [question.text]) if question.text else None
    own = image.encode(width).ms if image is not None else 0.0
    answer = inquiry.answer(strategy, image, text)
    sent_on = narrow and answer.by_full_width
    by = {one: version.encoded_by(one) for one in ((width, FULL) if sent_on else (width,)) if one}
    page, more = page_of(replace(answer, encoded_by=by), question, inquiry.answerable)
    again = max(0.0, answer.cost.ms.get("encode", own) - own)
    return PageFound(answer=page, more=more, width=width, sent_on=sent_on, encode_ms=ms + again)


def encoded(
    encoder: QueryEncoder, prepared: Sequence[object], width: str, smaller: Callable[[int], None]
) -> list[ImageQueries]:
    """Queries of one image each, encoded together at a width; in halves where there is not enough memory.

    Args:
        encoder: of the gallery.
        prepared: images as it wants them.
        width: label.
        smaller: see `found_by`.
    """
    try:
        queries = encoder.queries(prepared)
        queries.encode(width)
        return [queries.take(np.array([place])) for place in range(len(prepared))]
    except Exception as error:
        if len(prepared) == 1 or not is_out_of_memory(error):
            raise
    half = (len(prepared) + 1) // 2
    smaller(half)
    _free_memory()
    parts = prepared[:half], prepared[half:]
    return [one for part in parts for one in encoded(encoder, part, width, smaller)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or this machine, had not enough memory."""
    # PyTorch's own is not imported for that.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _free_memory() -> None:
    """Give back what PyTorch keeps of a GPU's memory, where it is loaded."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
