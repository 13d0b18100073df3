"""The one way to open a gallery to be asked: in a folder, or pushed to an engine."""

from __future__ import annotations

import os

from ..gallery.addresses import address_of
from ..gallery.gallery import Gallery
from .pushed_gallery import PushedGallery


def open_to_ask(place: str | os.PathLike[str]) -> Gallery | PushedGallery:
    """The gallery at a place.

    Args:
        place: a folder, `qdrant://host:port/collection`, `qdrants://` for TLS, or `edge:FOLDER`.

    Raises:
        GalleryError: no gallery there, a damaged one, or an engine that does not answer.
    """
    address = address_of(place)
    return PushedGallery.open(address) if address else Gallery(os.fspath(place))
