"""From a batch that was chosen to replies that are told, and all that is noted of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress

from matmamba_retrieval import Strategy

from .answering import PageFound, found_by
from .checking import GivenAnswer
from .events import Answered, Events, Shed
from .job import Job
from .policy import Chosen, Ticket
from .question import LiveRecall, OverloadedError, Reply
from .served_version import IMAGE, STORED
from .traffic import Traffic

GIVEN_UP = "it could not be answered in time: others had to be answered before"


class Replies:
    """Answers batches, and tells who asked.

    Args:
        has_time: whether a worker, by its number, has time for so many seconds more of a request.
        smaller: is told how many images there was memory for at once, where there was none for all.
        recall: what is known of a gallery's width, by both names.
        compare: is given answers that may be compared with exact ones.
        done: is told when a request needs nothing any more, perhaps more than once.
        events: to tell.
        traffic: to note.
    """

    def __init__(
        self,
        *,
        has_time: Callable[[int, Ticket, float], bool],
        smaller: Callable[[int], None],
        recall: Callable[[str, str], LiveRecall | None],
        compare: Callable[[GivenAnswer], None],
        done: Callable[[Job], None],
        events: Events,
        traffic: Traffic,
    ) -> None:
        self._has_time, self._smaller, self._recall = has_time, smaller, recall
        self._compare, self._done = compare, done
        self._events, self._traffic = events, traffic

    def compute(self, worker: int, chosen: Chosen, *, helped: bool) -> None:
        """Answer a batch; who has gone meanwhile is left out.

        Args:
            worker: by its number.
            chosen: the batch.
            helped: whether idle workers' threads compute it, too, which the table of times does not know.
        """
        jobs = [job for job in _jobs(chosen.tickets) if self._is_wanted(job)]
        if not jobs:
            return
        start, left, alone = time.monotonic(), len(jobs), not helped

        def send_on(job: Job) -> bool:
            lanes = job.version.lanes
            more = lanes[IMAGE].seconds(0, 1) + lanes[STORED].seconds(0, left)
            return self._has_time(worker, job, more)

        for job, found in found_by(jobs, chosen.rank, send_on, self._smaller):
            left -= 1
            if isinstance(found, Exception):
                self.fail(job, found)
                alone = False
            else:
                alone = alone and not found.sent_on and not job.question.text
                self._answer(job, found, start, len(jobs))
        # What more was done for some says nothing of what the batch takes.
        if alone:
            jobs[0].version.lanes[jobs[0].kind].table.seen(chosen.rank, len(jobs), time.monotonic() - start)

    def without_images(self, job: Job) -> None:
        """Answer a request to a gallery that has no images yet."""
        assert job.inquiry is not None
        if self._is_wanted(job):
            answer = job.inquiry.answer(Strategy.single_shot())
            found = PageFound(answer=answer, more=False, width="", sent_on=False, encode_ms=0.0)
            self._answer(job, found, time.monotonic(), 1)

    def _is_wanted(self, job: Job) -> bool:
        """Whether somebody still waits for a reply."""
        try:
            wanted = job.future.set_running_or_notify_cancel()
        # It was told already that the service is being closed; what a future raises then is no InvalidState.
        except (InvalidStateError, RuntimeError):
            wanted = False
        if not wanted:
            self._done(job)
        return wanted

    def _answer(self, job: Job, found: PageFound, start: float, batch: int) -> None:
        now = time.monotonic()
        spent = {stage: ms for stage, ms in found.answer.cost.ms.items() if stage != "encode"}
        waited = 1e3 * (start - job.came) - job.prepare_ms
        ms = {"prepare": job.prepare_ms, "queue": max(0.0, waited)}
        if found.width:
            ms["encode"] = found.encode_ms
        ms |= {**spent, "total": 1e3 * (now - job.came)}
        reply = Reply(
            answer=found.answer,
            more=found.more,
            width=found.width,
            sent_on=found.sent_on,
            version=job.version.label,
            queue_position=job.position,
            ms=ms,
            recall=self._recall(job.version.name, found.width) if found.width else None,
        )
        self._tell(job, reply)
        self._note(job, reply, now <= job.deadline, batch)
        self._offer(job, reply)
        self._done(job)

    @staticmethod
    def _tell(job: Job, reply: Reply) -> None:
        # It may have been told something else when the service was closed.
        with suppress(InvalidStateError):
            job.future.set_result(reply)

    def _note(self, job: Job, reply: Reply, in_time: bool, batch: int) -> None:
        self._traffic.answered(reply.ms["total"], in_time, reply.width)
        self._events.tell(
            Answered(
                gallery=job.version.name,
                width=reply.width,
                strategy=reply.answer.strategy.kind,
                sent_on=reply.sent_on,
                in_time=in_time,
                batch=batch,
                ms=reply.ms,
                request_id=job.question.request_id,
            )
        )

    def _offer(self, job: Job, reply: Reply) -> None:
        """Have it compared, if it is an image alone that asked, for the first page."""
        question = job.question
        if reply.width and not question.text and not question.offset:
            self._compare(
                GivenAnswer(
                    version=job.version,
                    question=question,
                    prepared=job.prepared,
                    width=reply.width,
                    ids=tuple(hit.id for hit in reply.answer),
                    busy=job.position > 0,
                )
            )

    def give_up(self, tickets: Sequence[Ticket]) -> None:
        """Tell requests that waited that they cannot be answered in time."""
        for job in _jobs(tickets):
            self.shed(job.version.name, "queue", 0.0, job.question.request_id)
            self.fail(job, OverloadedError(GIVEN_UP, self._retry(job)))

    @staticmethod
    def _retry(job: Job) -> float:
        """As long as one at the narrowest width takes: the queue gets shorter by it."""
        return job.lane.seconds(job.narrowest, 1)

    def shed(self, gallery: str, where: str, retry_after: float, request_id: str) -> None:
        """Note that a request was sent away."""
        self._traffic.shed()
        shed = Shed(gallery=gallery, where=where, retry_after=retry_after, request_id=request_id)
        self._events.tell(shed)

    def fail(self, job: Job, error: Exception) -> None:
        """Tell what went wrong with a request."""
        with suppress(InvalidStateError):
            job.future.set_exception(error)
        self._done(job)


def _jobs(tickets: Sequence[Ticket]) -> list[Job]:
    return [ticket for ticket in tickets if isinstance(ticket, Job)]
