"""Images into a gallery by many machines: indexed in shards, which are then put together."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matmamba_common.lazy import Deferred
from matmamba_common.settings import require
from matmamba_datasets import BrokenTally, Images, TableReading
from matmamba_datasets.listing import absolute
from matmamba_datasets.remote import is_url
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.gallery.addresses import require_folder
from matmamba_retrieval.gallery.destination import Destination
from matmamba_retrieval.gallery.place import require_empty
from matmamba_retrieval.storage.sources import file_of
from numpy.typing import NDArray

from ..device import limit_threads
from ..encoders.names import FUNCTION
from ..galleries.encoding import ImageEncoder
from ..galleries.gallery_model import ModelLike, embedder_for
from ..galleries.given_images import ImageLike, collection_of
from ..galleries.image_intake import Described, left_to_encode, look_for_changes, none_readable
from ..galleries.image_places import files_of, place_of, require_told
from ..galleries.intake import Indexed, Wanted
from ..galleries.shortlists import build_shortlists, require_dims
from ..given import require_path, require_texts
from ..progress import Listener, Meter, Reporter
from ..public_call import public_call
from ..upkeep.merge import put_together
from .crew import ShardCrew
from .ray_cluster import ClusterError, RayCluster, connected, room_for
from .shard_folders import ShardFolders, digest_of
from .shard_worker import ShardJob, ShardState, ShardWorker

if TYPE_CHECKING:
    import ray
else:
    ray = Deferred("ray")

# A process that is slow, or comes late, leaves shards to the others.
SHARDS_EACH = 4
# So many images are looked for by each process before it begins.
LOOKED_FOR = 5


@public_call
def index_on_ray(
    images: str | os.PathLike[str] | Images | Sequence[ImageLike],
    gallery: str | os.PathLike[str],
    *,
    cluster: RayCluster | None = None,
    model: ModelLike | None = None,
    ids: Sequence[str] | None = None,
    labels: Sequence[str | None] | None = None,
    prefix: str = "",
    widths: Sequence[str] = (),
    dims: Sequence[int] = (),
    factory: str = "",
    metadata: str | os.PathLike[str] | None = None,
    reading: TableReading | None = None,
    upsert: bool = False,
    changed: bool = False,
    prune: bool = False,
    max_broken: float = 0.01,
    batch_size: int = 64,
    workers: int = 0,
    threads: int = 0,
    progress: Listener | None = None,
) -> Indexed:
    """Add images to a gallery as `index` does, encoded by the processes of a Ray cluster.

    The images are cut into shards, each indexed into a gallery of its own in a folder beside the gallery,
    `GALLERY.shards`; then these are merged, and the folder is deleted. Rows, their order, vectors and indexes
    are those of `index`, to the bit. A process that dies is replaced, and its shard goes on from what was
    committed; whatever stops the call, the next one with the same arguments goes on from there.

    The folder in which the gallery lies, the images, the model and the metadata have to be there, by the same
    paths, on all machines of the cluster, or the images at a URL.

    Args:
        images: as `index` takes them.
        gallery: its folder.
        cluster: which machines encode, and how much of them; by default the cores of this one.
        model: as `index` takes it.
        ids: of a sequence of images, one each; by default their paths, so images in memory need them.
        labels: of a sequence of images, one each, None for an image without.
        prefix: put before each id: keeps two folders apart.
        widths: further widths, such as "1/8", at which each image gets a vector; by default those of the
            gallery.
        dims: embedding dims over which shortlist indexes are built; by default 32, or those that the gallery
            has.
        factory: kind of these indexes, as `index` takes it.
        metadata: CSV file or JSON lines with what is known about the images, found by a column id or path.
        reading: what is read of a place; by default everything within the usual limits.
        upsert: encode images that the gallery has once more, and replace them.
        changed: encode images of a place once more whose files changed since.
        prune: delete images of a place whose files are gone.
        max_broken: share of all files that may be unreadable before the call stops.
        batch_size: images encoded at once, by each process.
        workers: processes that decode images, for each that encodes; with 0, a thread does.
        threads: that encode, in each process; 0 for as many as it has cores.
        progress: is told how far all of them are.

    Returns:
        What became of the images.

    Raises:
        ClusterError: there is no cluster at its address, it has no room, its machines share no folder, or
            processes die again and again at the same place.
        MatMambaError: what `index` raises; or the images are others than those of a call that was stopped.
        TypeError: an argument is of another type.
    """
    start, report = time.monotonic(), Reporter(progress)
    cluster = RayCluster() if cluster is None else cluster
    require("cluster", cluster, RayCluster)
    # What is missing is said before all the work.
    _ = ray.__version__
    wanted = Wanted(
        gallery=absolute(require_folder(require_path("gallery", gallery))),
        prefix=prefix,
        dims=dims,
        factory=factory,
        shard="",
        report=report,
        metadata=None if metadata is None else absolute(require_path("metadata", metadata)),
        upsert=upsert,
        changed=changed,
        prune=prune,
        max_broken=max_broken,
        place=place_of(images),
    )
    texts = require_texts("widths", widths)
    limit_threads(threads)
    encoder = ImageEncoder.of(embedder_for(wanted.gallery, model), texts, batch_size, workers)
    collection = collection_of(*_wherever_read(images, ids), labels, reading)
    require_told(wanted, collection)
    report.left_out(collection.left_out)
    call = _Call(wanted, encoder, collection, cluster, threads or cluster.cpus)
    # The caller's spelling, as `index` has it.
    return replace(call.run(), gallery=Path(gallery), seconds=time.monotonic() - start)


def _wherever_read(images: Any, ids: Sequence[str] | None) -> tuple[Any, Sequence[str] | None]:
    """Images and ids, with paths that lead to the same files from every folder of every machine."""
    if isinstance(images, (str, os.PathLike)):
        place = os.fspath(images)
        return (place if is_url(place) or not place else str(absolute(Path(place)))), ids
    if isinstance(images, Sequence) and not isinstance(images, (bytes, bytearray, memoryview)):
        paths = [os.fspath(image) for image in images if isinstance(image, (str, os.PathLike))]
        if ids is None and len(paths) == len(images):
            ids = paths
        found = [
            str(absolute(Path(image))) if isinstance(image, (str, os.PathLike)) else image for image in images
        ]
        return found, ids
    return images, ids


@dataclass
class _Call:
    """One call, from its arguments to the gallery."""

    wanted: Wanted
    encoder: ImageEncoder
    images: Images
    cluster: RayCluster
    threads: int

    def run(self) -> Indexed:
        """Index shard by shard, and merge."""
        wanted, spec = self.wanted, self.encoder.embedder.spec()
        dims = require_dims(wanted.dims, wanted.factory, spec.dim)
        # What it says of images that are not there is said once, here.
        Described(wanted, self.images)
        left = self._left()
        folders = ShardFolders.beside(wanted.gallery)
        nothing = {"outcome": {"broken": {}, "foreign": {}, "known": len(self.images)}}
        if not len(left) and not folders.folder.exists():
            return self._finish(dims, 0, nothing["outcome"])
        with closing(_Held(folders)):
            noted, added = folders.begun(), 0
            self._require_same(folders, noted)
            if noted is None or "outcome" not in noted:
                noted = self._encode(folders, noted, left) if len(left) else nothing
            if "shards" in noted:
                added = self._merge(folders, noted)
            done = self._finish(dims, added, noted["outcome"])
            folders.remove()
        return done

    def _left(self) -> NDArray[np.int64]:
        """Positions of the images that the gallery lacks; refuses a gallery that cannot take them.

        Raises:
            GalleryError: another model made the gallery, it has other widths, or an id from another path.
        """
        wanted, embedder = self.wanted, self.encoder.embedder
        if not Gallery.exists(wanted.gallery):
            require_empty(wanted.gallery)
        target = Destination(
            wanted.gallery, embedder.spec(), embedder.place, self.encoder.widths, upsert=wanted.upsert
        )
        with closing(target):
            # Of a gallery that was there before, all its widths.
            self.encoder = replace(self.encoder, widths=target.widths)
            return left_to_encode(target, self.images, wanted, range(len(self.images)))

    def _about(self) -> dict[str, Any]:
        """What has to be the same when a call goes on from where another was stopped."""
        return {
            "model": asdict(self.encoder.embedder.spec()),
            "widths": list(self.encoder.widths),
            "batch_size": self.encoder.batch_size,
            "prefix": self.wanted.prefix,
            "images": len(self.images),
            "ids and paths": digest_of(self.images.ids) + digest_of(self.images.paths),
            **({"replaced": self._replaces} if self._replaces else {}),
        }

    @property
    def _replaces(self) -> str:
        """Which images that the gallery has are encoded once more."""
        return "all" if self.wanted.upsert else "changed" if self.wanted.changed else ""

    def _require_same(self, folders: ShardFolders, noted: dict[str, Any] | None) -> None:
        asked = self._about() | ({"shards": self.cluster.shards} if self.cluster.shards else {})
        for name, value in ({"replaced": ""} | asked).items() if noted is not None else ():
            if noted is not None and noted.get(name, "") != value:
                differ = f"{noted.get(name)!s:.40}, not {value!s:.40}"
                raise GalleryError(
                    f"{folders.folder} holds what a call with another value of {name} has begun ({differ}):"
                    " repeat that call, or delete the folder to begin anew"
                )

    def _encode(
        self, folders: ShardFolders, noted: dict[str, Any] | None, left: NDArray[np.int64]
    ) -> dict[str, Any]:
        """Have all shards indexed; returns what is noted of them from then on."""
        report = self.wanted.report
        counted = _Counted(BrokenTally(len(self.images), self.wanted.max_broken, "max_broken"))
        try:
            with ExitStack() as stack:
                with report.stage("starting processes"):
                    noted, crew = self._start(folders, noted, left, stack)
                with report.meter("indexing", len(self.images)) as counted.meter:
                    crew.work_off(counted.take)
        except BaseException:
            if kept := _kept(folders):
                report.say(f"{kept} images are in {folders.folder}: the same call goes on from there")
            else:
                folders.remove()
            raise
        if len(left) == len(self.images) and not any(state.total for state in counted.states.values()):
            folders.remove()
            raise none_readable(self.wanted.place, counted.tally)
        outcome = {
            "broken": counted.in_order("broken"),
            "foreign": counted.in_order("foreign"),
            "known": len(self.images) - len(left),
        }
        folders.note(noted := {**noted, "outcome": outcome})
        return noted

    def _start(
        self, folders: ShardFolders, noted: dict[str, Any] | None, left: NDArray[np.int64], stack: ExitStack
    ) -> tuple[dict[str, Any], ShardCrew]:
        """What is noted of the call from now on, and processes of which one is ready."""
        cluster, token = self.cluster, uuid.uuid4().hex
        shared = _bytes_of(self.images) + _bytes_of(self._job(folders, 1))
        stack.enter_context(connected(cluster, shared))
        # Ray would wait for a machine with room for as long as it takes.
        if not (room := room_for(cluster)):
            raise ClusterError(f"no machine of the cluster has {cluster.each}: no process fits")
        processes = cluster.processes or room
        noted = noted or {**self._about(), "shards": self._shards(processes)}
        folders.note(noted)
        folders.ask(token)
        among = None if len(left) == len(self.images) else left
        given = [ray.put(value) for value in (self._job(folders, noted["shards"]), self.images, among)]
        # While a shard is at hand, a process is asked how far it is.
        options: dict[str, Any] = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "max_concurrency": 2}
        kind = ray.remote(**options, max_restarts=0, scheduling_strategy="SPREAD")(ShardWorker)
        numbers = range(1, noted["shards"] + 1)
        crew = ShardCrew(
            lambda: kind.remote(*given), numbers, folders=folders, token=token, report=self.wanted.report
        )
        stack.enter_context(crew).begin(processes)
        return noted, crew

    def _shards(self, processes: int) -> int:
        """How many shards are made of the images: none smaller than a batch."""
        blocks = -(-len(self.images) // self.encoder.batch_size)
        return min(self.cluster.shards or SHARDS_EACH * processes, blocks)

    def _job(self, folders: ShardFolders, shards: int) -> ShardJob:
        embedder = self.encoder.embedder
        # A function has no name that opens it there: it goes along.
        model = embedder.encoder if embedder.place.startswith(FUNCTION) else embedder.place
        assert model is not None
        return ShardJob(
            folders=folders,
            model=model,
            device="cuda" if self.cluster.gpus else "cpu",
            spec=embedder.spec(),
            widths=self.encoder.widths,
            batch_size=self.encoder.batch_size,
            workers=self.encoder.workers,
            threads=self.threads,
            prefix=self.wanted.prefix,
            metadata=self.wanted.metadata,
            shards=shards,
            seen=_seen(self.images),
        )

    def _merge(self, folders: ShardFolders, noted: dict[str, Any]) -> int:
        """The galleries of the shards into the gallery; returns how many images these were."""
        shards, wanted = noted["shards"], self.wanted
        parts = [folders.gallery_of(number, shards) for number in range(1, shards + 1)]
        merged = put_together(
            parts, wanted.gallery, wanted.dims, wanted.factory, wanted.report, replace=bool(self._replaces)
        )
        return merged.added

    def _finish(self, dims: Sequence[int], added: int, outcome: dict[str, Any]) -> Indexed:
        """What became of the images; of a gallery that lacked none, indexes that are asked for are built."""
        wanted = self.wanted
        if not added:
            with Gallery(wanted.gallery, write=True) as gallery:
                build_shortlists(gallery, dims, wanted.factory, 0)
        with Gallery(wanted.gallery, write=wanted.prune) as gallery:
            changes, pruned = look_for_changes(gallery, wanted, files_of(wanted.place, self.images))
            total = len(gallery)
        tally = BrokenTally(0, 1.0, found=outcome["broken"], foreign=outcome["foreign"])
        wanted.report.broken(tally)
        return Indexed(
            gallery=wanted.gallery,
            added=added,
            known=outcome["known"],
            total=total,
            broken=tally.found,
            left_out={**self.images.left_out, **tally.foreign},
            changed=tuple(changes.changed),
            gone=tuple(changes.gone[pruned:]),
            pruned=pruned,
            unknown=changes.unknown,
            unreachable=changes.unreachable,
        )


class _Held:
    """The folder of the shards, for this call alone."""

    def __init__(self, folders: ShardFolders) -> None:
        self._folders, self._lock = folders, folders.hold()

    def close(self) -> None:
        self._lock.release()
        self._folders.remove_if_empty()


@dataclass
class _Counted:
    """What all shards have reached together.

    Attributes:
        tally: of broken files of all shards.
        meter: is told, from when there is one.
        states: by number of the shard, the last one.
    """

    tally: BrokenTally
    meter: Meter | None = None
    states: dict[int, ShardState] = field(default_factory=dict)

    def take(self, state: ShardState) -> None:
        """Count what a shard has reached since it was last counted.

        Raises:
            DataError: more files of all shards are broken than allowed.
        """
        assert self.meter is not None
        if not state.number:
            return
        before = self.states.get(state.number, ShardState())
        # Of a shard that another process goes on with, less may be behind than was encoded before.
        grown = max(0, state.done - before.done)
        skipped = min(grown, state.skipped) if not before.done else 0
        self.states[state.number] = replace(state, done=max(state.done, before.done))
        self.tally.found |= state.broken
        self.tally.foreign |= state.foreign
        self.tally.add([])
        if skipped:
            self.meter.skip(skipped)
        if grown > skipped:
            broken = len(self.tally.found)
            self.meter.advance(grown - skipped, f"{broken} broken" if broken else "")

    def in_order(self, kind: str) -> dict[str, str]:
        """Reasons by name, of all shards in the order of their numbers."""
        found = (getattr(self.states[number], kind) for number in sorted(self.states))
        return {name: reason for reasons in found for name, reason in reasons.items()}


def _seen(images: Images) -> tuple[str, ...]:
    """Files of a few images that are on this machine."""
    chosen = np.unique(np.linspace(0, len(images) - 1, LOOKED_FOR).astype(np.int64))
    files = (file_of(images.paths[int(place)]) for place in chosen if images.paths[int(place)])
    return tuple(file for file in files if Path(file).exists())


def _kept(folders: ShardFolders) -> int:
    """How many images the galleries of the shards have by now."""
    found = 0
    for folder in folders.folder.glob("*-of-*"):
        if Gallery.exists(folder):
            with Gallery(folder) as gallery:
                found += len(gallery)
    return found


def _bytes_of(value: Any) -> int:
    """How large something is that is sent to other processes.

    Raises:
        ClusterError: it cannot be sent.
    """
    buffers: list[Any] = []
    try:
        sent = ray.cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    # Each kind of object has its own way to refuse.
    except Exception as error:
        raise ClusterError(f"what is to be indexed cannot be sent to other processes: {error}") from error
    return len(sent) + sum(buffer.raw().nbytes for buffer in buffers)
