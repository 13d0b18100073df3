"""One pass over videos: looked into, read scene by scene, and committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from time import time_ns

from matmamba_common.counts import counted
from matmamba_datasets import BrokenTally, BrokenVideoError, Limits, Sampling, VideoFile, Videos
from matmamba_datasets.frame_names import frame_name, frame_of, minutes_of
from matmamba_retrieval import GalleryError, Row
from matmamba_retrieval.curation.annotations import Annotations
from matmamba_retrieval.gallery.destination import Destination, parse_shard
from matmamba_retrieval.gallery.image_files import compare
from matmamba_retrieval.overlap import Intake
from matmamba_retrieval.storage.sources import facts_of, same_file

from ..galleries.image_intake import look_for_changes
from ..galleries.image_places import files_of
from ..galleries.intake import Indexed, Wanted, annotated, finish, intake
from ..galleries.shortlists import require_dims
from ..progress import Meter
from .frame_encoding import FrameEncoder
from .known_videos import FrameNote, KnownVideo, known_videos
from .scenes import Scene, scenes_of
from .sifting import Sieve

# Seconds at the end of a video in which there may be no frame, before it counts as broken off.
_SLACK = 2.0


@dataclass(frozen=True, kw_only=True)
class IndexedVideos(Indexed):
    """What became of some videos; images are frames here, but for `known`, which counts videos.

    Attributes:
        videos: files that were read, in part or whole.
        scenes: that were found in what was read.
        looked_at: frames that were sampled; those that are not `added` showed nothing new.
        video_seconds: how much was read, in seconds of video.
        incomplete: videos of which not all could be read: what is wrong by path.
    """

    videos: int = 0
    scenes: int = 0
    looked_at: int = 0
    video_seconds: float = 0.0
    incomplete: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundVideo:
    """A video that can be read.

    Attributes:
        id: with the prefix.
        path: of its file.
        duration: in seconds, 0 if the file does not say.
        known: what the gallery has of it.
    """

    id: str
    path: str
    duration: float
    known: KnownVideo

    @property
    def left(self) -> float:
        """Seconds that are to be read."""
        return max(0.0, self.duration - self.known.end)


class _Told:
    """Tells how far the reading of a video is, and counts its frames."""

    def __init__(self, bar: Meter, video: FoundVideo, note: str) -> None:
        self._bar, self._left, self._note = bar, round(video.left), note
        self._start, self._done = video.known.end, 0
        self.frames = 0

    def __call__(self, frames: int, time: float) -> None:
        self.frames += frames
        self._advance(min(self._left, round(time - self._start)))

    def finish(self) -> None:
        """The video is read, whether or not it was as long as it says."""
        self._advance(self._left)

    def _advance(self, done: int) -> None:
        self._bar.advance(max(0, done - self._done), self._note)
        self._done = max(done, self._done)


def _videos_of(frames: Sequence[str]) -> tuple[str, ...]:
    """The videos whose frames have these ids; an image stands for itself."""
    return tuple(dict.fromkeys((frame_of(id) or (id,))[0] for id in frames))


def _missing(video: VideoFile) -> str:
    """What could not be read of a video, "" if nothing."""
    if video.reached < video.duration - max(_SLACK, 0.02 * video.duration):
        return f"ends at {minutes_of(video.reached)} of {minutes_of(video.duration)}"
    return f"{counted(video.damaged, 'place')} cannot be decoded" if video.damaged else ""


@dataclass(kw_only=True)
class VideoPass:
    """What takes videos in.

    Attributes:
        wanted: how, and what is told of it.
        encoder: of the frames.
        videos: files that may be videos.
        sampling: which frames are looked at.
        sieve: which of these are kept.
        reading: limits of frames.
        threads: that decode, 0 for as many as there are.
    """

    wanted: Wanted
    encoder: FrameEncoder
    videos: Videos
    sampling: Sampling
    sieve: Sieve
    reading: Limits
    threads: int

    def __post_init__(self) -> None:
        self._incomplete = dict[str, str]()
        self._scenes = self._looked_at = 0
        self._seconds = 0.0

    def run(self) -> IndexedVideos:
        """Add what the gallery lacks, then build its shortlists.

        Raises:
            GalleryError: another model made the gallery, it has a video from another path, or there is no
                video that can be read.
            DataError: more files are broken than allowed.
        """
        wanted, spec = self.wanted, self.encoder.embedder.spec()
        dims = require_dims(wanted.dims, wanted.factory, spec.dim)
        part = parse_shard(wanted.shard, len(self.videos))
        self._annotations = self._described()
        tally = BrokenTally(len(part), wanted.max_broken)
        place = self.encoder.embedder.place
        target = Destination(wanted.gallery, spec, place, self.encoder.widths, shard=wanted.shard)
        with closing(target):
            # Of a gallery that was there before, all its widths.
            self.encoder.widths = target.widths
            videos = self._looked_into(target, part, tally)
            with intake(target.commit_new) as writer:
                self._read(videos, target, writer)
            return self._ended(target, dims, tally, videos, writer.committed)

    def _ended(
        self,
        target: Destination,
        dims: Sequence[int],
        tally: BrokenTally,
        videos: Sequence[FoundVideo],
        added: int,
    ) -> IndexedVideos:
        wanted = self.wanted
        if wanted.shard:
            target.open()
        if target.gallery is None:
            told = BrokenTally(0, 1.0, found=tally.found | tally.foreign | self._incomplete)
            raise GalleryError(f"{wanted.place} has no readable videos:\n{told.listing()}")
        changes, pruned = look_for_changes(target.gallery, wanted, files_of(wanted.place))
        total = finish(target, dims, wanted, added)
        wanted.report.broken(tally)
        if self._incomplete:
            cut = BrokenTally(0, 1.0, found=self._incomplete)
            wanted.report.say(f"{counted(len(cut.found), 'video')} not read whole:\n{cut.listing()}")
        return IndexedVideos(
            gallery=wanted.gallery,
            added=added,
            known=sum(bool(video.known.ids) for video in videos),
            total=total,
            broken=tally.found,
            left_out={**self.videos.left_out, **tally.foreign},
            changed=_videos_of(changes.changed),
            gone=_videos_of(changes.gone[pruned:]),
            pruned=pruned,
            unknown=changes.unknown,
            unreachable=changes.unreachable,
            videos=len(videos),
            scenes=self._scenes,
            looked_at=self._looked_at,
            video_seconds=self._seconds,
            incomplete=self._incomplete,
        )

    def _described(self) -> Annotations | None:
        """What a file says about the videos."""
        if self.wanted.metadata is None:
            return None
        known, prefix = Annotations(self.wanted.metadata), self.wanted.prefix
        by_path = known.by == "path"
        known.require_known(self.videos.paths if by_path else (prefix + one for one in self.videos.ids))
        self.wanted.report.left_out(known.left_out)
        return known

    def _looked_into(self, target: Destination, part: range, tally: BrokenTally) -> list[FoundVideo]:
        """The videos that can be opened, how long each is, and what the gallery has of it already."""
        known = known_videos(target.gallery)
        doomed = self._replaced(target, known)
        found = list[FoundVideo]()
        for place in part:
            id, path = self.wanted.prefix + self.videos.ids[place], self.videos.paths[place]
            old = known.get(id)
            if old is not None and not same_file(old.path, path):
                raise GalleryError(
                    f"{target.folder} has a video {id!r} already, from {old.path}, not {path}:"
                    " a prefix keeps two folders apart"
                )
            try:
                with VideoFile(path, limits=self.reading, threads=1) as video:
                    duration = video.duration
            except BrokenVideoError as error:
                tally.add([error])
                continue
            if old is not None and id in doomed:
                assert target.gallery is not None
                target.gallery.delete(old.ids)
                old = None
            found.append(FoundVideo(id, path, duration, old or KnownVideo(path)))
        return found

    def _replaced(self, target: Destination, known: Mapping[str, KnownVideo]) -> set[str]:
        """Ids of the videos that are read once more."""
        if self.wanted.upsert:
            return set(known)
        files = files_of(self.wanted.place)
        if not self.wanted.changed or target.gallery is None or files is None:
            return set()
        changed = set(compare(target.gallery, files).changed)
        return {id for id, video in known.items() if not changed.isdisjoint(video.ids)}

    def _read(self, videos: Sequence[FoundVideo], target: Destination, writer: Intake[Row]) -> None:
        """Read what is left of each video, one after the other."""
        target.facts = partial(facts_of, since=time_ns())
        total = round(sum(video.duration for video in videos))
        with self.wanted.report.meter("indexing", total, "s of video") as bar:
            bar.skip(round(sum(video.duration - video.left for video in videos)))
            for number, found in enumerate(videos, 1):
                note = f"{number}/{len(videos)} {found.id}"
                # What is left at the end of one that was read whole has no frame.
                if found.known.ids and found.left < _SLACK:
                    bar.advance(round(found.left), note)
                    continue
                told = _Told(bar, found, note)
                try:
                    self._read_one(found, target, writer, told)
                except BrokenVideoError as error:
                    self._incomplete[error.name] = error.reason
                told.finish()

    def _read_one(self, found: FoundVideo, target: Destination, writer: Intake[Row], told: _Told) -> None:
        start = found.known.end
        with VideoFile(found.path, limits=self.reading, threads=self.threads) as video:
            scenes = scenes_of(
                video,
                self.encoder,
                self.sampling,
                self.sieve,
                start=start,
                number=found.known.scenes + 1,
                told=told,
            )
            with closing(scenes):
                for scene in scenes:
                    target.open()
                    writer.add(self._rows(found, video, scene), scene.vectors)
                    self._scenes += 1
            self._looked_at += told.frames
            self._seconds += max(0.0, video.reached - start)
            if reason := _missing(video):
                self._incomplete[found.path] = reason

    def _rows(self, found: FoundVideo, video: VideoFile, scene: Scene) -> list[Row]:
        """The frames of a scene as the gallery keeps them."""
        whole = [Row(found.id, found.path)]
        about = annotated(whole, self._annotations)[0] if self._annotations is not None else whole[0]
        rows = []
        for time in scene.times:
            note = FrameNote(
                video=found.id,
                time=round(time, 3),
                scene=scene.number,
                scene_start=scene.start,
                scene_end=scene.end,
                duration=max(video.duration, scene.end),
            )
            names = frame_name(found.id, time), frame_name(found.path, time)
            rows.append(Row(*names, about.label, {**about.metadata, **asdict(note)}))
        return rows
