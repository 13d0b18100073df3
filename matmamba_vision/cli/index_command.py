"""Add images to a gallery, encoded at full width, or frames of videos, or vectors made elsewhere.

The gallery is created if it is not there, and remembers its checkpoint, which is taken where none is named.
Images that it has are left alone, so the same command continues a run that was stopped, or adds what is new.

With --engine ray the processes of a Ray cluster encode (extra [ray]): the same gallery, to the bit. It has to
lie in a folder that all machines of the cluster share, beside the folder of its shards, GALLERY.shards, which
is deleted in the end.

A checkpoint is a model of ours, or any encoder: timm:NAME, timm:local-dir:FOLDER or timm:hf-hub:OWNER/NAME;
open_clip:ARCH/TAG, whose galleries are asked by texts, too; or FILE.onnx, with FILE.json beside it that says
how images are prepared. Vectors that were made elsewhere are asked by images once `matmamba gallery encoder`
was told what made them.

Of videos (--video; whatever PyAV opens), every frame that is looked at is encoded by a small width; those
like the last kept one (--threshold) are left out, the others are encoded at full width. An id is the file and
a time, talk.mp4#t=00:12:03.500; conditions may ask for video, time, scene, scene_start, scene_end, duration.

examples:
  matmamba index --images PHOTOS --gallery G
  matmamba index --checkpoint runs/photos --images PHOTOS --gallery G
  matmamba index --checkpoint timm:resnet50.a1_in1k --images PHOTOS --gallery T
  matmamba index --checkpoint runs/student --teacher timm:resnet50.a1_in1k --images PHOTOS --gallery T
  matmamba index --images MORE --gallery G --prefix more/
  matmamba index --checkpoint runs/photos --images PHOTOS --gallery G --dims 16 64 --factory auto
  matmamba index --checkpoint runs/photos --images PHOTOS --gallery G --widths 1/8 --metadata photos.csv
  matmamba index --checkpoint runs/photos --images PHOTOS --gallery G2 --shard 2/4
  matmamba index --images PHOTOS --gallery G --engine ray --processes 2
  matmamba index --images PHOTOS --gallery G --engine ray --address auto --cpus 2
  matmamba index --video VIDEOS --gallery V                # a frame a second; or --fps 2
  matmamba index --video talk.mp4 --gallery V --keyframes  # what is stored whole alone: faster
  matmamba index --vectors clip.parquet --model-name clip-vit-b32 --gallery C --normalise
  matmamba index --gallery G --dims 64 --factory ivfpq     # another index over the images that are there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal

import tyro
from matmamba_common.counts import counted
from matmamba_datasets import TableReading
from matmamba_datasets import shown as printable
from matmamba_retrieval import Gallery, GalleryError

from ..cluster.ray_cluster import RayCluster
from ..cluster.ray_index import index_on_ray
from ..galleries.gallery_model import SHIPPED
from ..galleries.image_intake import index
from ..galleries.intake import Indexed
from ..galleries.shortlists import build_indexes
from ..galleries.vector_intake import index_vectors
from ..progress import Listener
from ..video.video_intake import index_video
from ..video.video_pass import IndexedVideos
from .arguments import parse
from .bars import Shown
from .console import Console
from .measured_model import model_named
from .summary import continuable, summarise

if TYPE_CHECKING:
    from ..galleries.taught import Taught


@dataclass
class FrameFlags:
    # Of videos: frames that are looked at in a second.
    fps: float = 1.0
    # Of videos: look only at frames that are stored whole, and decode nothing else.
    keyframes: bool = False
    # Of videos: cosine similarity to the last kept frame from which on one is left out.
    threshold: float = 0.9
    # Of videos: width that compares them, by default the smallest trained one.
    small_width: str = ""


@dataclass
class IndexFlags:
    # Folder of the gallery.
    gallery: Path
    # Folder of images, of Parquet files or of shards, or a single Parquet file or shard; images and shards
    # also by the URL of their folder.
    images: str | None = None
    # Instead of images: a folder of videos, or one of them.
    video: Path | None = None
    # Of videos: which frames are taken.
    frames: tyro.conf.OmitArgPrefixes[FrameFlags] = field(default_factory=FrameFlags)
    # Instead of images: vectors made elsewhere, as a NumPy file (n, D), or as a Parquet file with columns id
    # and vector, and if there path, label and whatever else is known about each image.
    vectors: Path | None = None
    # Run folder, checkpoint file, or the name of a model whose weights are shipped; or any encoder:
    # timm:NAME, timm:local-dir:FOLDER, open_clip:ARCH/TAG, or an ONNX file with a JSON file beside it. By
    # default what made the gallery, and for a new one matmamba_mini_patch16_128.
    checkpoint: Path | None = None
    # Of a student: the teacher encodes the gallery, rotated as the student's run says, and the student asks
    # it, at its widths `student`, `student 1/2` and so on. Its name; auto for the one that the run names.
    teacher: str = ""
    # Put before each image's id, which is its path below the folder: keeps two folders apart.
    prefix: str = ""
    # Further widths, such as 1/8, at which each image gets a vector; by default those that the gallery has.
    widths: list[str] = field(default_factory=list)
    # Embedding dims over which shortlist indexes are built; by default 32, or those that the gallery has.
    dims: list[int] = field(default_factory=list)
    # Kind of the shortlist indexes: flat, hnsw, ivf, ivfpq, sq8, rabitq, binary, pca-ivfpq:COORDINATES:CELLS,
    # adanns-ivf:CELLS:COMPARED, adanns-opq:BYTES, or a FAISS factory string; auto chooses by the number of
    # images. By default Flat, or what the gallery has.
    factory: str = ""
    # CSV file or JSON lines with what is known about the images, found by a column id or path.
    metadata: Path | None = None
    # Of images: what is read of a place.
    reading: tyro.conf.OmitArgPrefixes[TableReading] = field(default_factory=TableReading)
    # Encode images that the gallery has once more, and replace them; else they are left alone.
    upsert: bool = False
    # Encode images once more whose files changed since.
    changed: bool = False
    # Delete images from the gallery whose files are gone.
    prune: bool = False
    # Only the i-th of n parts, as i/n, into a gallery of its own; `matmamba merge` puts them together.
    shard: str = ""
    # Share of files that may be unreadable before the run stops, and three of a small collection; 0 for none.
    max_broken: float = 0.01
    # Images encoded at once.
    batch_size: int = 64
    # Processes that decode images; with 0, a thread does.
    workers: int = 0
    # Threads that encode; 0 for as many as torch takes.
    threads: int = 0
    # What encodes images: this process (local), or processes of a Ray cluster (ray), each of which has the
    # batches, workers and threads that are asked for.
    engine: Literal["local", "ray"] = "local"
    # With --engine ray: which cluster, and how much of it.
    cluster: tyro.conf.OmitArgPrefixes[RayCluster] = field(default_factory=RayCluster)
    # Of vectors: name of the model that made them, so that others of it can be added; by default the file's
    # checksum stands for it.
    model_name: str = ""
    # Of vectors in a NumPy file: text file with an id on each line; by default ids are row numbers.
    ids: Path | None = None
    # Of vectors: bring them to length 1; else they must have it.
    normalise: bool = False


def run(arguments: list[str]) -> None:
    """Index, build the shortlists, print a summary."""
    args = parse(IndexFlags, "index", __doc__, arguments)
    console = Console()
    given = [place for place in (args.images, args.video, args.vectors) if place is not None]
    nothing = not given
    if len(given) > 1 or (nothing and not (args.dims or args.factory)):
        raise GalleryError("say what to index: either --images, --video or --vectors")
    _require_fitting(args)
    if nothing:
        _build(args, console)
        return
    with continuable(args.gallery), Shown(console) as listener:
        indexed = _index(args, listener)
    summarise(
        console,
        args.gallery,
        "added",
        count=indexed.added,
        total=indexed.total,
        seconds=indexed.seconds,
    )
    if isinstance(indexed, IndexedVideos):
        console.print(_frames_text(indexed), soft_wrap=True, highlight=False)
    _say_changes(console, indexed)
    if indexed.known and args.video is None:
        console.print(_left_alone(args, indexed.known), soft_wrap=True, highlight=False)
    query = "--vectors QUERIES --model-name NAME" if args.vectors else "IMAGE"
    following = f"matmamba search --gallery {quote(str(args.gallery))} {query}"
    if args.shard:
        following = f"matmamba merge GALLERY ... --into G, with all {args.shard.partition('/')[2]} shards"
    console.print(f"next: {following}", soft_wrap=True, markup=False)


def _index(args: IndexFlags, listener: Listener) -> Indexed:
    """Take in the images, or the vectors."""
    if args.vectors is not None:
        return index_vectors(
            args.vectors,
            args.gallery,
            model_name=args.model_name,
            ids=args.ids,
            normalise=args.normalise,
            prefix=args.prefix,
            dims=args.dims,
            factory=args.factory,
            metadata=args.metadata,
            upsert=args.upsert,
            shard=args.shard,
            threads=args.threads,
            progress=listener,
        )
    if args.video is not None:
        return _index_video(args, args.video, listener)
    assert args.images is not None
    return _index_images(args, args.images, listener)


def _index_images(args: IndexFlags, place: str, listener: Listener) -> Indexed:
    """Take in images, by whichever engine."""
    images = partial(
        index if args.engine == "local" else index_on_ray,
        place,
        args.gallery,
        model=_model(args),
        prefix=args.prefix,
        widths=args.widths,
        dims=args.dims,
        factory=args.factory,
        metadata=args.metadata,
        reading=args.reading,
        upsert=args.upsert,
        changed=args.changed,
        prune=args.prune,
        max_broken=args.max_broken,
        batch_size=args.batch_size,
        workers=args.workers,
        threads=args.threads,
        progress=listener,
    )
    if args.engine == "ray":
        return images(cluster=args.cluster)
    return images(shard=args.shard)


def _model(args: IndexFlags) -> Path | Taught | None:
    """What is to encode, if any of it was named."""
    if args.checkpoint is None and not args.teacher:
        return None
    return model_named(args.checkpoint or Path(SHIPPED), args.teacher)


def _index_video(args: IndexFlags, video: Path, listener: Listener) -> IndexedVideos:
    """Take in videos."""
    return index_video(
        video,
        args.gallery,
        fps=args.frames.fps,
        keyframes=args.frames.keyframes,
        threshold=args.frames.threshold,
        small_width=args.frames.small_width,
        model=_model(args),
        prefix=args.prefix,
        widths=args.widths,
        dims=args.dims,
        factory=args.factory,
        metadata=args.metadata,
        reading=args.reading,
        upsert=args.upsert,
        changed=args.changed,
        prune=args.prune,
        shard=args.shard,
        max_broken=args.max_broken,
        batch_size=args.batch_size,
        threads=args.threads,
        progress=listener,
    )


def _frames_text(indexed: IndexedVideos) -> str:
    """What was kept of the videos, and how fast that went."""
    rate = indexed.video_seconds / max(1e-9, indexed.seconds)
    known = f", {indexed.known} of them known before" if indexed.known else ""
    return (
        f"{counted(indexed.videos, 'video')}{known}: {counted(indexed.looked_at, 'frame')} looked at,"
        f" {counted(indexed.scenes, 'scene')},"
        f" {indexed.video_seconds:,.0f} s of video, {rate:,.0f} times as fast as it plays"
    )


def _build(args: IndexFlags, console: Console) -> None:
    """Build indexes over images that are in a gallery already."""
    with Shown(console) as listener:
        names = build_indexes(
            args.gallery, dims=args.dims, factory=args.factory, threads=args.threads, progress=listener
        )
    with Gallery(args.gallery) as gallery:
        console.print(
            f"{args.gallery}: {counted(len(gallery), 'image')}, indexes {', '.join(names)}", soft_wrap=True
        )


def _left_alone(args: IndexFlags, known: int) -> str:
    """What was not done with the images that the gallery had, and how to have it done."""
    names = "--prefix or --ids" if args.ids is None and args.vectors else "--prefix"
    what = ", nor does --metadata change what is known of them" if args.metadata else ""
    found = f"{counted(known, 'id')} there already, left alone{what}"
    return f"{found}: --upsert replaces, {names} renames"


def _require_fitting(args: IndexFlags) -> None:
    """`GalleryError` if a flag is given that has no meaning beside the others."""
    of_vectors = {"--model-name": args.model_name, "--ids": args.ids, "--normalise": args.normalise}
    unused = [name for name, value in of_vectors.items() if value and args.vectors is None]
    if args.vectors is not None and args.widths:
        unused.append("--widths")
    pictures = args.images or args.video
    if pictures is None:
        unused += [f"--{name}" for name in ("changed", "prune", "teacher") if getattr(args, name)]
    if args.video is None:
        usual = FrameFlags()
        changed = [name for name, value in vars(args.frames).items() if value != getattr(usual, name)]
        unused += [f"--{name.replace('_', '-')}" for name in changed]
    elif args.workers:
        unused.append("--workers")
    if pictures is None and args.vectors is None:
        unused += [
            f"--{name}" for name in ("metadata", "widths", "prefix", "upsert", "shard") if getattr(args, name)
        ]
    if args.shard and (args.dims or args.factory):
        unused += ["--dims or --factory (`matmamba merge` takes them)"]
    if args.engine == "ray" and args.images is not None:
        _require_of_ray(args)
    elif args.cluster != RayCluster() or args.engine == "ray":
        unused.append("--engine ray" if args.engine == "ray" else _first_set(args.cluster))
    if unused:
        kind = "videos" if args.video else "images" if args.images else "vectors"
        kind = "a shard" if args.shard else kind if pictures or args.vectors else "images that are there"
        raise GalleryError(f"{unused[0]} means nothing for {kind}")


def _require_of_ray(args: IndexFlags) -> None:
    if args.shard:
        raise GalleryError(
            "--shard means nothing with --engine ray, which cuts the images itself: --shards says how often"
        )


def _first_set(cluster: RayCluster) -> str:
    """The first flag that asks for something of a cluster, which no engine here has."""
    usual = RayCluster()
    names = [one.name for one in fields(cluster) if getattr(cluster, one.name) != getattr(usual, one.name)]
    return f"--{names[0]} without --engine ray"


def _say_changes(console: Console, indexed: Indexed) -> None:
    """Print what became of the files of images that were there before, if anything did."""
    lines = [
        (len(indexed.gone), f"gone, which --prune deletes from the gallery: {_some(indexed.gone)}"),
        (len(indexed.changed), f"changed, which --changed encodes again: {_some(indexed.changed)}"),
        (indexed.pruned, "deleted from the gallery, whose files are gone"),
        (indexed.unknown, "of which no size and time were noted: unknown whether they changed"),
        (indexed.unreachable, "whose files cannot be looked at"),
    ]
    for count, said in lines:
        if count:
            console.print(f"{count} {said}", markup=False, highlight=False, soft_wrap=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
