"""The demonstration's images as files, which whoever opens its gallery can look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matmamba_datasets import Images
from PIL import Image


class FiledImages(Images):
    """The images of a collection that is in memory, with paths of PNG files that were made of them.

    Args:
        images: of the collection.
        folder: to write the files into; it is made.
    """

    def __init__(self, images: Images, folder: Path) -> None:
        self._images = images
        self.classes, self.labels = images.classes, images.labels
        self.ids, self.groups = images.ids, images.groups
        self.left_out, self.limits = images.left_out, images.limits
        self.paths: Sequence[str] = [
            _filed(images[at].image, folder / f"{name}.png") for at, name in enumerate(images.ids)
        ]

    def __len__(self) -> int:
        return len(self._images)

    def stored(self, index: int) -> bytes | Image.Image:
        return self._images.stored(index)


def _filed(image: Image.Image, file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return str(file.absolute())
