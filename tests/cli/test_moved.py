"""Files that moved, changed or went, and other spellings of their paths."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matmamba_retrieval import Gallery
from matmamba_retrieval.gallery.image_files import LocalFiles, compare
from matmamba_retrieval.storage.sources import facts_of
from matmamba_vision import save_checkpoint
from matmamba_vision.cli.main import main
from real_trees import encoded, photos
from small import create


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., int]:
    """Index eight photos in `place`, or what is given, with a model of random weights."""
    torch.manual_seed(0)
    overlay = {"input_size": (3, 16, 16)}
    model = create("matmamba_nano_patch4_32", img_size=16, num_classes=2, pretrained_cfg_overlay=overlay)
    save_checkpoint(tmp_path / "model", model.eval(), ("cats", "dogs"))
    photos(tmp_path / "place")

    def run(place: Path | str = tmp_path / "place", *more: str) -> int:
        known = ["--checkpoint", str(tmp_path / "model"), "--gallery", str(tmp_path / "g")]
        # What is written in the tick of the clock in which it is read counts as changed.
        time.sleep(0.02)
        return main(["index", "--images", str(place), *known, *more])

    return run


def vector_of(folder: Path, image_id: str) -> np.ndarray:
    with Gallery(folder) as gallery:
        return gallery.segments.read(np.array([gallery.keys_of([image_id])[image_id]]))[0]


def test_other_spellings_of_a_path_are_the_same_files(
    index: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index() == 0
    (tmp_path / "linked").symlink_to(tmp_path / "place")
    (tmp_path / "deep").mkdir()
    for place in (f"{tmp_path}/deep/../place", tmp_path / "linked", os.path.relpath(tmp_path / "place")):
        assert index(place) == 0
        assert "8 ids there already" in capsys.readouterr().out
    shutil.copytree(tmp_path / "place", tmp_path / "copy")
    assert index(tmp_path / "copy") == 2
    assert "gallery relocate" in capsys.readouterr().err


def test_moved_files_are_found_without_encoding(
    index: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index() == 0
    (tmp_path / "place").rename(tmp_path / "moved")
    relocate = ["gallery", "relocate", str(tmp_path / "g"), str(tmp_path / "place")]
    assert main([*relocate, str(tmp_path / "nowhere")]) == 2
    assert main(["gallery", "relocate", str(tmp_path / "g"), "/none", str(tmp_path / "moved")]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    (tmp_path / "moved" / "cats" / "00.png").unlink()
    assert main([*relocate, str(tmp_path / "moved")]) == 0
    assert "8 paths changed; 1 of their files are not there" in capsys.readouterr().out
    assert index(tmp_path / "moved") == 0
    said = capsys.readouterr().out
    assert "7 ids there already" in said
    assert "1 gone, which --prune deletes from the gallery: cats/00.png" in said
    assert " changed, " not in said
    assert main(["gallery", "verify", str(tmp_path / "g")]) == 0


def test_changed_and_gone_files_are_mentioned_and_mended(
    index: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index() == 0
    before = {name: vector_of(tmp_path / "g", name) for name in ("dogs/00.png", "dogs/01.png")}
    (tmp_path / "place" / "dogs" / "00.png").write_bytes(encoded(999))
    (tmp_path / "place" / "cats" / "03.png").unlink()
    capsys.readouterr()
    for _ in range(2):
        assert index() == 0
        said = capsys.readouterr().out
        assert "1 changed, which --changed encodes again: dogs/00.png" in said
        assert "1 gone, which --prune deletes from the gallery: cats/03.png" in said
    assert index(tmp_path / "place", "--changed", "--prune") == 0
    said = capsys.readouterr().out
    assert "1 image added, 7 in all" in said
    assert "1 deleted from the gallery, whose files are gone" in said
    assert index() == 0
    assert " changed, " not in capsys.readouterr().out
    assert not np.array_equal(vector_of(tmp_path / "g", "dogs/00.png"), before["dogs/00.png"])
    assert np.array_equal(vector_of(tmp_path / "g", "dogs/01.png"), before["dogs/01.png"])


def test_what_is_not_known_is_said_to_be_unknown(
    index: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a gallery that was made before sizes were noted; and elsewhere nothing is looked at."""
    assert index() == 0
    with Gallery(tmp_path / "g", write=True) as gallery:
        gallery.catalog.run("DELETE FROM sources")
    (tmp_path / "place" / "dogs" / "00.png").write_bytes(encoded(999))
    capsys.readouterr()
    assert index() == 0
    said = capsys.readouterr().out
    assert "8 of which no size and time were noted: unknown whether they changed" in said
    with Gallery(tmp_path / "g") as gallery:
        assert compare(gallery, LocalFiles([str(tmp_path / "pla")])).unknown == 0


def test_a_file_that_is_written_while_it_is_read_counts_as_changed(tmp_path: Path) -> None:
    start = time.time_ns()
    (tmp_path / "x").write_bytes(b"1")
    os.utime(tmp_path / "x", ns=(0, 0))
    during, after = facts_of(str(tmp_path / "x"), start - 10**9), facts_of(f"{tmp_path}/x", start + 10**10)
    assert during is not None
    assert during.modified == -1
    assert after is not None
    assert (after.size, after.modified) == (1, 0)
