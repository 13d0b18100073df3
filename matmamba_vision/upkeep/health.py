"""Whether a gallery is what was written, and making it so again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matmamba_common.errors import MatMambaError
from matmamba_common.settings import require_least
from matmamba_retrieval import Gallery
from matmamba_retrieval.gallery import inspection, renewal, repairing
from matmamba_retrieval.gallery.inspection import Damage
from matmamba_retrieval.storage.files import remove
from matmamba_retrieval.storage.records import Generation

from ..galleries.gallery_model import ModelLike, embedder_of, is_there
from ..galleries.light_files import LightFileError, light_files, read_light
from ..given import PathLike, require_path
from ..public_call import public_call
from .reencoding import Reencoder

if TYPE_CHECKING:
    from ..galleries.embedder import Embedder


@dataclass(frozen=True)
class Verified:
    """What a comparison with the checksums found.

    Attributes:
        damages: what is not as it was written; empty if all is well.
        compared: images that were encoded again and compared with their vectors.
    """

    damages: list[Damage]
    compared: int = 0

    @property
    def whole(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.damages

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"damages": [asdict(damage) for damage in self.damages], "compared": self.compared}


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        said: what was done, and what is left, in words.
    """

    said: list[str]

    @property
    def whole(self) -> bool:
        """Whether nothing damaged is left."""
        return not any(line.startswith(repairing.LEFT) for line in self.said)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"whole": self.whole, "said": list(self.said)}


@public_call
def verify(folder: PathLike, *, images: int = 0, model: ModelLike | None = None) -> Verified:
    """Read every byte of a gallery and compare it with its checksum.

    Args:
        folder: of the gallery.
        images: so many of its images, taken by chance, are encoded again and compared with their vectors: a
            file that was replaced by another picture, or is gone, is found so.
        model: the gallery's model, or where it is, if it was moved.

    Raises:
        GalleryError: no gallery there.
        ConfigError: a negative number of images.
        CheckpointError: images are to be encoded, and the gallery's model is not to be had.
    """
    require_least(0, images=images)
    folder = require_path("folder", folder)
    damages = inspection.verify(folder) + _damaged_encoders(folder)
    if damages or not images:
        return Verified(damages)
    with Gallery(folder) as gallery:
        encoder = _reencoder(folder, gallery.generation, model)
        return Verified(inspection.verify_vectors(gallery, encoder, images), min(images, len(gallery)))


def _damaged_encoders(folder: Path) -> list[Damage]:
    damages = []
    for file in light_files(folder):
        try:
            read_light(file)
        except LightFileError as error:
            what = str(error).removeprefix(f"{file} ")
            damages.append(
                Damage(file, what, "repair removes it, and `matmamba gallery freeze` makes it again")
            )
    return damages


@public_call
def repair(folder: PathLike, *, model: ModelLike | None = None) -> Repaired:
    """Build again what can be built again: indexes from vectors, vectors from images.

    Args:
        folder: of the gallery.
        model: the gallery's model, or where it is, if it was moved.

    Raises:
        GalleryError: no gallery there, or another process writes to it.
    """
    folder = require_path("folder", folder)
    said = repairing.repair(folder, partial(_reencoder, folder, named=model))
    for damage in _damaged_encoders(folder):
        remove(damage.file)
        said.append(f"{damage.file} {damage.what}: removed, nothing but time is lost")
    return Repaired(said)


@public_call
def compact(folder: PathLike) -> int:
    """Leave out for good what was deleted, and put the vectors in few files.

    Who reads the gallery meanwhile keeps what they opened. Older versions can no longer be opened.

    Args:
        folder: of the gallery.

    Returns:
        How many deleted images were left out.

    Raises:
        GalleryError: no gallery there, a damaged one, or another process writes to it.
    """
    with Gallery(require_path("folder", folder), write=True) as gallery:
        return renewal.compact(gallery)


def _reencoder(folder: Path, generation: Generation, named: ModelLike | None = None) -> Reencoder:
    """Encodes images by the model of a generation, or the named one; `MatMambaError` without it."""
    return Reencoder(_embedder(folder, generation, named))


def _embedder(folder: Path, generation: Generation, named: ModelLike | None) -> Embedder:
    """The model named, or the one that is where the generation's was: a gallery may have one of another."""
    try:
        return _fitting(folder, generation, named)
    except MatMambaError:
        if named is None or not is_there(generation.checkpoint_path):
            raise
        return _fitting(folder, generation, None)


def _fitting(folder: Path, generation: Generation, named: ModelLike | None) -> Embedder:
    embedder = embedder_of(folder, generation, named)
    generation.spec.require_same(embedder.spec(generation.spec.width), str(folder))
    return embedder
