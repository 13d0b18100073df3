"""What a process of the cluster does: it opens the model once, and indexes one shard after the other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from matmamba_datasets import BrokenTally, Images
from matmamba_retrieval import EmbeddingSpec
from matmamba_retrieval.errors import WriterBusyError
from matmamba_retrieval.gallery.destination import parse_shard
from numpy.typing import NDArray

from ..device import limit_threads
from ..errors import MatMambaError, refusals
from ..galleries.encoding import ImageEncoder
from ..galleries.gallery_model import ModelLike, embedder_at
from ..galleries.image_intake import index_images
from ..galleries.intake import Wanted
from ..progress import Event, Progress, Reporter
from .ray_cluster import ClusterError
from .shard_folders import ShardFolders

T = TypeVar("T")

# Somebody else may hold a shard a while: who wrote it before, on a machine that was lost, until the file
# system lets its lock go.
HELD_SECONDS, LOOK_AGAIN_SECONDS = 120.0, 1.0


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What all processes of one call have in common.

    Attributes:
        folders: where the galleries of the shards lie.
        model: what encodes, as it is opened there.
        device: on which it encodes.
        spec: of its embeddings, as the caller found it.
        widths: labels of further widths.
        batch_size: images that are encoded together.
        workers: processes that decode, for each that encodes; with 0 a thread does.
        threads: that encode.
        prefix: put before each id.
        metadata: file with what is known about the images.
        shards: how many there are.
        seen: files of some images that the caller sees.
    """

    folders: ShardFolders
    model: ModelLike
    device: str
    spec: EmbeddingSpec
    widths: tuple[str, ...]
    batch_size: int
    workers: int
    threads: int
    prefix: str
    metadata: Path | None
    shards: int
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShardState:
    """How far a shard is.

    Attributes:
        number: of the shard; 0 before there is one.
        done: images of it that are behind, those that need nothing included.
        skipped: of these, how many needed nothing.
        broken: of files that could not be read: reason by name.
        foreign: of what is no image at all: reason by name.
        total: images that its gallery has; None until it is complete.
    """

    number: int = 0
    done: int = 0
    skipped: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    total: int | None = None


class StoppedError(Exception):
    """The caller wants no more; what was encoded is kept."""


class ShardWorker:
    """Indexes shards of a collection, for a caller on any machine. What a user can cause is returned.

    Args:
        job: what is wanted.
        images: all of the collection.
        among: ascending positions of those that are wanted; None for all.
    """

    def __init__(self, job: ShardJob, images: Images, among: NDArray[np.int64] | None) -> None:
        self._job, self._images, self._among = job, images, among
        self._encoder: ImageEncoder | None = None
        self._number, self._stopped = 0, False
        self._tally, self._progress = BrokenTally(0, 1.0), Progress(stage="")

    def prepare(self, token: str) -> tuple[str, str] | MatMambaError:
        """Open the model, and see that this machine shares the caller's folders.

        Args:
            token: what the caller has written into the folder of the shards.

        Returns:
            The name of this machine, and that of a file written for the caller to see; or what is wrong.
        """
        return _told(lambda: self._prepare(token))

    def _prepare(self, token: str) -> tuple[str, str]:
        job, host = self._job, socket.gethostname()
        limit_threads(job.threads)
        answer = job.folders.answer(token, host)
        if job.seen and not any(map(os.path.exists, job.seen)):
            raise ClusterError(
                f"{host} does not see the images, such as {job.seen[0]}: they have to lie in a folder that"
                " all machines of the cluster share, or at a URL"
            )
        embedder = embedder_at(job.model, job.device)
        if embedder.spec() != job.spec:
            raise ClusterError(f"{host} has another model at {embedder.place} than the machine that asks")
        self._encoder = ImageEncoder.of(embedder, job.widths, job.batch_size, job.workers)
        return host, answer

    def index(self, number: int) -> ShardState | MatMambaError | None:
        """Index one shard, from 1 on, or what is left of it; None where the caller stopped it."""
        try:
            return _told(lambda: self._index(number))
        except StoppedError:
            return None

    def _index(self, number: int) -> ShardState:
        job, encoder = self._job, self._encoder
        assert encoder is not None
        shard = f"{number}/{job.shards}"
        part = parse_shard(shard, len(self._images), job.batch_size)
        self._number = 0
        self._progress, self._tally = Progress(stage=""), BrokenTally(len(part), 1.0)
        self._number = number
        wanted = Wanted(
            gallery=job.folders.gallery_of(number, job.shards),
            prefix=job.prefix,
            dims=(),
            factory="",
            shard=shard,
            report=Reporter(self._listen),
            metadata=job.metadata,
            among=self._among,
        )
        indexed = _when_free(lambda: index_images(wanted, encoder, self._images, self._tally))
        return self._state(indexed.total)

    def state(self) -> ShardState:
        """How far the shard at hand is."""
        return self._state(None)

    def _state(self, total: int | None) -> ShardState:
        told, tally = self._progress, self._tally
        return ShardState(
            number=self._number,
            done=told.done,
            skipped=told.skipped,
            broken=dict(tally.found),
            foreign=dict(tally.foreign),
            total=total,
        )

    def stop(self) -> None:
        """End the shard at hand behind the next batch; what was encoded is committed."""
        self._stopped = True

    def _listen(self, event: Event) -> None:
        if isinstance(event, Progress) and not event.finished:
            self._progress = event
            if self._stopped:
                raise StoppedError


def _told(work: Callable[[], T]) -> T | MatMambaError:
    """What the work gives, or the error of a user: as a value, because Ray changes what is raised."""
    try:
        with refusals():
            return work()
    except MatMambaError as error:
        return error.with_traceback(None)


def _when_free(work: Callable[[], T]) -> T:
    """Do the work; where another process still writes there, once that has ended."""
    until = time.monotonic() + HELD_SECONDS
    while True:
        try:
            return work()
        except WriterBusyError:
            if time.monotonic() > until:
                raise
            time.sleep(LOOK_AGAIN_SECONDS)
