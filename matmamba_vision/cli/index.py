"""Add images to a gallery, encoded at full width.

The gallery is created if it is not there, and remembers its checkpoint. Images that it has are left alone, so
the same command continues a run that was stopped, or adds what is new in a folder.

examples:
  matmamba index --images PHOTOS --gallery G
  matmamba index --checkpoint runs/photos --images PHOTOS --gallery G
  matmamba index --checkpoint runs/photos --images MORE --gallery G --prefix more/
  matmamba index --checkpoint runs/photos --images PHOTOS --gallery G --dims 16 64 --factory HNSW32
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import numpy as np
from matmamba_datasets import (
    NO_LABEL,
    Batch,
    BrokenTally,
    Images,
    Subset,
    eval_transform,
    make_loader,
    open_images,
)
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row
from matmamba_retrieval.embedder import Embedder
from matmamba_retrieval.shortlist import empty_index
from numpy.typing import NDArray
from rich.console import Console

from ..checkpoint import Checkpoint, load_checkpoint
from .arguments import parse
from .device import limit_threads
from .progress import watch

# Good for a first gallery, before anything is trained.
SHIPPED = "matmamba_nano_patch4_32"
DEFAULT_DIM = 32
COMMIT_ROWS, COMMIT_SECONDS = 4096, 10


@dataclass
class Args:
    # Folder of images, of Parquet files or of shards, or a single Parquet file or shard.
    images: Path
    # Folder of the gallery.
    gallery: Path
    # Run folder, checkpoint file, or the name of a model whose weights are shipped.
    checkpoint: Path = Path(SHIPPED)
    # Put before each image's id, which is its path below the folder: keeps two folders apart.
    prefix: str = ""
    # Embedding dims over which shortlist indexes are built; by default 32, or those that the gallery has.
    dims: list[int] = field(default_factory=list)
    # FAISS factory string of the shortlist indexes; by default Flat, or what the gallery has.
    factory: str = ""
    # Share of files that may be unreadable before the run stops.
    max_broken: float = 0.01
    # Images encoded at once.
    batch_size: int = 64
    # Processes that decode images.
    workers: int = 0
    # Threads that encode; 0 for as many as torch takes.
    threads: int = 0


def run(arguments: list[str]) -> None:
    """Index, build the shortlists, print a summary."""
    args = parse(Args, "index", __doc__, arguments)
    console = Console()
    limit_threads(args.threads)
    checkpoint = load_checkpoint(args.checkpoint)
    images = open_images(args.images)
    added, tally = index_images(args, checkpoint, images, console)
    with Gallery(args.gallery) as gallery:
        console.print(f"{args.gallery}: {added} images added, {len(gallery)} in all", soft_wrap=True)
    if tally.found:
        console.print(
            f"{len(tally.found)} files were left out:\n{tally.listing()}", markup=False, soft_wrap=True
        )
    console.print(f"next: matmamba search --gallery {quote(str(args.gallery))} IMAGE", soft_wrap=True)


def index_images(
    args: Args, checkpoint: Checkpoint, images: Images, console: Console
) -> tuple[int, BrokenTally]:
    """Add what the gallery lacks, then build its shortlists; returns images added, and the broken ones.

    Raises:
        GalleryError: the gallery was made by another checkpoint, or has an id under another path.
        DataError: more files are broken than allowed.
    """
    embedder = Embedder(checkpoint)
    dims = _require_dims(args, embedder.model.embed_dim)
    tally = BrokenTally(len(images), args.max_broken)
    with closing(_Writer(args, embedder.spec(), str(checkpoint.path.absolute()))) as writer:
        missing = writer.missing(images)
        transform = eval_transform(checkpoint.model.input)
        loader = make_loader(missing, transform, args.batch_size, workers=args.workers)
        for batch in watch(console, "indexing", loader, tally):
            if len(batch):
                writer.add(missing, batch, embedder.embed(batch.images))
        writer.flush()
        if writer.gallery is None:
            raise GalleryError(f"{args.images} has no readable images:\n{tally.listing()}")
        _build_shortlists(writer.gallery, dims, args.factory, writer.added)
    return writer.added, tally


class _Writer:
    """Collects encoded images and commits them in segments; creates the gallery with the first of them."""

    def __init__(self, args: Args, spec: EmbeddingSpec, checkpoint_path: str) -> None:
        self.folder, self.prefix, self.spec, self.checkpoint_path = (
            args.gallery,
            args.prefix,
            spec,
            checkpoint_path,
        )
        self.gallery = Gallery(args.gallery, write=True) if Gallery.exists(args.gallery) else None
        self.added = 0
        self._rows: list[Row] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._committed = time.monotonic()

    def close(self) -> None:
        """Let others write to the gallery."""
        if self.gallery is not None:
            self.gallery.close()

    def missing(self, images: Images) -> Subset:
        """The images that the gallery does not have; `GalleryError` if another model made it."""
        if self.gallery is not None:
            self.gallery.require(self.spec)
        ids = [self.prefix + image_id for image_id in images.ids]
        known = self._paths_of(ids)
        for image_id, path in zip(ids, images.paths, strict=True):
            if known.get(image_id, path) != path:
                raise GalleryError(
                    f"{self.folder} has an image {image_id!r} already, from {known[image_id]}, not {path}:"
                    " --prefix NAME keeps two folders apart"
                )
        return Subset(images, [index for index, image_id in enumerate(ids) if image_id not in known])

    def _paths_of(self, ids: list[str]) -> dict[str, str]:
        """Where the images came from, by id, of those that the gallery has."""
        if self.gallery is None:
            return {}
        keys = self.gallery.keys_of(ids)
        return dict(zip(keys, (row.path for row in self.gallery.rows(keys.values())), strict=True))

    def add(self, images: Images, batch: Batch, xb: NDArray[np.float32]) -> None:
        """Take a batch; commit when enough rows or seconds have gathered."""
        self._rows += [self._row(images, int(index)) for index in batch.indices]
        self._vectors.append(xb)
        if len(self._rows) >= COMMIT_ROWS or time.monotonic() - self._committed > COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what was taken."""
        if self._rows:
            self.gallery = self.gallery or Gallery.open_or_create(
                self.folder, self.spec, self.checkpoint_path
            )
            self.gallery.add(self._rows, np.concatenate(self._vectors))
            self.added += len(self._rows)
        self._rows, self._vectors = [], []
        self._committed = time.monotonic()

    def _row(self, images: Images, index: int) -> Row:
        label = int(images.labels[index])
        name = None if label == NO_LABEL else images.classes[label]
        return Row(self.prefix + images.ids[index], images.paths[index], name)


def _require_dims(args: Args, embed_dim: int) -> list[int]:
    """The dims asked for; refuses, before anything is encoded, what could never be built."""
    for dim in args.dims:
        if not 1 <= dim <= embed_dim:
            raise GalleryError(f"--dims {dim} is not in 1..{embed_dim}")
    for dim in args.dims or [min(DEFAULT_DIM, embed_dim)]:
        empty_index(dim, args.factory or "Flat")
    return sorted(set(args.dims))


def _build_shortlists(gallery: Gallery, dims: list[int], factory: str, added: int) -> None:
    """Build those asked for, refresh the others if images were added, and see that there is one."""
    existing = gallery.shortlist_dims()
    wanted = set(dims) | set(existing if added else ())
    if not wanted and not existing:
        wanted = {min(DEFAULT_DIM, gallery.spec.dim)}
    for dim in sorted(wanted):
        gallery.build_shortlist(dim, factory if dim in dims or dim not in existing else "")
