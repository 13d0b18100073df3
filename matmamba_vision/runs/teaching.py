"""What a student of a run follows: its teacher's rotated vectors, computed as it goes, kept, or given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from matmamba_datasets import FixedViews, Images, JoinedImages, Subset, eval_transform, make_loader
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import CheckpointError, load_checkpoint
from ..config_file import load_into
from ..encoders import Encoder, for_many, open_encoder
from ..errors import ConfigError
from ..progress import Reporter
from ..rotation import FILE_NAME, Rotation, RotationError, fit_rotation, load_rotation, student_rotation
from ..training import CachedTeacher, OnlineTeacher, StoredTeacher, read_vectors, teacher_vectors
from ..training.training import Follows
from .agreement import from_first
from .teacher_cache import TOGETHER, kept_vectors, require_length
from .train_config import DistillConfig

VECTORS = ".npy"
SETTINGS = "config.yaml"


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a student follows, and which images it has to see for that.

    Attributes:
        follows: from a batch to vectors.
        rotation: of the teacher's space.
        anchors: (K, E) vectors that the student is compared with, or None.
        also: the size of the teacher's own images if it sees the student's; else None.
        views: which parts of the images are seen; None for random ones.
    """

    follows: Follows
    rotation: Rotation
    anchors: Tensor | None
    also: int | None = None
    views: FixedViews | None = None


class Teaching:
    """Makes the lesson of a run. Nothing of it is written but vectors that are kept.

    Args:
        config: of the run.
        images: that it trains on.
        accelerator: of this process.
        report: told through.
        resume: as for `distill`.
    """

    def __init__(
        self,
        config: DistillConfig,
        images: JoinedImages,
        accelerator: Accelerator,
        report: Reporter,
        resume: str,
    ) -> None:
        self._config, self._images, self._resume = config, images, resume
        self._accelerator, self._report = accelerator, report
        rows = np.random.default_rng(config.seed).permutation(len(images))
        # Each once, however often an epoch sees it.
        _, first = np.unique(images.unique[rows], return_index=True)
        self._order = rows[np.sort(first)]

    def lesson(self, input: Mapping[str, Any]) -> Lesson:
        """The lesson of a student.

        Args:
            input: its data configuration.

        Raises:
            ConfigError: the student is to have more coordinates than the teacher, or more anchors than there
                are images.
            EncoderError: a teacher that cannot be had, or that gives no vectors.
            RotationError: the run that goes on had another teacher, or another rotation.
        """
        count, wanted = len(self._order), self._config.follow.anchor_count
        if self._config.follow.anchors and wanted > count:
            raise ConfigError(f"follow.anchor_count is {wanted}: there are {count} images to train on")
        if self._config.teacher.endswith(VECTORS):
            return self._given()
        return self._kept() if self._config.crops else self._online(input)

    def _given(self) -> Lesson:
        """By a file with a vector for each image."""
        config, images = self._config, self._images
        vectors, digest = read_vectors(Path(config.teacher), sum(map(_stored_count, images.sources)))
        positions = _stored_rows(images)
        rotation, anchors = self._space(
            (digest,), vectors.shape[1], lambda which: vectors[torch.from_numpy(np.unique(positions[which]))],
            most=len(images),
        )  # fmt: skip
        known = rotation(vectors, config.dim).to(self._accelerator.device)
        return Lesson(follows=StoredTeacher(known, positions), rotation=rotation, anchors=anchors)

    def _kept(self) -> Lesson:
        """By vectors of fixed views, which are computed if they are not there."""
        config, images = self._config, self._images
        kept = kept_vectors(config, images, self._accelerator, self._report)
        rotation, anchors = self._space(
            kept.facts.digests, kept.facts.dim,
            lambda which: kept.cache.vectors_of(torch.from_numpy(np.sort(images.unique[which]))),
            most=config.rotation_images,
        )  # fmt: skip
        vectors = kept.cache.rotated(rotation, config.dim).to(self._accelerator.device)
        follows = CachedTeacher(vectors, images.unique, config.crops)
        return Lesson(follows=follows, rotation=rotation, anchors=anchors, views=kept.views)

    def _online(self, input: Mapping[str, Any]) -> Lesson:
        """By a network that sees what the student sees."""
        config, device = self._config, self._accelerator.device
        encoder = open_encoder(config.teacher, config.teacher_size, device, half=device.type == "cuda")
        self._report.say(
            f"teacher: {encoder.name}, {encoder.dim} numbers of {encoder.size} px, {encoder.digest[:12]}"
        )
        encoder = for_many(encoder, len(self._order))
        rotation, anchors = self._space(
            encoder.digests, encoder.dim, partial(self._encoded, encoder), most=config.rotation_images
        )
        follows = OnlineTeacher(encoder, rotation.to(device), input, config.dim)
        return Lesson(follows=follows, rotation=rotation, anchors=anchors, also=encoder.size)

    def _encoded(self, encoder: Encoder, which: NDArray[np.int64]) -> Tensor:
        """Teacher vectors (n, D) of some images, as it sees them whole."""
        chosen, transform = Subset(self._images, which), eval_transform(encoder.input)
        loader = make_loader(chosen, transform, TOGETHER, workers=self._config.data.workers)
        return teacher_vectors(encoder, loader, self._accelerator.device)

    def _space(
        self,
        digests: tuple[str, ...],
        length: int,
        vectors: Callable[[NDArray[np.int64]], Tensor],
        most: int,
    ) -> tuple[Rotation, Tensor | None]:
        """The rotation, and the rotated anchors if there are to be some.

        Args:
            digests: by which what made the vectors is known, the present one first.
            length: of a vector.
            vectors: gives those of some images, by ascending positions in the collection.
            most: images whose vectors a new rotation is fitted to.
        """
        require_length(self._config, length)
        # All compute it, so that none waits long; but machines round differently, and one space is learnt.
        own = self._rotation(digests, lambda: vectors(np.sort(self._order[:most])))
        rotation = from_first(self._accelerator, lambda: own)
        self._config.teacher_digest, self._config.rotation_digest = rotation.encoder, rotation.digest
        follow = self._config.follow
        if not follow.anchors:
            return rotation, None
        chosen = vectors(np.sort(self._order[: follow.anchor_count]))
        return rotation, rotation(chosen, self._config.dim)

    def _rotation(self, digests: tuple[str, ...], vectors: Callable[[], Tensor]) -> Rotation:
        """The rotation of the run: the one in its folder if it goes on, that of its first weights, or new."""
        file = Path(self._config.output) / FILE_NAME
        goes_on = self._resume != "no"
        if goes_on and file.is_file():
            rotation = load_rotation(file, *digests)
        else:
            rotation = self._first_rotation(digests) or fit_rotation(vectors(), digests[0])
        settings = file.with_name(SETTINGS)
        before = load_into(DistillConfig, settings).rotation_digest if goes_on and settings.is_file() else ""
        if before not in ("", rotation.digest):
            raise RotationError(f"{file} is not the rotation that this run began with")
        return rotation

    def _first_rotation(self, digests: tuple[str, ...]) -> Rotation | None:
        """The rotation of the student that this one begins as; None if that had not this teacher."""
        init = self._config.model.init
        try:
            known = load_checkpoint(init) if init else None
        except CheckpointError:
            # Weights of another library.
            return None
        if known is None or known.run.get("teacher_digest") not in digests:
            return None
        return student_rotation(known)


def _stored_count(images: Images) -> int:
    """Images of a source, those that are held out too."""
    return images.whole if isinstance(images, Subset) else len(images)


def _stored_rows(images: JoinedImages) -> NDArray[np.int64]:
    """For each image of the collection, its row in a file with one for each image of all sources."""
    starts = np.cumsum([0, *map(_stored_count, images.sources)])
    rows = [
        start + (source.indices if isinstance(source, Subset) else np.arange(len(source)))
        for start, source in zip(starts, images.sources, strict=False)
    ]
    return np.concatenate(rows)[images.unique]
