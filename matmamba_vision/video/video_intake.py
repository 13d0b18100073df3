"""From videos into a gallery: frames sampled, sifted by a small width, kept with their scenes.

A scene is committed whole, with its end: so what a gallery has of a video ends where a scene begins, and
there the next call goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from matmamba_common.settings import require
from matmamba_datasets import Reading, Sampling, open_videos

from ..device import limit_threads
from ..galleries.gallery_model import ModelLike, embedder_for
from ..galleries.intake import Wanted
from ..given import PathLike, require_path, require_texts
from ..progress import Listener, Reporter
from ..public_call import public_call
from .frame_encoding import FrameEncoder
from .sifting import Sieve
from .video_pass import IndexedVideos, VideoPass


@public_call
def index_video(
    videos: PathLike,
    gallery: PathLike,
    *,
    fps: float = 1.0,
    keyframes: bool = False,
    threshold: float = 0.9,
    small_width: str = "",
    model: ModelLike | None = None,
    prefix: str = "",
    widths: Sequence[str] = (),
    dims: Sequence[int] = (),
    factory: str = "",
    metadata: PathLike | None = None,
    reading: Reading | None = None,
    upsert: bool = False,
    changed: bool = False,
    prune: bool = False,
    shard: str = "",
    max_broken: float = 0.01,
    batch_size: int = 64,
    threads: int = 0,
    progress: Listener | None = None,
) -> IndexedVideos:
    """Add frames of videos to a gallery; those that show nothing new are left out.

    Every sampled frame is encoded at a small width. One whose vector is within a threshold of the kept one
    that was shown before it, or of another one of its scene that was shown in the last five seconds, is left
    out; the others are encoded at full width, a batch at once. A scene begins where frames that follow each
    other differ all over. A frame's id is the video's and a time, as "talk.mp4#t=00:12:03.500"; with it are
    noted `video`, `time`, `scene`, `scene_start`, `scene_end` and `duration`, that of the video, in seconds;
    conditions may ask for these. Whatever stops a call, the next one goes on from the last scene it saved.

    Args:
        videos: a folder, or a single file.
        gallery: its folder; it may hold images, too.
        fps: frames that are looked at in a second, by the times of the file.
        keyframes: look only at frames that are stored whole, and decode nothing else.
        threshold: cosine similarity at the small width from which on a frame is left out: 0.9 keeps less, 1
            all frames that differ.
        small_width: that width, such as "1/4"; by default the smallest trained one.
        model: as for `index`.
        prefix: put before each id: keeps two folders apart.
        widths: further widths at which each kept frame gets a vector; by default those of the gallery.
        dims: as for `index`.
        factory: as for `index`.
        metadata: CSV file or JSON lines with what is known about the videos, found by a column id or path;
            each frame has what its video has.
        reading: what is taken of a folder; by default everything that is called like a video.
        upsert: read videos that the gallery has once more, in the place of their frames.
        changed: the same of videos whose files changed since.
        prune: delete the frames of videos whose files are gone.
        shard: only the i-th of n parts of the videos, as "i/n", into a gallery of its own.
        max_broken: share of files that may be unreadable before the call stops.
        batch_size: frames encoded at once.
        threads: that encode and decode; 0 for as many as there are.
        progress: is told how far it is, in seconds of video.

    Returns:
        What became of the videos.

    Raises:
        MatMambaError: the model, a place or the gallery cannot be read; another model made the gallery; a
            video is there from another path; more files are broken than allowed; an argument cannot be.
        MissingPackageError: PyAV is not installed.
        TypeError: an argument is of another type.
    """
    # Before anything is loaded or listed.
    import av  # noqa: F401

    started, report = time.monotonic(), Reporter(progress)
    require("reading", reading, Reading | None)
    place = require_path("videos", videos)
    wanted = Wanted(
        gallery=require_path("gallery", gallery),
        prefix=prefix,
        dims=dims,
        factory=factory,
        shard=shard,
        report=report,
        metadata=None if metadata is None else require_path("metadata", metadata),
        upsert=upsert,
        changed=changed,
        prune=prune,
        max_broken=max_broken,
        place=place,
    )
    sampling, sieve = Sampling(fps, keyframes), Sieve(threshold=threshold)
    limit_threads(threads)
    texts = require_texts("widths", widths)
    found = open_videos(place, reading)
    encoder = FrameEncoder(embedder_for(wanted.gallery, model), texts, small_width, batch_size)
    report.left_out(found.left_out)
    job = VideoPass(
        wanted=wanted,
        encoder=encoder,
        videos=found,
        sampling=sampling,
        sieve=sieve,
        reading=reading or Reading(),
        threads=threads,
    )
    return replace(job.run(), seconds=time.monotonic() - started)
