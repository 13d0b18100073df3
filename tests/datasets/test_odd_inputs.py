"""Odd files, names and labels as people have them: each is read, or named, and nothing waits for ever."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matmamba_datasets import (
    BrokenImageError,
    DataConfig,
    DataError,
    Images,
    JoinedImages,
    StoredImages,
    TableReading,
    open_images,
    open_splits,
    open_training_images,
    read_image,
)
from matmamba_datasets.classes import listed_names
from matmamba_datasets.parquet import Parquet
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_retrieval.storage.sources import file_of
from PIL import Image
from real_trees import encoded, photos, write_tar


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """What takes longer is stopped."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_table(file: Path, names: object = None, **columns: object) -> None:
    """A Parquet file. names: of the classes of the column `label`, as Hugging Face's datasets note them."""
    table = pa.table(columns)
    if names is not None:
        noted = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(noted).encode()})
    pq.write_table(table, file)


def reasons(images: Images) -> list[str]:
    """Of each image why it cannot be read, "" if it can."""
    found = []
    for index in range(len(images)):
        try:
            images[index]
            found.append("")
        except BrokenImageError as error:
            found.append(error.reason)
    return found


def test_names_of_images_may_be_those_of_places(root: Path) -> None:
    """With "#" in them, in archives and tables whose suffix is in capitals: all are found again."""
    write_tar(root / "a.TAR", {"C#.png": encoded(1), "b/x#y.png": encoded(2), "new\nline.png": encoded(3)})
    (root / "t").mkdir()
    write_table(root / "t" / "x#1.PARQUET", **{"image": [encoded(4)], "ma#sk@1": [encoded(5)]})
    found = [open_images(root / "a.TAR"), open_images(root / "t", TableReading(image_column="ma#sk@1"))]
    for images, file, count in zip(found, ("a.TAR", "t/x#1.PARQUET"), (3, 1), strict=True):
        assert len(images) == count
        again = StoredImages(images.ids, images.paths)
        assert [again.stored(row) for row in range(count)] == [images.stored(row) for row in range(count)]
        assert {file_of(path) for path in images.paths} == {str(root / file)}


def test_a_folder_may_be_called_like_an_archive(root: Path) -> None:
    for name in ("x.tar", "x.parquet"):
        (root / name).mkdir()
        (root / name / "a.png").write_bytes(encoded(1))
        assert list(open_images(root / name).ids) == ["a.png"]


def test_a_table_without_images_is_named(root: Path) -> None:
    """Beside others; alone it is an error."""
    write_table(root / "images.parquet", image=[encoded(row) for row in range(8)], label=[0, 1] * 4)
    write_table(root / "meta.parquet", author=["x"])
    named = {str(root / "meta.parquet"): "a table without a column of images"}
    assert open_images(root).left_out == named
    assert open_splits(DataConfig(name="parquet", root=str(root))).left_out == named
    with pytest.raises(DataError, match=r"meta\.parquet has no column of images"):
        open_images(root / "meta.parquet")


def test_a_gallery_among_photos_is_no_class(root: Path) -> None:
    """Its files without a suffix would be taken for images."""
    spec = EmbeddingSpec("vectors:x", "full", 2)
    with Gallery.create(root / "gallery", spec) as gallery:
        gallery.add([Row("a", "")], np.eye(1, 2, dtype=np.float32))
    (root / "cats").mkdir()
    for name in ("cats/a.png", "catalog.sqlite"):
        (root / name).write_bytes(encoded(1))
    images = open_images(root)
    assert (list(images.ids), images.classes) == (["cats/a.png"], ("cats",))
    named = {"gallery/": "a gallery", "catalog.sqlite": "not an image (.sqlite)"}
    assert images.left_out == {f"{root}/{name}": reason for name, reason in named.items()}


def test_a_run_among_photos_is_no_class(root: Path) -> None:
    """Its curves would be taken for an image of a class that is called like the run."""
    photos(root)
    (root / "run" / "tensorboard").mkdir(parents=True)
    for name in ("run/curves.png", "run/tensorboard/a.png"):
        (root / name).write_bytes(encoded(1))
    assert "run" in open_images(root).classes
    for name in ("config.yaml", "metrics.jsonl"):
        (root / "run" / name).write_text("")
    images = open_images(root)
    assert (len(images), images.classes) == (8, ("cats", "dogs"))
    assert images.left_out == {f"{root}/run/": "a run"}


def test_a_stray_table_does_not_replace_what_is_trained_on(root: Path) -> None:
    photos(root / "train"), photos(root / "val")
    write_table(root / "gallery.parquet", id=["a"])
    images = open_training_images(root)
    joined = JoinedImages([images], [1], [True])
    assert (len(images), images.classes) == (8, ("cats", "dogs"))
    assert joined.left_out == images.left_out == {str(root / "gallery.parquet"): "beside train/ and val/"}


def test_lists_of_imagenet_may_hold_what_is_no_text(root: Path) -> None:
    for wnid in ("n01440764", "n01443537"):
        (root / "train" / wnid).mkdir(parents=True)
        (root / "train" / wnid / "a.JPEG").write_bytes(encoded(1, "JPEG"))
    (root / "val").mkdir()
    for name in "ab":
        (root / "val" / f"{name}.JPEG").write_bytes(encoded(2, "JPEG"))
    config = DataConfig(name="imagenet", root=str(root))
    (root / "val.txt").write_bytes(b"\xef\xbb\xbfa.JPEG 0\nb.JPEG 1\ncaf\xe9.JPEG 1\n")
    assert len(open_splits(config).held_out) == 2
    (root / "val.txt").unlink()
    (root / "synsets.txt").write_text("n01440764\nn01443537\n")
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("1\nx\n")
    with pytest.raises(DataError, match="'x' is not the number of a class"):
        open_splits(config)


def test_bytes_may_be_kept_once_for_equal_images(root: Path) -> None:
    content = pa.array([encoded(row % 2) for row in range(4)], pa.binary())
    write_table(root / "x.parquet", image=content.dictionary_encode())
    images = open_images(root)
    assert [images.stored(row) for row in range(4)] == content.to_pylist()


def test_hidden_members_are_named(root: Path) -> None:
    """They have no key, so that nobody could find them again."""
    write_tar(
        root / "a.tar", {".png": encoded(1), "b/.x.png": encoded(2), ".DS_Store": b"", "c.png": encoded(3)}
    )
    images = open_images(root)
    assert list(images.ids) == ["c"]
    assert images.left_out == {f"{root}/a.tar#{name}": "hidden" for name in (".png", "b/.x.png", ".DS_Store")}


def test_labels_of_members_are_read_or_named(root: Path) -> None:
    """A mark of Windows' editors is none of the label; no number is too large, no bracket too deep."""
    labels = {"a.cls": b"\xef\xbb\xbf1", "b.json": b'{"label": 1e400}', "c.json": b"[" * 100_000}
    write_tar(root / "x.tar", {f"{name}.png": encoded(1) for name in "abc"} | labels)
    images = open_images(root)
    assert (list(images.ids), images.labels.tolist()) == (["a"], [1])
    fault = ".json holds no integer label, nor the name of a class"
    assert images.left_out == {f"{root}/x.tar#{name}": fault for name in "bc"}


def test_empty_labels_of_rows_are_named(root: Path) -> None:
    write_table(root / "x.parquet", image=[encoded(row) for row in range(3)], label=["", " ", "cats"])
    images = open_images(root)
    assert (images.classes, images.labels.tolist()) == (("cats",), [-1, -1, 0])
    assert [*images.left_out.values()] == ["an empty label"] * 2


def test_classes_of_one_name_stay_two(root: Path) -> None:
    """ImageNet has two cranes."""
    write_table(root / "x.parquet", ["crane", "crane"], image=[encoded(0), encoded(1)], label=[0, 1])
    images = open_images(root)
    assert (images.classes, images.labels.tolist()) == (("crane", "crane (1)"), [0, 1])


@pytest.mark.parametrize("noted", [5, "ab", {"0": "x"}, [], None])
def test_notes_that_name_no_classes_are_passed_over(root: Path, noted: object) -> None:
    write_table(root / "x.parquet", noted, image=[encoded(row) for row in range(3)], label=[0, 1, 2])
    images = open_images(root)
    assert len(set(images.labels)) == 3
    assert images.classes == (("1", "2", "x") if noted == {"0": "x"} else ("0", "1", "2"))


@pytest.mark.parametrize(
    ("noted", "names"),
    [
        (["a", "b"], ("a", "b")),
        ({"0": "a", "1": "b"}, ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        ({"a": "b"}, None),
        ({"a": 1, "b": 1}, None),
        ("ab", None),
        (5, None),
        (None, None),
    ],
)
def test_names_of_classes_are_listed_or_numbered(
    root: Path, noted: object, names: tuple[str, ...] | None
) -> None:
    assert listed_names(noted) == names
    write_table(root / "x.parquet", image=[encoded(0), encoded(1)], label=[0, 1])
    (root / "classes.json").write_text(json.dumps(noted))
    if names is None:
        with pytest.raises(DataError, match=r"classes\.json holds no list of names"):
            open_images(root)
    else:
        assert open_images(root).classes == names


def test_an_index_of_somebody_else_is_named(root: Path) -> None:
    write_tar(root / "a.tar", {"a.png": encoded(1)})
    (root / "index.json").write_text('{"pages": 3}')
    images = open_images(root)
    assert len(images) == 1
    assert images.left_out == {str(root / "index.json"): "not an image (.json)"}


def test_a_compressed_archive_says_so(root: Path) -> None:
    write_tar(root / "a.tar", {"a.png": encoded(1)})
    (root / "b.tar").write_bytes(gzip.compress((root / "a.tar").read_bytes()))
    with pytest.raises(DataError, match=r"b\.tar: it is compressed by gzip"):
        open_images(root)


@pytest.mark.parametrize("name", ["parquet", "shards"])
def test_what_is_there_instead_is_named(root: Path, name: str) -> None:
    (root / "a.tar.gz").write_bytes(b"")
    (root / "a.png").write_bytes(encoded(1))
    with pytest.raises(
        DataError, match=r"(?s)1 images such as a\.png: the data set 'folder' reads them.*a\.tar\.gz"
    ):
        open_splits(DataConfig(name=name, root=str(root)))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_breaks_no_image(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(encoded(1, kind, exif=b"Exif\0\0" + b"\xff" * 5_000))
    assert read_image(file).size == (12, 10)
    file.write_bytes(encoded(1, kind, exif=b"Exif\0\0II*\0" + b"\xff" * 5_000))
    assert read_image(file).size == (12, 10)


def test_floats_that_are_no_numbers_leave_the_others_as_they_are(tmp_path: Path) -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[0] = np.nan, np.inf, -np.inf, 1
    Image.fromarray(values).save(tmp_path / "x.tif")
    read = np.asarray(read_image(tmp_path / "x.tif"))
    assert (read[1:] == 127).all()
    assert read[0, :, 0].tolist() == [0, 255, 0, 255]


def test_what_is_no_image_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    for content, said in (
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    ):
        file.write_bytes(content)
        with pytest.raises(BrokenImageError, match=said):
            read_image(file)


def test_a_path_that_no_file_can_have_is_broken() -> None:
    assert reasons(StoredImages(["a"], ["a\0b"])) == ["embedded null byte"]


def become_nothing(file: Path) -> None:
    file.unlink()


def become_a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def become_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:4])


CHANGES = (become_nothing, become_a_fifo, become_a_folder, become_short)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["a.png", "a.tar", "a.parquet"])
def test_what_changes_while_it_is_read_is_broken(
    root: Path, name: str, change: Callable[[Path], None]
) -> None:
    """Also where something is in its place that would never end."""
    (root / "a.png").write_bytes(encoded(1))
    write_tar(root / "a.tar", {"a.png": encoded(1)})
    write_table(root / "a.parquet", image=[encoded(1)])
    opened: dict[str, Callable[[Path], Images]] = {
        "a.png": lambda file: open_images(file.parent),
        "a.tar": open_images,
        "a.parquet": lambda file: Parquet([file], memory=0),
    }
    images = opened[name](root / name)
    if isinstance(images, Parquet):
        # As if other row groups had been read since.
        images._kept.clear()
    change(root / name)
    with at_most(20):
        (reason,) = reasons(images)
    assert reason


@pytest.mark.parametrize("name", ["classes.json", "index.json"])
def test_a_fifo_beside_archives_is_not_waited_for(root: Path, name: str) -> None:
    write_tar(root / "a.tar", {"a.png": encoded(1)})
    os.mkfifo(root / name)
    with at_most(20), pytest.raises(DataError, match=rf"{name}: a FIFO, not a file"):
        open_images(root)
