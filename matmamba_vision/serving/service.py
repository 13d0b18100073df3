"""The service without HTTP: questions in, replies out, for several galleries."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

from matmamba_common.words import shown

from ..errors import ConfigError, MatMambaError
from ..galleries.cores import products_on
from ..galleries.gallery_model import ModelLike
from ..galleries.given_images import ImageLike
from ..given import require_type
from ..public_call import public_call
from ..upkeep.image_gallery import ImageGallery
from .asking import require_question
from .checking import Checker, Comparison, GivenAnswer
from .describing import described, min_width, recalls
from .events import Checked, Events, ServiceEvent, Swapped, Widened
from .job import NO_PICTURE, Job
from .owner import Owner
from .policy import Policy
from .quality import Sampler
from .question import LiveRecall, OverloadedError, Question, Reply
from .replies import Replies
from .served_gallery import ServedGallery
from .served_version import NO_WAIT, ServedVersion
from .settings import Settings, require_galleries
from .traffic import Traffic
from .trial import Crew, crews
from .waiting import Waiting
from .writer import Writer

log = logging.getLogger(__name__)
# Milliseconds that an answer takes beside what is computed: this share of the time that there is, or so many.
MARGIN_SHARE, LEAST_MARGIN = 0.08, 2.0
CLOSING, STARTING = "the service is being closed", "the service is not ready yet"


class Service:
    """Answers questions about galleries, as wide as the load allows.

    Args:
        galleries: their folders, by the names that questions call them.
        settings: how it answers.
        model: what made the galleries, if that was moved; by default from where it was.
        device: that encodes queries.

    Attributes:
        settings: as given.
        ready: whether it answers.
        crew: how the cores are shared.

    Raises:
        ConfigError: there is no gallery, or one without a name.
        TypeError: an argument is of another type.
    """

    @public_call
    def __init__(
        self,
        galleries: Mapping[str, str | os.PathLike[str]],
        settings: Settings,
        *,
        model: ModelLike | None = None,
        device: str = "cpu",
    ) -> None:
        require_type("settings", settings, Settings, "a Settings")
        self.settings, self.ready, self._closing = settings, False, False
        self._folders = require_galleries(galleries)
        self._model, self._device = model, device
        self._served: dict[str, ServedGallery] = {}
        self._writers = {name: Writer(folder, model, device) for name, folder in self._folders.items()}
        self._events, self._traffic, self._notices = Events(), Traffic(), dict[str, str]()
        self.crew = crews(settings.workers, settings.threads, device)[0]
        self._policy = Policy(workers=self.crew.workers, most=settings.max_batch_size, margin=self._margin())
        self._open, self._all_told = 0, threading.Condition()
        self._stop_polling = threading.Event()
        self._polling: threading.Thread | None = None
        self._products: Any = None
        self._build()

    def _margin(self) -> float:
        return max(LEAST_MARGIN, MARGIN_SHARE * self.settings.slo_ms) / 1e3

    def _build(self) -> None:
        """Connect what answers: who waits, who computes, who tells, who checks."""
        waiting = Waiting(
            policy=self._policy, longest=self.settings.max_queue, hold=self.settings.max_wait_ms / 1e3
        )
        self._owner = Owner(
            waiting,
            lambda worker, chosen, helped: self._replies.compute(worker, chosen, helped=helped),
            lambda tickets: self._replies.give_up(tickets),
        )
        self._checker = Checker(
            Sampler[GivenAnswer](self.settings.quality_share),
            self._owner.idle,
            lambda name: self._served[name].windows.on_trial,
            self._compared,
        )
        self._replies = Replies(
            has_time=self._owner.has_time,
            smaller=self._take_smaller,
            recall=self._recall,
            compare=self._checker.offer,
            done=self._done,
            events=self._events,
            traffic=self._traffic,
        )

    def start(self) -> None:
        """Open all galleries, answer one trial request at each width, measure them, and be ready.

        Raises:
            MatMambaError: a gallery that is not there or damaged, a width that is unknown, or what encodes
                queries is not to be had; or it was started before, or closed.
        """
        if self._closing or self._served:
            raise ConfigError("a service starts once: make another one")
        ways = crews(self.settings.workers, self.settings.threads, self._device)
        try:
            for name, folder in self._folders.items():
                opened = ServedGallery(name, folder, self.settings, self._model, self._device)
                self._served[name] = opened
                found = opened.measure(ways, self.settings.measure_s)
                # The first that has images decides for all.
                ways = [found.crew] if found is not None else ways
        except BaseException:
            self._release()
            raise
        self._begin(ways[-1])

    def _begin(self, crew: Crew) -> None:
        self.crew = crew
        self._policy = replace(self._policy, workers=crew.workers)
        self._owner.waiting.policy = self._policy
        self._products = products_on(crew.threads)
        self._owner.start(crew.workers, crew.threads)
        self._checker.start()
        if self.settings.poll_s:
            self._polling = threading.Thread(target=self._poll, name="matmamba-poll", daemon=True)
            self._polling.start()
        self.ready = True
        for served in self._served.values():
            self._warm(served)

    def _warm(self, served: ServedGallery) -> None:
        """Check a version's rows beside its requests: the first condition waits for that otherwise."""
        version = served.present

        def check() -> None:
            if version.hold():
                try:
                    version.gallery.allowed("id = ''")
                # Whoever asks with a condition is told.
                except MatMambaError as error:
                    log.warning("%s: %s", served.name, error)
                finally:
                    version.release()

        threading.Thread(target=check, name="matmamba-warm", daemon=True).start()

    def submit(self, question: Question) -> Future[Reply]:
        """Let a question in; its reply is to come.

        Args:
            question: with its image decoded. It is prepared, and looked up, before this returns.

        Returns:
            The reply to come, or `OverloadedError` if its time ran out while it waited.

        Raises:
            OverloadedError: it cannot be answered in time, not even by the narrowest width; or the service is
                not ready, or being closed.
            MatMambaError: a question that cannot be.
            TypeError: an argument of another type.
        """
        require_question(question, self.settings.max_k)
        served = self._gallery(question.gallery)
        with self._all_told:
            self._require_ready()
            self._open += 1
        try:
            job = self._held(question, served)
        except BaseException:
            self._left()
            raise
        self._prepare(job)
        return job.future

    def _held(self, question: Question, served: ServedGallery) -> Job:
        """A request that was let in, and whose version is held."""
        version = served.hold()
        try:
            job = self._job(question, served, version)
            if job.lane is not NO_WAIT:
                self._let_in(job)
        except BaseException:
            version.release()
            raise
        return job

    def _left(self) -> None:
        """One request less has to be told."""
        with self._all_told:
            self._open -= 1
            self._all_told.notify_all()

    @public_call
    def require_room(self, gallery: str, deadline: float, width: str = "", min_width: str = "") -> None:
        """Raise what `submit` would for an image: before it is decoded, which is for nothing otherwise.

        Args:
            gallery: its name.
            deadline: as in a `Question`.
            width: as in a `Question`.
            min_width: as in a `Question`.

        Raises:
            OverloadedError: it could not be answered in time.
            MatMambaError: no such gallery or width.
        """
        served = self._gallery(gallery)
        self._require_ready()
        version = served.present
        if not version.lanes or not version.widths:
            return
        question = Question(gallery=gallery, deadline=deadline, width=width, min_width=min_width)
        job = self._job(replace(question, image=NO_PICTURE), served, version)
        with self._owner.changing:
            self._require_time(job)

    def _require_ready(self) -> None:
        if self._closing or not self.ready:
            raise OverloadedError(CLOSING if self._closing else STARTING, 1.0)

    def _job(self, question: Question, served: ServedGallery, version: ServedVersion) -> Job:
        kind = version.kind_of(question)
        widest, narrowest = version.ranks(question, kind, served.windows.narrowest)
        return Job(
            lane=version.lanes[kind] if version.lanes else NO_WAIT,
            deadline=question.deadline,
            widest=widest,
            narrowest=narrowest,
            ready=False,
            came=time.monotonic(),
            question=question,
            version=version,
            kind=kind,
        )

    def _let_in(self, job: Job) -> None:
        with self._owner.changing:
            self._require_time(job)
            job.position = self._owner.waiting.add(job)

    def _require_time(self, job: Job) -> None:
        """Raise `OverloadedError` unless a request can be in time; what waits must not change meanwhile."""
        waiting, now = self._owner.waiting, time.monotonic()
        late = waiting.late(job, now)
        if late > 0:
            waiting.press(now)
            self._replies.shed(job.version.name, "entry", late, job.question.request_id)
            raise OverloadedError(f"it would be {1e3 * late:.0f} ms late, at any width", late)

    def _prepare(self, job: Job) -> None:
        try:
            job.prepare()
            if job.lane is NO_WAIT:
                self._replies.without_images(job)
                return
        # Whatever it is, who asked is told.
        except Exception as error:
            with self._owner.changing:
                self._owner.waiting.remove(job)
            self._replies.fail(job, error)
            return
        with self._owner.changing:
            job.ready = True
            self._owner.changing.notify()

    def _done(self, job: Job) -> None:
        with self._all_told:
            if job.is_done:
                return
            job.is_done = True
        job.version.release()
        self._left()

    def _recall(self, gallery: str, width: str) -> LiveRecall | None:
        return self._served[gallery].windows.recall(width)

    def _compared(self, given: GivenAnswer, found: Sequence[Comparison]) -> None:
        """Note what an answer was worth, and widen or narrow what is used."""
        served = self._served[given.version.name]
        for width, overlap, same_first in found:
            self._events.tell(
                Checked(
                    gallery=served.name, width=width, overlap=overlap, same_first=same_first, busy=given.busy
                )
            )
            if served.windows.add(width, overlap, same_first):
                self._widened(served)

    def _widened(self, served: ServedGallery) -> None:
        windows, floor = served.windows, self.settings.quality_floor
        narrowest, trial = windows.widths[windows.narrowest], windows.on_trial
        recall = windows.recall(trial) if trial else None
        if recall is not None:
            reason = f"width {trial} finds {recall.estimate:.3f} of the exact hits, less than {floor:g}"
            self._notices[served.name] = f"{served.name}: {reason}; it is not used, {narrowest} is"
        else:
            reason = f"all widths find {floor:g} of the exact hits again"
            self._notices.pop(served.name, None)
        self._events.tell(Widened(gallery=served.name, min_width=narrowest, reason=reason))

    def _take_smaller(self, most: int) -> None:
        """There was no memory for more images at once."""
        with self._owner.changing:
            policy = self._owner.waiting.policy
            self._owner.waiting.policy = replace(policy, most=max(1, min(policy.most, most)))
        self._notices["memory"] = f"there is memory for {most} images at once: no more are encoded together"

    def names(self) -> list[str]:
        """Of the galleries."""
        return list(self._folders)

    @public_call
    def gallery(self, name: str) -> ImageGallery:
        """A gallery at the version that answers now, to look at; changes go through `add` and `delete`.

        Raises:
            ConfigError: there is none of that name.
        """
        return self._gallery(name).present.opened

    def _gallery(self, name: str) -> ServedGallery:
        if name not in self._folders:
            raise ConfigError(f"there is no gallery {name!r}: there are {', '.join(self._folders)}")
        if name not in self._served:
            raise OverloadedError(STARTING, 1.0)
        return self._served[name]

    @public_call
    def describe(self, name: str) -> dict[str, Any]:
        """What a gallery is, and what its widths cost.

        Raises:
            ConfigError: there is none of that name.
        """
        return described(self._gallery(name), self.settings)

    def status(self) -> dict[str, Any]:
        """How it is doing, as `GET /v1/status` tells it."""
        served = list(self._served.values())
        with self._owner.changing:
            queue, running = len(self._owner.waiting), len(self._owner.waiting.running)
        tables = [one.present.lanes["image"].table for one in served if one.present.single_ms]
        known = {width: None if one is None else asdict(one) for width, one in recalls(served).items()}
        return {
            "ready": self.ready,
            "slo_ms": self.settings.slo_ms,
            "queue": queue,
            "in_flight": self._open - queue,
            "busy_workers": running,
            "workers": self.crew.workers,
            "threads": self.crew.threads,
            **self._traffic.to_dict(),
            "min_width": next((found for one in served if (found := min_width(one))), ""),
            "notices": [*self._notices.values(), *(one.notice for one in served if one.notice)],
            "recall": known,
            "table": tables[0].to_dict() if tables else {},
            "galleries": {one.name: one.present.label for one in served},
        }

    @public_call
    def refresh(self, name: str | None = None) -> None:
        """Look for newer versions now; requests that are being answered stay with the older ones.

        Args:
            name: of a gallery, None for all.

        Raises:
            ConfigError: there is none of that name.
        """
        for known in [name] if name is not None else self.names():
            served = self._gallery(known)
            if served.refresh(self.crew):
                present = served.present
                self._events.tell(Swapped(gallery=known, version=present.label, images=len(present)))
                self._warm(served)

    def _poll(self) -> None:
        while not self._stop_polling.wait(self.settings.poll_s):
            try:
                self.refresh()
            # A fault, which must not end the looking.
            except Exception:
                log.exception("looking for newer versions failed")

    @public_call
    def add(
        self,
        name: str,
        images: Sequence[ImageLike],
        ids: Sequence[str],
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        upsert: bool = False,
    ) -> None:
        """Add images to a gallery, and answer with them from then on.

        Args:
            name: of the gallery.
            images: each a PIL image, an array (H, W, 3) of uint8, or the bytes of a file.
            ids: one each.
            labels: one each, None for an image without.
            metadata: one each, JSON objects.
            upsert: images that are there already are replaced.

        Raises:
            MatMambaError: the service is not writable; an image that cannot be read, an id that is there;
                another process writes. Nothing was added then.
        """
        self._writer(name).add(images, ids, labels, metadata, upsert)
        self.refresh(name)

    @public_call
    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Delete images of a gallery, all of them or none, and answer without them from then on.

        Args:
            name: of the gallery.
            ids: of the images.

        Returns:
            How many were deleted.

        Raises:
            MatMambaError: the service is not writable, or an id is not there.
        """
        deleted = self._writer(name).delete(ids)
        self.refresh(name)
        return deleted

    def _writer(self, name: str) -> Writer:
        self._gallery(name)
        if not self.settings.writable:
            raise MatMambaError("this service only reads: it was not started to be written to")
        return self._writers[name]

    def on_event(self, listener: Callable[[ServiceEvent], None]) -> None:
        """Tell a listener of what happens: of the values in `events`, in the thread in which it happens.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(listener):
            raise TypeError(f"listener is {shown(listener)}: it can be a function that takes an event")
        self._events.on_event(listener)

    @public_call
    def close(self, drain_s: float = 10.0) -> None:
        """Let nobody in any more, answer what was let in, then release everything.

        Args:
            drain_s: seconds that answering may take; who still waits then is told `OverloadedError`.
        """
        self._stop_polling.set()
        with self._all_told:
            self._closing = True
            self._all_told.wait_for(lambda: not self._open, drain_s)
        self.ready = False
        with self._owner.changing:
            left = self._owner.waiting.clear()
        for ticket in left:
            if isinstance(ticket, Job):
                self._replies.fail(ticket, OverloadedError(CLOSING, 1.0))
        self._owner.stop()
        self._checker.stop()
        if self._polling is not None:
            self._polling.join()
        self._release()

    def _release(self) -> None:
        if self._products is not None:
            self._products.restore_original_limits()
            self._products = None
        for writer in self._writers.values():
            writer.close()
        for served in self._served.values():
            served.close()
