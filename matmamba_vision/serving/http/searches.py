"""Searching: what is asked becomes questions, which the service answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from ..question import Question, Reply
from .decoding import decoded
from .limits import Holding, outcome
from .refusals import RequestError, error_body, json_response
from .reply_json import reply_body
from .schemas import MOST_QUERIES, BatchBody, SearchBody
from .uploads import Upload, read_upload
from .work import Front, RequestNote

# Of the time that is allowed, what decoding may take; what a large photo takes beyond it is added, as no
# width could make up for it.
DECODING_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Questioned:
    """One question as it came.

    Attributes:
        gallery: that is asked.
        body: what is said.
        image: its file, None for none.
        came: when all of it was there, in seconds of `time.monotonic`.
        allowed: seconds that it may take, unless it says otherwise.
        note: of its request.
    """

    gallery: str
    body: SearchBody
    image: bytes | None
    came: float
    allowed: float
    note: RequestNote

    def deadline(self, decoding: float) -> float:
        """When it has to be answered, in seconds of `time.monotonic`.

        Args:
            decoding: seconds that its image took.
        """
        if self.body.deadline_ms is not None:
            return self.came + self.body.deadline_ms / 1e3
        return self.came + self.allowed + max(0.0, decoding - DECODING_SHARE * self.allowed)


class SearchRoutes:
    """The routes that search.

    Args:
        front: the service as routes see it.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def search(self, gallery: str, request: Request) -> Response:
        """Find the images that are most like a query: an image, an id, a text, a vector, or several of these.

        The width that encodes the query is as large as the load allows, and at least `min_width`. What cannot
        be answered in time is refused at once, with status 503 and a Retry-After.
        """
        note, name = RequestNote.of(request), self._front.require_gallery(gallery)
        note.gallery = name
        with self._front.memory.hold() as holding:
            upload = await read_upload(request, self._front.options, holding, images=1)
            asked = Questioned(
                gallery=name,
                body=SearchBody.read(upload.request),
                image=next(iter(upload.images), None),
                came=time.monotonic(),
                allowed=self._front.options.slo_ms / 1e3,
                note=note,
            )
            return json_response(await self._answer(asked, holding))

    async def batch(self, gallery: str, request: Request) -> Response:
        """Several searches at once: `queries` one by one, or the same question for each of the images.

        One that fails has an `error` in its place. Together they may take as long as they would one by one.
        """
        note, name = RequestNote.of(request), self._front.require_gallery(gallery)
        note.gallery = name
        with self._front.memory.hold() as holding:
            upload = await read_upload(request, self._front.options, holding, images=MOST_QUERIES)
            questions = _questions(upload)
            note.more["queries"] = len(questions)
            first = Questioned(
                gallery=name,
                body=questions[0][0],
                image=None,
                came=time.monotonic(),
                allowed=self._front.options.slo_ms / 1e3 * len(questions),
                note=note,
            )
            wanted = [replace(first, body=body, image=image) for body, image in questions]
            answers = await asyncio.gather(*(self._answer_or_error(one, holding) for one in wanted))
            return json_response({"answers": answers})

    async def _answer_or_error(self, asked: Questioned, holding: Holding) -> dict[str, Any]:
        try:
            return await self._answer(asked, holding)
        except Exception as error:
            refusal = self._front.refusal_of(error)
            if refusal.code == "internal":
                raise
            return error_body(refusal, asked.note.request_id)

    async def _answer(self, asked: Questioned, holding: Holding) -> dict[str, Any]:
        front, note = self._front, asked.note
        coming, decode_ms = await front.decoders.run(lambda: self._submit(asked, holding))
        reply = await replied(coming)
        strategy = reply.answer.strategy.kind
        front.metrics.answered(reply, strategy, decode_ms)
        ms = {**({} if decode_ms is None else {"decode": decode_ms}), **reply.ms}
        ms["total"] = 1e3 * (time.monotonic() - asked.came)
        note.width, note.strategy = reply.width, strategy
        note.more |= {
            "version": reply.version,
            "queue_position": reply.queue_position,
            "stages": _rounded(ms),
        }
        return reply_body(
            replace(reply, ms=ms),
            gallery=asked.gallery,
            request_id=note.request_id,
            offset=asked.body.offset,
        )

    def _submit(self, asked: Questioned, holding: Holding) -> tuple[Coming, float | None]:
        """Decode the image, and hand the question over; the milliseconds that decoding took."""
        service, body, image, taken = self._front.service, asked.body, None, 0.0
        if asked.image is not None:
            service.require_room(asked.gallery, asked.deadline(0.0), body.width, body.min_width)
            start = time.monotonic()
            image = decoded(asked.image, self._front.options.limits, holding)
            taken = time.monotonic() - start
        question = Question(
            gallery=asked.gallery,
            image=image,
            id=body.id,
            text=body.text,
            vector=None if body.vector is None else np.array(body.vector, dtype=np.float32),
            like=tuple(body.like),
            unlike=tuple(body.unlike),
            where=body.where,
            min_score=body.min_score,
            k=body.k,
            offset=body.offset,
            strategy=body.strategy,
            width=body.width,
            min_width=body.min_width,
            deadline=asked.deadline(taken),
            request_id=asked.note.request_id,
        )
        return Coming(service.submit(question)), None if image is None else 1e3 * taken


class Coming:
    """A reply to come, which is taken out once: see `outcome`."""

    def __init__(self, future: Future[Reply]) -> None:
        self._future: Future[Reply] | None = future

    def taken(self) -> Future[Reply]:
        """The future, held here no longer."""
        future, self._future = self._future, None
        assert future is not None
        return future


async def replied(coming: Coming) -> Reply:
    """The reply, once it is there."""
    return await outcome(asyncio.wrap_future(coming.taken()))


def _questions(upload: Upload) -> Sequence[tuple[SearchBody, bytes | None]]:
    """What is asked with what, of a batch.

    Raises:
        RequestError: nothing is asked, or not as much as there are images.
    """
    body = BatchBody.read(upload.request)
    if not upload.images:
        if not body.queries:
            raise RequestError("bad_request", "there is no question: give queries, or images")
        return [(one, None) for one in body.queries]
    if body.queries and len(body.queries) != len(upload.images):
        found = f"{len(body.queries)} queries for {len(upload.images)} images"
        raise RequestError("bad_request", f"there are {found}: give one for each, or none")
    common = SearchBody.model_validate(body.model_dump(exclude={"queries"}))
    return list(zip(body.queries or [common] * len(upload.images), upload.images, strict=True))


def _rounded(ms: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 2) for stage, value in ms.items()}
