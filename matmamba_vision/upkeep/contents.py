"""What a gallery holds: facts about it, its images by condition, and deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from matmamba_common.settings import require
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.strategies.engines import AnsweringGallery, AnyGallery
from matmamba_retrieval.strategies.searchable import Searchable
from numpy.typing import NDArray

from ..encoders import takes_text
from ..given import require_texts
from ..public_call import public_call


@public_call
def describe(gallery: AnyGallery) -> dict[str, Any]:
    """What a gallery holds, what made it, and what it takes on the disk, as plain values; sizes in bytes.

    Args:
        gallery: an open one, of a folder or pushed to an engine.

    Raises:
        GalleryError: a damaged gallery, or an engine that does not answer.
    """
    return _of_folder(gallery) if isinstance(gallery, Gallery) else _of_engine(gallery)


def _of_engine(gallery: AnsweringGallery) -> dict[str, Any]:
    return {
        "folder": str(gallery.folder),
        "images": len(gallery),
        "metadata": gallery.fields(),
        "checkpoint": gallery.checkpoint_path,
        "takes_text": takes_text(gallery.checkpoint_path),
        "spec": asdict(gallery.spec),
        "further_widths": list(gallery.generation.widths),
        **gallery.described(),
        "plan": gallery.plan,
    }


def _of_folder(gallery: Gallery) -> dict[str, Any]:
    labels = {label for label in gallery.labels() if label is not None}
    return {
        "folder": str(gallery.folder),
        "images": len(gallery),
        "deleted": gallery.key_count - len(gallery),
        "labels": len(labels),
        "metadata": gallery.fields(),
        "version": gallery.version.number,
        "changed": gallery.version.time,
        "versions": [version.number for version in gallery.versions()],
        "checkpoint": gallery.checkpoint_path,
        "takes_text": takes_text(gallery.checkpoint_path),
        "spec": asdict(gallery.spec),
        "further_widths": list(gallery.generation.widths),
        "indexes": [
            {"name": index.name, "dim": index.dim, "width": index.width, "images": index.rows}
            for index in gallery.shortlists()
        ],
        "plan": gallery.plan,
        "bytes": sum(file.stat().st_size for file in gallery.folder.rglob("*") if file.is_file()),
    }


@public_call
def keys_where(gallery: Searchable, where: str = "") -> NDArray[np.int64]:
    """Keys of the images that fulfil a condition, in the order in which they were added.

    Args:
        gallery: an open one.
        where: SQL over id, path, label and metadata; "" for all images.

    Raises:
        GalleryError: a condition that cannot be understood; the message says where.
    """
    require("where", where, str)
    return gallery.keys_where(where)


@public_call
def ids_to_delete(gallery: Gallery, ids: str | Sequence[str] = (), where: str = "") -> list[str]:
    """Ids of the images that `delete` would delete.

    Args:
        gallery: an open one.
        ids: of images that are there, one or several.
        where: instead of ids: a condition, in SQL.

    Raises:
        GalleryError: neither or both are given, or the gallery has no image of such an id.
    """
    if bool(ids) == bool(where):
        raise GalleryError("name the images to delete either by ids or by where, a condition")
    wanted = list(require_texts("ids", ids)) or [row.id for row in gallery.rows(keys_where(gallery, where))]
    known = gallery.keys_of(wanted)
    for image_id in wanted:
        if image_id not in known:
            raise GalleryError(f"{gallery.folder} has no image of id {image_id!r}: nothing was deleted")
    return wanted


@public_call
def delete(gallery: Gallery, ids: str | Sequence[str] = (), where: str = "") -> int:
    """Delete images from a gallery; their files are never touched.

    They stay in older versions, and on the disk, until the gallery is compacted.

    Args:
        gallery: open for writing.
        ids: of images that are there, one or several.
        where: instead of ids: a condition, in SQL.

    Returns:
        How many were deleted.

    Raises:
        GalleryError: as `ids_to_delete`, or a gallery that is open for reading only. Nothing was deleted.
    """
    doomed = ids_to_delete(gallery, ids, where)
    return gallery.delete(doomed) if doomed else 0
