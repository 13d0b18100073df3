"""The ways of an image to its segment and of a query to its hits are those that the architecture shows."""

from __future__ import annotations

import dataclasses
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import documents
import matmamba_vision as mv
import numpy as np
import pytest
import torch
from matmamba_vision.galleries.image_queries import ImageQueries
from PIL import Image

NETWORK = tuple(f"matmamba_vision/{room}/" for room in ("models", "layers", "ops", "frozen", "native"))
PAGE = documents.ROOT / "docs" / "architecture.md"
# Dims of the run's embedding, and of the prefix that finds the shortlist.
DIMS = (128, 32)


def is_image(value: Any, depth: int = 0) -> bool:
    """Whether a value is an image in any of its forms (bytes to vector, or a hit), or holds one."""
    if isinstance(value, Image.Image | ImageQueries | mv.Hit):
        return True
    if isinstance(value, torch.Tensor):
        return value.dim() >= 3
    if isinstance(value, np.ndarray):
        return value.dtype in (np.float16, np.float32) and value.ndim == 2 and value.shape[-1] in DIMS
    if isinstance(value, bytes | memoryview):
        return len(value) > 200
    value = list(value.values()) if isinstance(value, dict) else value
    if depth < 2 and isinstance(value, list | tuple) and 0 < len(value) < 50:
        return any(is_image(part, depth + 1) for part in value)
    if depth < 2 and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(
            is_image(getattr(value, field.name, None), depth + 1) for field in dataclasses.fields(value)
        )
    return False


def files_on_the_way(work: Callable[[], object]) -> set[str]:
    """Files with a function that holds an image when it begins or ends, those of the network left out."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, value: Any) -> None:
        file = frame.f_code.co_filename
        ours = file.startswith(str(documents.ROOT)) and "site-packages" not in file and file != __file__
        if not ours or event not in ("call", "return"):
            return
        if any(map(is_image, (value, *frame.f_locals.values()))):
            found.add(Path(file).relative_to(documents.ROOT).as_posix())

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    found = {path.removeprefix("datasets/").removeprefix("retrieval/") for path in found}
    return {path for path in found if not path.startswith(NETWORK)}


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.read_text().split(f"## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def shown(title: str) -> tuple[list[str], list[str]]:
    """The files of a section's table, and those that the text behind it names besides."""
    table, _, text = section(title).rpartition("|\n")
    return re.findall(r"^\| `([\w/.]+)` \|", table + "|", re.MULTILINE), re.findall(r"`([\w/]+\.py)`", text)


@pytest.mark.parametrize(
    ("picture", "title"),
    [
        ("image.svg", "An image, from its file to its segment"),
        ("query.svg", "A query, from its file to its hits"),
    ],
)
def test_a_picture_shows_the_files_of_its_table(picture: str, title: str) -> None:
    drawn = re.findall(r">\d  (\w+\.py)<", (PAGE.parent / "pictures" / picture).read_text())
    assert drawn == [path.rpartition("/")[2] for path in shown(title)[0]]


@pytest.fixture
def one(world: Path) -> Path:
    """A folder with one image that the gallery lacks."""
    folder = world / "ONE"
    folder.mkdir()
    (world / "query.jpg").rename(folder / "new.jpg")
    return folder


def require_shown(title: str, found: set[str]) -> None:
    rows, others = shown(title)
    assert 0 < len(rows) <= 8
    assert set(rows) <= found, "the page shows a file that no image passes"
    handed_on = sorted(found - set(rows))
    named = {other: [path for path in handed_on if f"/{path}".endswith(f"/{other}")] for other in others}
    assert sorted(path for paths in named.values() for path in paths) == handed_on, "others hand an image on"
    assert all(named.values()), "the page names a file that no image passes"


def test_the_way_of_an_image(one: Path) -> None:
    model = mv.load_checkpoint("RUN")
    found = files_on_the_way(lambda: mv.index(one, "HOLIDAYS", model=model, prefix="new/"))
    # The index is built anew from the stored vectors, which is not the image's way.
    built = {path for path in found if path.startswith("matmamba_retrieval/index/")}
    require_shown("An image, from its file to its segment", found - built)


def test_the_way_of_a_query(one: Path) -> None:
    with mv.open_gallery("G") as gallery:
        # What is loaded once is, but no block of vectors was compared with its checksum yet.
        gallery.encoder().encoder.embed(np.zeros((1, 3, 16, 16), np.float32), "1/8")
        found = files_on_the_way(lambda: gallery.search(one / "new.jpg", k=3, strategy="shortlist"))
    require_shown("A query, from its file to its hits", found)
