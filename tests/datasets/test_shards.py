"""Shards: from here or from a URL, with an index or without, and what is wrong with them by name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
from matmamba_datasets import (
    DataConfig,
    DataError,
    Splits,
    eval_transform,
    make_loader,
    open_images,
    open_splits,
)
from matmamba_datasets.prepare import Preparation
from matmamba_datasets.remote import expand
from PIL import Image


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(file: Path, members: dict[str, bytes]) -> None:
    """A tar file as others write them."""
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Shards that were written elsewhere: no index, labels as integers or in JSON."""
    root = tmp_path / "foreign"
    root.mkdir()
    for number in range(3):
        first, second = 2 * number, 2 * number + 1
        write_tar(
            root / f"train-{number:02d}.tar",
            {
                f"{first:03d}.png": png(first),
                f"{first:03d}.cls": b"0\n",
                f"a/{second:03d}.json": json.dumps({"label": 1, "more": "x"}).encode(),
                f"a/{second:03d}.png": png(second),
                "readme.txt": b"",
            },
        )
    val = {"x.png": png(100), "x.cls": b"1", "y.PNG": png(101), "y.cls": b"0"}
    write_tar(root / "val-00.tar", val)
    return root


def open_shards(root: object, **settings: object) -> Splits:
    return open_splits(DataConfig(name="shards", root=str(root), **settings))  # type: ignore[arg-type]


def red(image: Image.Image) -> int:
    """Of its first pixel."""
    return int(np.asarray(image)[0, 0, 0])


def levels(splits: Splits) -> dict[str, int]:
    """The red of each training image by its id."""
    return {splits.train[index].id: red(splits.train[index].image) for index in range(len(splits.train))}


EXPECTED = {"000": 0, "a/001": 1, "002": 2, "a/003": 3, "004": 4, "a/005": 5}


def test_shards_of_others_are_read(foreign: Path) -> None:
    splits = open_shards(foreign)
    assert levels(splits) == EXPECTED
    assert splits.train.labels.tolist() == [0, 1] * 3
    assert splits.train.groups == [2, 2, 2]
    assert list(splits.held_out.ids) == ["x", "y"]
    assert splits.train.paths[3] == f"{foreign}/train-01.tar#a/003"
    (foreign / "classes.json").write_text('["cat", "dog"]')
    assert open_shards(foreign).train.classes == ("cat", "dog")


def test_patterns_choose_shards(foreign: Path) -> None:
    all_of_them = open_shards(f"{foreign}/{{train-{{00..02}},val-00}}.tar")
    assert levels(all_of_them) == EXPECTED
    assert list(all_of_them.held_out.ids) == ["x", "y"]
    some = open_shards(f"{foreign}/train-{{01..02}}.tar", held_out=0.5)
    assert {*some.train.ids, *some.held_out.ids} == {"002", "a/003", "004", "a/005"}
    assert some.ours
    assert len(open_images(f"{foreign}/train-*.tar")) == 6
    assert len(open_images(foreign)) == 8
    assert expand("s3://b/{a,b}-{08..11}.tar")[1:3] == ["s3://b/a-09.tar", "s3://b/a-10.tar"]
    with pytest.raises(DataError, match=r"train-03\.tar"):
        open_shards(f"{foreign}/train-{{00..07}}.tar")
    with pytest.raises(DataError, match="no shards"):
        open_shards(f"{foreign}/test-*.tar")


def test_keys_that_shards_share_are_told_apart(foreign: Path) -> None:
    for number in (0, 1):
        write_tar(foreign / f"train-0{number}.tar", {"000.png": png(number), "000.cls": str(number).encode()})
    train = open_shards(foreign).train
    assert list(train.ids) == ["train-00/000", "train-01/000", "train-02/004", "train-02/a/005"]
    assert red(train[1].image) == 1


@pytest.mark.parametrize("scheme", ["memory", "file"])
@pytest.mark.parametrize("kind", ["foreign", "sharded"])
def test_remote_shards_are_those_of_the_folder(
    scheme: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, cache = request.getfixturevalue(kind), tmp_path / "cache"
    url = f"file://{folder}"
    if scheme == "memory":
        url = f"memory://{tmp_path.name}/{kind}"
        fsspec.filesystem("memory").put(f"{folder}/*", f"/{tmp_path.name}/{kind}/")
    here, there = open_shards(folder), open_shards(url, cache=str(cache))
    indexed = kind == "sharded"
    assert not (indexed and cache.exists()), "an index spares reading the shards"
    for a, b in ((here.train, there.train), (here.held_out, there.held_out)):
        assert (a.ids, a.classes, list(a.groups)) == (b.ids, b.classes, list(b.groups))
        for index in range(len(a)):
            assert np.array_equal(np.asarray(a[index].image), np.asarray(b[index].image))
    copies = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert len(copies) == len(list(folder.glob("*.tar")))
    again = make_loader(there.train, eval_transform({"input_size": (3, 8, 8)}), 3, workers=1)
    assert sum(map(len, again)) == len(here.train)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == copies


def test_a_shard_that_cannot_be_fetched_is_broken_images(sharded: Path, tmp_path: Path) -> None:
    """In a worker, too; what can be fetched is read."""
    remote = fsspec.filesystem("memory")
    remote.put(f"{sharded}/*", f"/{tmp_path.name}/")
    train = open_shards(f"memory://{tmp_path.name}", cache=str(tmp_path / "cache")).train
    remote.rm(f"/{tmp_path.name}/train-000001.tar")
    batches = list(make_loader(train, eval_transform({"input_size": (3, 8, 8)}), 4, workers=1))
    broken = [error for batch in batches for error in batch.broken]
    assert len(broken) == train.groups[1]
    assert all("train-000001.tar#" in error.name and "cannot fetch" in error.reason for error in broken)


def test_copies_of_shards_that_were_made_anew_are_not_used(
    sharded: Path, prepare: Callable[..., Preparation], tmp_path: Path
) -> None:
    remote, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    for folder in (sharded, prepare("small", max_size=16).output):
        remote.put(f"{folder}/*", f"/{tmp_path.name}/")
        splits = open_shards(url, cache=str(tmp_path / "cache"))
        stored = splits.train.stored(0)
        assert stored == open_shards(folder).train.stored(0)


def test_a_url_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    for place in ("memory://nowhere/train-{0..1}.tar", "memory://nowhere/at-all", "nosuch://x/*.tar"):
        with pytest.raises(DataError, match=place.split("/")[2] if "nosuch" not in place else "nosuch"):
            open_shards(place, cache=str(tmp_path))


def test_a_truncated_shard_is_named(foreign: Path, sharded: Path) -> None:
    """Wherever it is cut: in an image, in a header, or between two members."""
    for folder in (foreign, sharded):
        shard = folder / f"{min(file.stem for file in folder.glob('train-*.tar'))}.tar"
        whole = shard.read_bytes()
        for length in (0, 100, 600, 1024, 1536, 2048, 3072):
            shard.write_bytes(whole[:length])
            with pytest.raises(DataError, match=shard.name):
                open_shards(folder)


def test_a_shard_that_is_cut_later_is_a_broken_image(foreign: Path) -> None:
    images = open_images(foreign)
    for file in foreign.glob("*.tar"):
        file.write_bytes(file.read_bytes()[:600])
    (batch,) = make_loader(images, eval_transform({"input_size": (3, 8, 8)}), 8)
    assert len(batch.broken) == 4
    assert all("the shard is truncated" in str(error) for error in batch.broken)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.png": b"", "a.cls": b"cat"}, ".cls holds no integer label, nor the name of a class"),
        ({"a.png": b"", "a.json": b"[1]"}, ".json holds no integer label, nor the name of a class"),
        ({"a.txt": b"hello"}, "a sample without an image (txt)"),
        ({}, "an archive without images"),
    ],
)
def test_a_shard_without_images_is_named(foreign: Path, members: dict[str, bytes], reason: str) -> None:
    """Beside others; alone it is an error."""
    write_tar(foreign / "train-02.tar", members)
    splits = open_shards(foreign)
    assert (len(splits.train), len(splits.held_out)) == (4, 2)
    name = str(foreign / "train-02.tar") + ("#a" if members else "")
    assert splits.left_out[name] == reason
    with pytest.raises(DataError, match=r"no images in .*train-02\.tar"):
        open_images(foreign / "train-02.tar")


def test_a_class_of_the_training_shards_alone_is_named(foreign: Path) -> None:
    write_tar(foreign / "train-02.tar", {"a.png": b"", "a.cls": b"2"})
    splits = open_shards(foreign)
    assert splits.unmeasured == "no held-out images of the class 2"
    assert len(splits.held_out) == 2


def damage_index(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        index = json.loads((root / "index.json").read_text())
        change(index)
        (root / "index.json").write_text(json.dumps(index))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "index.json").write_text("{"),
        lambda root: (root / "train.npz").write_bytes((root / "train.npz").read_bytes()[:100]),
        lambda root: (root / "train.npz").unlink(),
        damage_index(lambda index: index.update(format=99)),
        damage_index(lambda index: index.pop("splits")),
    ],
)
def test_a_damaged_index_is_named(sharded: Path, damage: Callable[[Path], object]) -> None:
    damage(sharded)
    with pytest.raises(DataError, match=r"index\.json"):
        open_shards(sharded)
