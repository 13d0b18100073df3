"""Digits, folders, Parquet: stable ids, fixed splits, errors by name."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listing import make_photos
from matmamba_common.errors import ConfigError
from matmamba_datasets import (
    BrokenImageError,
    DataConfig,
    DataError,
    Images,
    Splits,
    StoredImages,
    TableReading,
    open_images,
    open_splits,
    open_training_images,
)
from matmamba_datasets.folder import Folder
from matmamba_datasets.listing import Listing, left_beside
from matmamba_datasets.parquet import Parquet
from PIL import Image
from real_trees import encoded


def require_partition(splits: Splits, ids: set[str]) -> None:
    train, held_out = set(splits.train.ids), set(splits.held_out.ids)
    assert train | held_out == ids
    assert not train & held_out


def require_consistent(images: Images) -> None:
    assert len(images) == len(images.ids) == len(images.labels) == len(images.paths) == len(set(images.ids))
    for index in (0, len(images) - 1):
        sample = images[index]
        assert (sample.id, sample.label) == (images.ids[index], images.labels[index])
        assert sample.image.mode == "RGB"


def test_digits_are_all_there() -> None:
    splits = open_splits(DataConfig(name="digits"))
    require_partition(splits, {f"digits/{index:04d}" for index in range(1797)})
    for part in (splits.train, splits.held_out):
        require_consistent(part)
        assert set(part.labels) == set(range(10))
    shares = np.bincount(splits.held_out.labels) / np.bincount(
        [*splits.train.labels, *splits.held_out.labels]
    )
    assert np.abs(shares - 0.2).max() < 0.01


def test_a_folder_is_split_the_same_way_each_time(photos: Path) -> None:
    config = DataConfig(name="folder", root=str(photos))
    splits, again = open_splits(config), open_splits(config)
    assert splits.held_out.ids == again.held_out.ids
    assert splits.train.classes == ("bright", "dark")
    require_partition(splits, {file.relative_to(photos).as_posix() for file in photos.rglob("*.*")})
    for part in (splits.train, splits.held_out):
        require_consistent(part)
        names = [part.classes[label] for label in part.labels]
        assert names == [image_id.split("/")[0] for image_id in part.ids]


def test_a_new_image_moves_few_others(photos: Path) -> None:
    config = DataConfig(name="folder", root=str(photos))
    before = set(open_splits(config).held_out.ids)
    Image.new("RGB", (9, 9)).save(photos / "dark" / "new.png")
    assert len(before ^ set(open_splits(config).held_out.ids)) <= 2


def test_given_splits_are_kept(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "given"
    photos.rename(root)
    for part in ("train", "val"):
        for name in ("dark", "bright"):
            (root / part / name).mkdir(parents=True)
    for file in [*root.glob("dark/*"), *root.glob("bright/*")]:
        part = "val" if file.stem in ("00", "01") else "train"
        file.rename(root / part / file.parent.name / file.name)
    splits = open_splits(DataConfig(name="folder", root=str(root)))
    assert list(splits.held_out.ids) == ["bright/01.jpg", "dark/00.jpg"]
    assert splits.held_out.classes == splits.train.classes
    assert splits.held_out[1].label == splits.train.classes.index("dark")
    (root / "val" / "dark" / "00.jpg").rename(root / "val" / "bright" / "00.jpg")
    assert splits.unmeasured == ""
    lacking = open_splits(DataConfig(name="folder", root=str(root)))
    assert lacking.unmeasured == "no held-out images of the class dark"
    assert lacking.train.classes == lacking.held_out.classes
    (root / "val" / "dark").rename(root / "val" / "unknown")
    (root / "val" / "bright" / "00.jpg").rename(root / "val" / "unknown" / "00.jpg")
    with pytest.raises(DataError, match="unknown"):
        open_splits(DataConfig(name="folder", root=str(root)))


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_is_named(photos: Path) -> None:
    name = photos / "dark" / os.fsdecode(b"lat\xe9in.png")
    name.write_bytes(b"")
    images = Folder(photos)
    assert len(images) == 24
    assert images.left_out == {str(name): "its name is not UTF-8: rename it"}


def test_a_folder_to_index_needs_no_classes(photos: Path) -> None:
    (photos / ".hidden.jpg").write_bytes(b"")
    (photos / "Thumbs.db").write_bytes(b"")
    (photos / "dark" / "00.jpg").rename(photos / "loose.jpg")
    images = open_images(photos)
    assert len(images) == 24
    assert images[images.ids.index("loose.jpg")].label == -1
    assert Path(images.paths[0]).is_absolute()


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    root = tmp_path / "parquet"
    root.mkdir()
    for name, count in (("train-0", 6), ("train-1", 5), ("test-0", 4)):
        rows = []
        for number in range(count):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(buffer, "PNG")
            rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": number % 3})
        pq.write_table(pa.Table.from_pylist(rows), root / f"{name}.parquet")
    (root / "classes.json").write_text(json.dumps({"names": ["cat", "dog", "fish"]}))
    return root


def test_parquet_keeps_its_splits_and_names(parquet: Path) -> None:
    splits = open_splits(DataConfig(name="parquet", root=str(parquet)))
    assert (len(splits.train), len(splits.held_out)) == (11, 4)
    assert splits.train.classes == ("cat", "dog", "fish")
    require_consistent(splits.train)
    assert splits.train.ids[6] == "train-1.parquet#0"
    assert splits.train[8].image.getpixel((0, 0)) == (40, 0, 0)
    assert len(open_images(parquet)) == 15
    assert len(open_images(parquet / "test-0.parquet")) == 4


def test_parquet_beyond_memory_is_read_by_row_groups(parquet: Path) -> None:
    """The same images; those that were not read lately are not kept, and lie in groups."""
    files = sorted(parquet.glob("*.parquet"))
    for file in files:
        pq.write_table(pq.read_table(file), file, row_group_size=2)
    whole, part = Parquet(files), Parquet(files, memory=200)
    assert whole.groups == (15,)
    assert part.groups == [2, 2, 2, 2, 2, 2, 2, 1]
    assert part.ids == whole.ids
    for index in np.random.default_rng(0).permutation(15).tolist():
        assert part.stored(index) == whole.stored(index)
        assert len(part._kept) <= 2
    assert len(whole._kept) == 8


@pytest.mark.parametrize("name", ["heldout", "held_out", "held-out", "val", "validation"])
def test_parts_are_known_by_name(parquet: Path, photos: Path, tmp_path: Path, name: str) -> None:
    """Of files, of folders with files in them, and of folders with classes."""
    (parquet / "test-0.parquet").rename(parquet / f"{name}-0.parquet")
    splits = open_splits(DataConfig(name="parquet", root=str(parquet)))
    assert (len(splits.train), len(splits.held_out)) == (11, 4)
    assert all(path.startswith(f"{parquet / name}-0.parquet#") for path in splits.held_out.paths)
    assert len(open_training_images(parquet)) == 11
    (tmp_path / "parts").mkdir()
    photos.rename(tmp_path / "parts" / "train")
    shutil.copytree(tmp_path / "parts" / "train", tmp_path / "parts" / name)
    splits = open_splits(DataConfig(name="folder", root=str(tmp_path / "parts")))
    assert splits.train.classes == ("bright", "dark")
    assert len(splits.train) == len(splits.held_out) == 24
    assert len(open_training_images(tmp_path / "parts")) == len(open_images(tmp_path / "parts" / "train"))


def test_a_class_without_held_out_rows_is_trained_on(parquet: Path) -> None:
    few = [{"image": {"bytes": encoded(1), "path": None}, "label": 0}]
    (parquet / "test-0.parquet").unlink()
    pq.write_table(pa.Table.from_pylist(few), parquet / "heldout-0.parquet")
    splits = open_splits(DataConfig(name="parquet", root=str(parquet)))
    assert len(splits.held_out) == 1
    assert set(splits.train.labels) == {0, 1, 2}
    assert splits.unmeasured == f"no held-out images of the class {', '.join(splits.train.classes[1:])}"


def test_parquet_without_splits_is_split_by_id(parquet: Path) -> None:
    (parquet / "test-0.parquet").unlink()
    splits = open_splits(DataConfig(name="parquet", root=str(parquet), held_out=0.3))
    assert len(splits.train) + len(splits.held_out) == 11
    assert set(splits.held_out.labels) == {0, 1, 2}


def test_a_broken_row_is_named(parquet: Path) -> None:
    row = {"image": {"bytes": b"no", "path": None}, "label": 0}
    pq.write_table(pa.Table.from_pylist([row]), parquet / "train-2.parquet")
    images = open_images(parquet / "train-2.parquet")
    with pytest.raises(BrokenImageError, match=r"train-2\.parquet#0"):
        images[0]


def test_what_is_wrong_is_named(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "other.parquet")
    wrong = [
        (DataConfig(name="mnist"), "'mnist'.*digits, folder, imagenet, shards, parquet, cifar10, cifar100"),
        (DataConfig(name="folder"), "data.root"),
        (DataConfig(name="folder", root=str(tmp_path / "none")), "none"),
        (DataConfig(name="folder", root=str(tmp_path / "empty")), "empty"),
        (DataConfig(name="folder", root=str(photos / "dark")), "dark.*two or more classes"),
        (DataConfig(name="parquet", root=str(tmp_path / "none")), "none"),
        (DataConfig(name="parquet", root=str(tmp_path / "empty")), "empty"),
        (DataConfig(name="parquet", root=str(tmp_path / "bad.parquet")), "bad.parquet"),
        (DataConfig(name="parquet", root=str(tmp_path / "other.parquet")), "other.parquet.*image"),
    ]
    for config, message in wrong:
        with pytest.raises(DataError, match=message):
            open_splits(config)
    with pytest.raises(ConfigError, match=r"data\.held_out is 1\.5: it can be above 0 to below 1"):
        open_splits(DataConfig(name="digits", held_out=1.5))


def test_a_training_folder_alone_is_split(photos: Path, tmp_path: Path) -> None:
    """PHOTOS/train/ without PHOTOS/val/ is PHOTOS/ with the classes."""
    (tmp_path / "whole").mkdir()
    photos.rename(tmp_path / "whole" / "train")
    splits = open_splits(DataConfig(name="folder", root=str(tmp_path / "whole")))
    assert splits.train.classes == ("bright", "dark")
    assert (len(splits.train), len(splits.held_out)) == (20, 4)


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    """Also where a folder's name is the beginning of another name."""
    names = ["a/x", "a-b/x", "a.png", "a/b/c", "a0/x", "b", "a/.hidden/x", ".x", "a/Thumbs.db", "ab"]
    for name in names:
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root" / "a")
    found = list(Listing(tmp_path / "root").images)
    assert found == sorted(
        name for name in names if "/." not in name and name[0] != "." and "Thumbs" not in name
    )


def test_listing_a_folder_takes_little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside the letters of the paths, 48 bytes for each image at most."""
    count, letters = 50_000, len("class/0000000.jpg")
    names = (f"class/{number:07d}.jpg" for number in range(count))
    runs = (list(islice(names, 500)) for _ in range(count // 500))
    monkeypatch.setattr("matmamba_datasets.listing.walk", lambda listing: runs)
    tracemalloc.start()
    images = Folder(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(images) == count
    assert peak < (letters + 48) * count


def test_a_column_that_was_asked_for_is_found_again(tmp_path: Path) -> None:
    """Beside the one that is found without asking, under ids of its own."""
    rows = [
        {name: {"bytes": encoded(level + row), "path": None} for name, level in (("image", 0), ("mask", 20))}
        for row in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    usual, masks = (open_images(tmp_path, TableReading(image_column=name)) for name in ("image", "mask"))
    assert list(usual.ids) == list(open_images(tmp_path).ids) == ["x.parquet#0", "x.parquet#1", "x.parquet#2"]
    assert not {*usual.ids} & {*masks.ids}
    for images in (usual, masks):
        again = StoredImages(images.ids, images.paths)
        assert [again.stored(row) for row in range(3)] == [images.stored(row) for row in range(3)]
    assert usual.stored(0) != masks.stored(0)
    with pytest.raises(DataError, match="image_column 'none' is no column of images: it has image"):
        open_images(tmp_path, TableReading(image_column="none"))


def test_suffixes_are_judged_alike_wherever_they_come(tmp_path: Path) -> None:
    """Whatever was seen before: hidden ones, capitals, archives, names that are known without a suffix."""
    names = [".x.tar", "a.tar", "b.TAR", ".y.jpg", "c.jpg", "d.JPG", "e.Xmp", "f.xmp", "README", "g", "h."]
    names += ["i.0001"]
    for order in (names, names[::-1]):
        root = tmp_path / str(order is names)
        for place, name in enumerate(order):
            (root / f"{place:02d}").mkdir(parents=True)
            (root / f"{place:02d}" / name).touch()
        listing = Listing(root)
        assert {Path(name).name for name in listing.images} == {"c.jpg", "d.JPG", "g", "h.", "i.0001"}
        assert {Path(name).name for name in listing.shards} == {"a.tar", "b.TAR"}
        assert len(listing.images) + len(listing.left_out) == len(names)


class _Entry:
    """An entry of a file system that is asked for the kind of each, and fails for one."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self._entry = entry.name, entry

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        self._ask()
        return self._entry.is_file(follow_symlinks=follow_symlinks)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        self._ask()
        return self._entry.is_dir(follow_symlinks=follow_symlinks)

    def _ask(self) -> None:
        if self.name == "05.png":
            raise OSError(errno.ESTALE, "Stale file handle")


def test_an_entry_of_unknown_kind_stands_for_itself(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kind of one cannot be found out, the others of its folder are read all the same."""
    (photos / "05.png").touch()
    found = os.scandir

    @contextmanager
    def scandir(folder: str | Path) -> Iterator[Iterator[_Entry]]:
        with found(folder) as entries:
            yield (_Entry(entry) for entry in entries)

    monkeypatch.setattr(os, "scandir", scandir)
    listing, beside = Listing(photos), left_beside(photos, [photos / "dark", photos / "bright"])
    assert len(listing.images) == 23
    stale = {str(photos / name): "cannot be read: stale file handle" for name in ("05.png", "bright/05.png")}
    assert listing.left_out == stale
    assert [Path(name).name for name in beside] == ["05.png"]


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Photos and their sidecars. How long that takes beside `find` is recorded, and not judged."""
    make_photos(tmp_path, 100_000)
    ratios = []
    for _ in range(11):
        start = time.perf_counter()
        subprocess.run(["find", str(tmp_path), "-type", "f"], stdout=subprocess.DEVNULL, check=True)
        middle = time.perf_counter()
        listing = Listing(tmp_path)
        ratios.append((time.perf_counter() - middle) / (middle - start))
        assert len(listing.images) == len(listing.left_out) == 50_000
    record_property("times_of_find", round(float(np.median(ratios)), 2))
    print(f"{np.median(ratios):.2f} times the time of find")
