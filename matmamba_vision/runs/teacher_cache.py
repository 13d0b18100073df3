"""Filling and opening the kept vectors of a teacher: of fixed views of images, each computed once."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from accelerate import Accelerator
from matmamba_datasets import (
    BrokenImageError,
    BrokenTally,
    FixedViews,
    Images,
    JoinedImages,
    SizedViews,
    Subset,
    eval_transform,
    make_loader,
)
from matmamba_datasets.fixed_views import LONGEST
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import CheckpointError, require_checkpoint
from ..encoders import Encoder, for_many, open_encoder
from ..encoders.names import file_of, is_named
from ..errors import ConfigError
from ..progress import Meter, Reporter, counted
from ..training import CacheKey, VectorCache, batch_vectors
from ..training.vector_cache import recall, remember
from .train_config import DistillConfig

# In the run, where no other folder is named.
FOLDER = "teacher"
# Images that the teacher sees at once: those of many workers lie in shared memory together.
TOGETHER = 64
# Of what is remembered of a teacher; another number where its digest is taken of something else.
_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class TeacherFacts:
    """What has to be known of a teacher whose vectors are there.

    Attributes:
        name: as it was asked for.
        digest: of its architecture, its weights and its transform.
        bare_digest: the same without the architecture.
        dim: numbers of a vector.
        size: of its images in pixels.
    """

    name: str
    digest: str
    bare_digest: str
    dim: int
    size: int

    @property
    def digests(self) -> tuple[str, str]:
        """By which a rotation may know it, the present one first."""
        return self.digest, self.bare_digest

    def __str__(self) -> str:
        return f"teacher: {self.name}, {self.dim} numbers of {self.size} px, {self.digest[:12]}"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A teacher's vectors that are all there.

    Attributes:
        facts: of the teacher.
        cache: of its vectors.
        views: what they are of.
    """

    facts: TeacherFacts
    cache: VectorCache
    views: FixedViews


def kept_vectors(
    config: DistillConfig, images: JoinedImages, accelerator: Accelerator, report: Reporter
) -> Kept:
    """The teacher's vectors of all views of all images; those that are missing are computed.

    Where all are there, files of the teacher are compared with those it was loaded from then, and it is not
    loaded; where it has no files here, or others, its digest is taken of the loaded weights and transform.

    Raises:
        EncoderError: a teacher that cannot be had, or that gives no vectors.
        VectorCacheError: a file holds vectors of something else.
        DataError: more images are broken than is allowed.
    """
    keys, digest = image_keys(images, report)
    augment = config.data.augment
    views = FixedViews(
        keys=keys[images.unique],
        turns=images.turn,
        repeats=np.asarray(images.repeats)[images.source],
        count=config.crops,
        seed=config.crop_seed,
        augment=augment,
    )
    cut = json.dumps([config.crop_seed, augment.scale, augment.ratio, augment.hflip, LONGEST])
    known: dict[str, Any] = {"images": digest, "count": len(keys), "views": config.crops, "cut": cut}
    root = Path(config.cache or Path(config.output) / FOLDER)
    note = root / f"teacher-{_files_digest(config)[:16]}.json"
    if found := recall(note):
        facts = TeacherFacts(**found | {"name": config.teacher})
        cache = VectorCache(root, CacheKey(teacher=facts.digest, dim=facts.dim, **known))
        if not cache.missing()[0]:
            report.say(
                f"{facts}, not loaded: its files are unchanged, and {cache.folder} has all its vectors"
            )
            return Kept(facts=facts, cache=cache, views=views)
    device = accelerator.device
    encoder = open_encoder(config.teacher, config.teacher_size, device, half=device.type == "cuda")
    facts = TeacherFacts(
        name=encoder.name,
        digest=encoder.digest,
        bare_digest=encoder.bare_digest,
        dim=encoder.dim,
        size=encoder.size,
    )
    require_length(config, facts.dim)
    report.say(str(facts))
    cache = VectorCache(root, CacheKey(teacher=facts.digest, dim=facts.dim, **known))
    _Filling(config, images, views, encoder, accelerator).fill(cache, report)
    if accelerator.is_main_process and _files_of(config):
        remember(note, asdict(facts))
    return Kept(facts=facts, cache=cache, views=views)


def require_length(config: DistillConfig, length: int) -> None:
    """Raise `ConfigError` if the student is to have more coordinates than its teacher."""
    if config.dim > length:
        raise ConfigError(f"dim is {config.dim}: the teacher's vectors have {length} numbers")


def image_keys(images: JoinedImages, report: Reporter) -> tuple[NDArray[np.uint64], str]:
    """What each image is known by (u,), the head of its content's SHA-256, and the digest of all in order."""
    whole, keys = hashlib.sha256(), list[bytes]()
    with report.meter("reading images", sum(map(len, images.sources))) as meter:
        for source in images.sources:
            for index in range(len(source)):
                found = hashlib.sha256(_content(source, index)).digest()
                whole.update(found)
                keys.append(found[:8])
                meter.advance(1)
    return np.frombuffer(b"".join(keys), np.uint64).copy(), whole.hexdigest()


def _content(images: Images, index: int) -> bytes:
    """An image's file, or its pixels; nothing where it cannot be read."""
    try:
        stored = images.stored(index)
    except BrokenImageError:
        return b""
    if isinstance(stored, bytes):
        return stored
    return repr((stored.mode, stored.size)).encode() + stored.tobytes()


class _Filling:
    """What computes missing parts.

    Args:
        config: of the run.
        images: of which each has its vectors once.
        views: of them.
        encoder: the teacher.
        accelerator: several processes take parts in turn.
    """

    def __init__(
        self,
        config: DistillConfig,
        images: JoinedImages,
        views: FixedViews,
        encoder: Encoder,
        accelerator: Accelerator,
    ) -> None:
        self._config, self._images, self._views = config, images, views
        self._accelerator = accelerator
        _, self._places = np.unique(images.unique, return_index=True)
        self._encoder = for_many(encoder, len(self._places) * views.count)
        self._tally = BrokenTally(len(self._places), config.data.max_broken, "data.max_broken")

    def fill(self, cache: VectorCache, report: Reporter) -> None:
        """Compute what is missing; a part is kept as soon as it is whole."""
        missing, damaged = cache.missing()
        if not missing:
            report.say(f"{cache.folder} has all its vectors")
            return
        if damaged:
            report.say(f"{_some(damaged)}: damaged or half-written, made again")
        accelerator = self._accelerator
        mine = missing[accelerator.process_index :: accelerator.num_processes]
        with cache.filling() if accelerator.is_main_process else nullcontext():
            accelerator.wait_for_everyone()
            self._compute(cache, mine, report)
            accelerator.wait_for_everyone()

    def _compute(self, cache: VectorCache, parts: list[int], report: Reporter) -> None:
        total, ahead = (
            sum(len(cache.parts[part]) for part in some) * self._views.count
            for some in (range(len(cache.parts)), parts)
        )
        report.say(f"its vectors of {self._views.count} views of each image go to {cache.folder}")
        try:
            with report.meter("teacher's vectors", total, "views") as meter:
                meter.skip(total - ahead)
                for part in parts:
                    cache.write(part, self._encoded(cache.parts[part], meter))
        except KeyboardInterrupt:
            report.say(f"what is whole stays in {cache.folder}: the same command goes on from there")
            raise

    def _encoded(self, span: range, meter: Meter) -> Tensor:
        """(n, views, D) float16 vectors of a part; zeros for images that cannot be read."""
        encoder, places = self._encoder, self._places[span.start : span.stop]
        device = self._accelerator.device
        found = torch.zeros(len(span), self._views.count, encoder.dim, dtype=torch.float16)
        # A view is cut already.
        transform = eval_transform({**encoder.input, "crop_pct": 1.0})
        how = str(encoder.input.get("interpolation", "bicubic"))
        for view in range(self._views.count):
            shown = SizedViews(self._views.only(places, view), encoder.size, how)
            loader = make_loader(
                Subset(self._images, places),
                transform,
                TOGETHER,
                workers=self._config.data.workers,
                views=shown,
            )
            for batch in counted(loader, self._tally):
                if len(batch):
                    found[batch.indices, view] = batch_vectors(encoder, batch, device).half()
                meter.advance(len(batch) + len(batch.broken))
        return found


def _some(files: list[Path]) -> str:
    return f"{files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _files_of(config: DistillConfig) -> list[Path]:
    """The files that a teacher is loaded from; none where a library looks for them."""
    name = config.teacher
    try:
        place = file_of(name) if is_named(name) else require_checkpoint(name)
    except CheckpointError:
        return []
    if place is None:
        return []
    # Beside an ONNX file lie others of its name.
    within = place.iterdir() if place.is_dir() else place.parent.glob(f"{place.stem}.*")
    return sorted(file for file in within if file.is_file())


def _files_digest(config: DistillConfig) -> str:
    """SHA-256 of a teacher's files, and of what else decides what they become."""
    digest = hashlib.sha256(json.dumps([_FORMAT, timm.__version__, config.teacher_size]).encode())
    for file in _files_of(config):
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
