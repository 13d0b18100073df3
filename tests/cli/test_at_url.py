"""`matmamba index` of a folder at a URL: the same gallery as of one here, and what became of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from matmamba_retrieval import Gallery
from matmamba_vision import save_checkpoint
from matmamba_vision.cli.main import main
from real_trees import encoded, photos
from small import create


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A folder in memory, as a store far away has it; its name there."""
    photos(tmp_path / "place")
    fsspec.filesystem("memory").put(f"{tmp_path}/place/", f"{tmp_path}/place/", recursive=True)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "model", create("matmamba_nano_patch4_32", num_classes=2).eval(), ("a", "b"))
    return f"{tmp_path}/place"


@pytest.fixture
def index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Indexes a place into a gallery; returns what is said."""

    def run(place: str, *more: str, gallery: str = "g", status: int = 0) -> str:
        known = ["--checkpoint", str(tmp_path / "model"), "--gallery", str(tmp_path / gallery)]
        assert main(["index", "--images", place, *known, *more]) == status
        said = capsys.readouterr()
        return said.err if status else said.out

    return run


def test_the_gallery_is_that_of_a_folder_here(
    store: str, index: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the paths; hits have pictures, and a second run finds all of them known."""
    index(store, gallery="here")
    assert "8 images added" in index(f"memory:/{store}")
    with Gallery(tmp_path / "here") as here, Gallery(tmp_path / "g") as there:
        rows = [(row.id, row.label) for row in here.rows(range(8))]
        assert [(row.id, row.label) for row in there.rows(range(8))] == rows
        assert np.array_equal(here.segments.read(np.arange(8)), there.segments.read(np.arange(8)))
        assert there.rows([0])[0].path == f"memory:/{store}/cats/00.png"
    assert "8 ids there already" in index(f"memory:/{store}")
    query, page = f"{store}/cats/00.png", tmp_path / "page.html"
    command = ["search", "--gallery", str(tmp_path / "g"), query, "--k", "3", "--html", str(page)]
    assert main(command) == 0
    assert page.read_text().count("data:image/jpeg") == 4
    assert "picture<br>not found" not in page.read_text()


def test_changed_and_gone_files_are_mentioned_and_mended(store: str, index: Callable[..., str]) -> None:
    """What is left out by a pattern is not gone."""
    remote, url = fsspec.filesystem("memory"), f"memory:/{store}"
    index(url)
    assert "gone, which" not in index(url, "--exclude", "dogs")
    remote.pipe(f"{store}/cats/00.png", encoded(200))
    remote.rm(f"{store}/dogs/01.png")
    remote.pipe(f"{store}/dogs/broken.png", b"no image")
    said = index(url)
    assert "1 changed, which --changed encodes again: cats/00.png" in said
    assert "1 gone, which --prune deletes from the gallery: dogs/01.png" in said
    assert "1 deleted from the gallery" in index(url, "--changed", "--prune", "--max-broken", "0.2")
    said = index(url)
    assert "changed, which" not in said
    assert "gone, which" not in said


def test_what_nobody_tells_is_refused_in_one_line(
    store: str, index: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matmamba_datasets import remote

    monkeypatch.setattr(remote, "_STAMPS", ())
    said = index(f"memory:/{store}", "--changed", status=2)
    assert "does not tell when its files were written; upsert encodes them all" in said
    assert said.count("\n") == 1
    index(f"memory:/{store}")
    assert "8 of which no size and time were noted" in index(f"memory:/{store}")
