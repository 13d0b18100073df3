"""CIFAR-10 and CIFAR-100 as their authors publish them and torchvision stores them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import DataError
from .sample import Images
from .splits import Splits, given_splits
from .texts import Packed, Prefixed


@dataclass(frozen=True, kw_only=True)
class CifarLayout:
    """Files of one of the data sets, and the keys in them.

    Attributes:
        folder: in which they lie.
        train: files of the training images.
        test: files of the test images.
        meta: the file that names the classes.
        labels: key of the labels.
        names: key of the names of the classes.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    names: str


LAYOUTS = {
    "cifar10": CifarLayout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        meta="batches.meta",
        labels="labels",
        names="label_names",
    ),
    "cifar100": CifarLayout(
        folder="cifar-100-python",
        train=("train",),
        test=("test",),
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
    ),
}


class Cifar(Images):
    """32 x 32 colour images of one split, kept as pixels in memory. Ids are "file#row".

    Raises:
        DataError: a file that is missing, damaged, or holds anything but plain data and arrays.
    """

    def __init__(self, folder: Path, layout: CifarLayout, files: tuple[str, ...]) -> None:
        contents = [read_plain(folder / file) for file in files]
        pairs = list(zip([folder / file for file in files], contents, strict=True))
        self._pixels = np.concatenate([_pixels(file, content) for file, content in pairs])
        self.labels = np.array([label for pair in pairs for label in _labels(*pair, layout)], dtype=np.int64)
        if len(self.labels) != len(self._pixels):
            raise DataError(f"{folder} has {len(self._pixels)} images and {len(self.labels)} labels")
        names = _entry(folder / layout.meta, read_plain(folder / layout.meta), layout.names)
        self.classes = tuple(map(str, names))
        rows = (f"{file.name}#{row}" for file, content in pairs for row in range(len(content["data"])))
        self.ids: Sequence[str] = Packed.of(rows)
        self.paths: Sequence[str] = Prefixed([f"{folder.absolute()}/"], self.ids)
        self.groups = (len(self.labels),)

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, index: int) -> Image.Image:
        # Stored by channel: (3, 32, 32).
        return Image.fromarray(np.ascontiguousarray(self._pixels[index].transpose(1, 2, 0)))


def open_cifar(root: Path | str, name: str) -> Splits:
    """Training and test images of `cifar10` or `cifar100`; `root` is their folder or the one around it.

    Raises:
        DataError: as for `Cifar`.
    """
    layout = LAYOUTS[name]
    folder = Path(root) / layout.folder if (Path(root) / layout.folder).is_dir() else Path(root)
    if not (folder / layout.meta).is_file():
        raise DataError(f"no {layout.folder} in {root}: it would hold {layout.meta} and {layout.train[0]}")
    train, test = (Cifar(folder, layout, files) for files in (layout.train, layout.test))
    return given_splits(train, test, folder, complete=True)


class _PlainUnpickler(pickle.Unpickler):
    """Plain data and numpy arrays. Whatever else a pickle asks for could run code, and is refused."""

    _MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "ndarray": np.ndarray,
            "dtype": np.dtype,
            # Its module was renamed in numpy 2.
            "_reconstruct": np.empty(0).__reduce__()[0],
        }
        if module in self._MODULES and name in allowed:
            return allowed[name]
        if (module, name) == ("_codecs", "encode"):
            # How Python 3 writes bytes for Python 2.
            return lambda text, encoding: str(text).encode(str(encoding))
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not plain data")


def read_plain(file: Path) -> dict[str, Any]:
    """The dictionary in a pickle of plain data and numpy arrays.

    Raises:
        DataError: the file is missing or damaged, or asks for anything else.
    """
    try:
        with file.open("rb") as opened:
            content = _load(opened)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {file}") from error
    # Damaged pickles raise nearly anything.
    except Exception as error:
        raise DataError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no dictionary")
    return content


def _load(file: IO[bytes]) -> Any:
    # Written by Python 2, whose strings are bytes.
    return _PlainUnpickler(file, encoding="latin1").load()


def _entry(file: Path, content: dict[str, Any], key: str) -> Any:
    if key not in content:
        raise DataError(f"{file} has no {key!r}")
    return content[key]


def _labels(file: Path, content: dict[str, Any], layout: CifarLayout) -> Sequence[int]:
    return _entry(file, content, layout.labels)


def _pixels(file: Path, content: dict[str, Any]) -> NDArray[np.uint8]:
    data = _entry(file, content, "data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise DataError(f"{file} has no array of uint8 with 3072 columns under 'data'")
    return data.reshape(-1, 3, 32, 32)
