"""Pushing through the door and through the command: one call, and what it says."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import matmamba_vision as mv
import numpy as np
import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_retrieval.backends import edge
from matmamba_vision.cli import main
from small import unit_vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of thirty images."""
    with Gallery.create(tmp_path / "G", EmbeddingSpec("vectors:toy", "full", 16)) as gallery:
        gallery.add([Row(f"id{n}", f"/p/{n}", "a", {"year": n}) for n in range(30)], unit_vectors(30, 16))
    return tmp_path / "G"


def test_a_gallery_is_pushed_and_compared(folder: Path, tmp_path: Path) -> None:
    told: list[mv.Event] = []
    with mv.open_gallery(folder) as gallery:
        place = f"edge:{tmp_path / 'P'}"
        done = gallery.push(place, dims=[4], progress=told.append)
        assert isinstance(done, mv.Pushed)
        assert (done.images, done.added, done.anew, done.comparison.whole) == (30, 30, True, True)
        assert json.loads(json.dumps(done.to_dict()))["vectors"][1]["name"] == "dim4"
        stages = [event.stage for event in told if isinstance(event, mv.Progress) and event.finished]
        assert stages == ["choosing how to search", "pushing", "building indexes", "comparing"]
        last = [event for event in told if isinstance(event, mv.Progress) and event.stage == "pushing"][-1]
        assert (last.done, last.total) == (30, 30)
        assert gallery.verify_pushed(place) == mv.PushCheck(images=30, counted=30, sampled=30)
        with Gallery(folder, write=True) as writer:
            writer.delete(["id3"])
        gallery.refresh()
        assert (gallery.verify_pushed(place).whole, gallery.verify_pushed(place).deleted) == (True, 1)
        assert gallery.push(place).deleted == 1
    with pytest.raises(mv.MatMambaError, match="closed"):
        gallery.push(place)


@pytest.mark.parametrize(
    ("to", "more", "words"),
    [
        ("P", {}, "'P' is no place for a gallery: give qdrant://host:port/collection"),
        ("http://localhost:6333/a", {}, "is no place for a gallery"),
        ("edge:P", {"target": "knn1=0.9"}, "a push takes no target 'knn1': it can be recall=NUMBER"),
        ("edge:P", {"budget": ["ms=3"]}, "a push takes no budget 'ms': it can be memory_mb=NUMBER"),
        ("edge:P", {"target": "recall=2"}, "recall=2: a share can be above 0, at most 1"),
        ("edge:P", {"target": "recall=0"}, "target recall is 0: it has to be above 0"),
        ("edge:P", {"dims": [99]}, "no prefix has 99 dims"),
        ("qdrant://127.0.0.1:9/photos", {}, "the server cannot be reached"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, to: str, more: dict[str, list[int]], words: str
) -> None:
    monkeypatch.chdir(folder.parent)
    with mv.open_gallery(folder) as gallery, pytest.raises(mv.MatMambaError, match=words) as raised:
        gallery.push(to, **more)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_told_before_it_is_hit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    with mv.open_gallery(folder) as gallery:
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "disk_usage", lambda place: usage._replace(free=edge.ROOM - 1))
            with pytest.raises(mv.MatMambaError, match=r"the disk of edge:.* is full: 256 MiB are left"):
                gallery.push(f"edge:{tmp_path / 'P'}")
        assert gallery.push(f"edge:{tmp_path / 'P'}").images == 30


def test_the_command_says_what_is_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gallery", "push", str(folder), "--to", f"edge:{tmp_path / 'P'}"]
    assert main([*command, "--dims", "4"]) == 0
    said = capsys.readouterr().out
    assert "30 images; 30 put in, 0 taken out, in a new collection" in said
    assert "dim4: 4 dims, flat, memory" in said
    assert main([*command, "--verify-only"]) == 0
    assert "30 images, as pushed; 30 compared" in capsys.readouterr().out
    with edge_collection(tmp_path / "P") as store:
        current = store.current()
        assert current is not None
        current.delete(np.array([4]))
    assert main([*command, "--verify-only", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["faults"][0] == "it has 29 points for 30 images"
    assert main([*command, "--replace", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparison"]["counted"] == 30
    assert main(["gallery", "push", str(folder), "--to", "edge:"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def edge_collection(folder: Path) -> closing[edge.EdgeStore]:
    """Open, to be meddled with."""
    return closing(edge.EdgeStore(folder, write=True))
