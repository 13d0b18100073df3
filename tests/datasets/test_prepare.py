"""Shards are made of any data set, and a run that was killed anywhere is continued to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_datasets import DataConfig, DataError, open_splits
from matmamba_datasets.packing import shard_keys
from matmamba_datasets.prepare import Preparation, PrepareSettings
from PIL import Image

Prepare = Callable[..., Preparation]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


def test_files_are_copied_byte_for_byte(photos: Path, prepare: Prepare) -> None:
    """With their splits, labels and keys, and with counts and checksums that are right."""
    output = prepare().output
    given = open_splits(DataConfig(name="folder", root=str(photos)))
    made = open_splits(DataConfig(name="shards", root=str(output)))
    for before, after in ((given.train, made.train), (given.held_out, made.held_out)):
        labels = {before.ids[index].rsplit(".")[0]: int(before.labels[index]) for index in range(len(before))}
        files = {before.ids[index].rsplit(".")[0]: before.stored(index) for index in range(len(before))}
        assert {after.ids[index]: int(after.labels[index]) for index in range(len(after))} == labels
        assert {after.ids[index]: after.stored(index) for index in range(len(after))} == files
    assert made.train.classes == ("bright", "dark")
    index = json.loads((output / "index.json").read_text())
    assert len(index["splits"]["train"]) >= 3
    for row in [*index["splits"]["train"], *index["splits"]["val"]]:
        file = (output / row["file"]).read_bytes()
        assert (len(file), hashlib.sha256(file).hexdigest()) == (row["bytes"], row["sha256"])
    assert sum(row["images"] for row in index["splits"]["train"]) == len(given.train)
    assert not (output / ".unfinished").exists()


def test_any_tar_program_and_the_headers_alone_read_the_shards(sharded: Path) -> None:
    made = open_splits(DataConfig(name="shards", root=str(sharded)))
    (sharded / "index.json").unlink()
    scanned = open_splits(DataConfig(name="shards", root=str(sharded)))
    assert scanned.train.ids == made.train.ids
    assert [scanned.train.stored(index) for index in range(len(made.train))] == [
        made.train.stored(index) for index in range(len(made.train))
    ]
    with tarfile.open(sharded / "val-000000.tar") as tar:
        names = tar.getnames()
    assert all(label.endswith(".cls") for label in names[::2])
    assert [Path(name).with_suffix("") for name in names[::2]] == [
        Path(name).with_suffix("") for name in names[1::2]
    ]


def test_workers_change_nothing(prepare: Prepare) -> None:
    assert contents(prepare("one").output) == contents(prepare("two", workers=2).output)


def run_until_killed(prepare: Prepare, output: str, event: int) -> bool:
    """Prepare in a process that kills itself at that event; whether it was killed before it was done."""
    child = os.fork()
    if child == 0:
        seen = 0

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*arguments: Any, **more: Any) -> Any:
                nonlocal seen
                result = None
                for step in (lambda: None, lambda: call(*arguments, **more)):
                    result = step()
                    seen += 1
                    if seen == event:
                        os.kill(os.getpid(), signal.SIGKILL)
                return result

            return counting

        Path.replace = counted(Path.replace)  # type: ignore[method-assign]
        tarfile.TarFile.addfile = counted(tarfile.TarFile.addfile)  # type: ignore[method-assign]
        status = 1
        try:
            prepare(output)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def test_a_killed_run_is_continued_to_the_same_bytes(prepare: Prepare, photos: Path) -> None:
    """Killed before and after members are written, files renamed and notes left; also time and again."""
    (photos / "dark" / "04.jpg").write_bytes(b"no image")
    unbroken = contents(prepare("unbroken").output)
    event, killed = 1, 0
    while run_until_killed(prepare, f"killed-{event}", event):
        assert contents(prepare(f"killed-{event}").output) == unbroken, event
        event, killed = event + 11, killed + 1
    assert killed >= 8
    # A shard or two at a time.
    times = sum(run_until_killed(prepare, "again", 60) for _ in range(10))
    assert 2 <= times < 10
    assert contents(prepare("again").output) == unbroken


def test_a_complete_run_does_nothing(prepare: Prepare) -> None:
    first = prepare()
    before = {file: file.stat().st_mtime_ns for file in first.output.iterdir()}
    again = prepare()
    assert (first.remaining, again.remaining) == (24, 0)
    assert {file: file.stat().st_mtime_ns for file in again.output.iterdir()} == before


def test_other_settings_or_images_are_refused(prepare: Prepare, photos: Path, tmp_path: Path) -> None:
    output = prepare().output
    before = contents(output)
    with pytest.raises(DataError, match=r"shard_mb was 0\.015, now 1; max_size was 0, now 16$"):
        prepare(shard_mb=1, max_size=16)
    assert run_until_killed(prepare, "cut", 40)
    Image.new("RGB", (9, 9)).save(photos / "dark" / "new.png")
    for name in ("shards", "cut"):
        with pytest.raises(DataError, match=r"train images was \d\d \(\w+\), now \d\d \(\w+\)"):
            prepare(name)
    assert contents(output) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="mine holds something else"):
        prepare("mine")
    assert contents(tmp_path / "mine") == {"letter.txt": b"dear"}


def test_broken_images_are_left_out_and_listed(prepare: Prepare, photos: Path) -> None:
    train = open_splits(DataConfig(name="folder", root=str(photos))).train
    for path in train.paths[:4]:
        Path(path).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)max_broken.*not an image file"):
        prepare(max_broken=0.1)
    preparation = prepare(max_broken=0.3)
    assert preparation.broken == dict.fromkeys(train.paths[:4], "not an image file")
    assert json.loads((preparation.output / "index.json").read_text())["broken"] == preparation.broken
    made = open_splits(DataConfig(name="shards", root=str(preparation.output)))
    assert len(made.train) == len(train) - 4
    for path in train.paths:
        Path(path).write_bytes(b"no image")
    with pytest.raises(DataError, match="no train image can be read"):
        prepare("none", max_broken=1.0)


def test_large_images_are_made_smaller(prepare: Prepare, photos: Path) -> None:
    """Others keep their bytes. The photos are 31 pixels wide and 20 to 43 high."""
    made = open_splits(DataConfig(name="shards", root=str(prepare(max_size=32).output))).train
    given = open_splits(DataConfig(name="folder", root=str(photos))).train
    before = {given.ids[index].rsplit(".")[0]: index for index in range(len(given))}
    shrunk = 0
    for index in range(len(made)):
        old, new = given[before[made.ids[index]]].image, made[index].image
        if max(old.size) <= 32:
            assert made.stored(index) == given.stored(before[made.ids[index]])
        else:
            shrunk += 1
            assert max(new.size) == 32
            assert abs(new.width / new.height - old.width / old.height) < 0.05
            assert np.abs(np.asarray(new).mean() - np.asarray(old).mean()) < 10
    assert 3 < shrunk < len(made)


def test_pixels_become_pngs(tmp_path: Path) -> None:
    splits = open_splits(DataConfig(name="digits"))
    Preparation(splits, PrepareSettings("digits", "", 0.2), tmp_path / "shards").run(0, lambda images: None)
    made = open_splits(DataConfig(name="shards", root=str(tmp_path / "shards")))
    assert len(made.train) == len(splits.train)
    position = {image_id: index for index, image_id in enumerate(splits.train.ids)}
    for index in range(0, len(made.train), 200):
        original = splits.train[position[made.train.ids[index]]]
        assert np.array_equal(np.asarray(made.train[index].image), np.asarray(original.image))
        assert made.train[index].label == original.label


def test_a_class_that_was_not_held_out_needs_no_held_out_image(photos: Path, prepare: Prepare) -> None:
    """The split by id holds out none of a class with one image; shards of it are opened nevertheless."""
    (photos / "lone").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "lone" / "x.png")
    made = open_splits(DataConfig(name="shards", root=str(prepare().output)))
    assert 2 in made.train.labels
    assert 2 not in made.held_out.labels


def test_keys_have_no_dots_and_are_unique() -> None:
    ids = ["a/x.jpg", "a/x.png", "a/v1.2.JPEG", "train-0.parquet#3", "b.c/.jpg", "plain", "a/x_"]
    assert list(shard_keys(ids)) == ["a/x", "a/x_", "a/v1_2", "train-0_parquet#3", "b.c/_", "plain", "a/x__"]
