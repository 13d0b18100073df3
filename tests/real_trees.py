"""Folders, archives and tables as people have them, made from nothing; each knows what is in it."""

from __future__ import annotations

import ctypes
import io
import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cats", "dogs")


@dataclass
class Tree:
    """A place and what is there.

    Attributes:
        root: the folder. data: its name among data sets. read: images that are to be read. named: ends of the
            names of everything else. unlabelled: of the images, those that cannot be trained on. flags: of a
            command, names and values. locked: a folder that cannot be listed.
    """

    root: Path
    data: str = "folder"
    read: int = 0
    named: set[str] = field(default_factory=set)
    unlabelled: set[str] = field(default_factory=set)
    flags: tuple[str, ...] = ()
    locked: Path | None = None


def encoded(level: int, kind: str = "PNG", size: tuple[int, int] = (12, 10), **more: Any) -> bytes:
    """A small image's file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (level * 7 % 256, 40, 90)).save(buffer, kind, **more)
    return buffer.getvalue()


def photos(root: Path, each: int = 4, classes: tuple[str, ...] = CLASSES) -> Tree:
    """Two classes of small images."""
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            (root / name / f"{number:02d}.png").write_bytes(encoded(number + 50 * len(name)))
    return Tree(root, read=each * len(classes))


def links(root: Path) -> Tree:
    """A link to itself, to the folder above, to nothing, to a folder elsewhere (a class), to a file."""
    tree, away = photos(root), photos(root.parent / "elsewhere", 3, ("birds",))
    (root / "dogs" / "loop").symlink_to("loop")
    (root / "dogs" / "up").symlink_to("..")
    (root / "dogs" / "gone.png").symlink_to("nowhere.png")
    (root / "birds").symlink_to(away.root / "birds")
    (root / "more_birds").symlink_to(away.root / "birds")
    (root / "cats" / "other.png").symlink_to(root / "dogs" / "00.png")
    tree.read += 4
    tree.named = {"dogs/loop", "dogs/up/", "dogs/gone.png", "more_birds/"}
    return tree


def skipped_links(root: Path) -> Tree:
    """The same, where links to folders are not followed."""
    tree = links(root)
    tree.read, tree.flags = tree.read - 3, ("links", "skip")
    tree.named |= {"birds/"}
    return tree


def locked(root: Path) -> Tree:
    """A folder and a file that may not be read."""
    tree = photos(root)
    (root / "cats" / "private").mkdir()
    (root / "cats" / "private" / "x.png").write_bytes(encoded(1))
    tree.named, tree.locked = {"cats/private/"}, root / "cats" / "private"
    return tree


def special(root: Path) -> Tree:
    """A FIFO, a socket and links to devices, called like images."""
    tree = photos(root)
    os.mkfifo(root / "cats" / "fifo.png")
    here = Path.cwd()
    os.chdir(root / "cats")
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("socket.jpg")
    finally:
        os.chdir(here)
    (root / "cats" / "zero.jpg").symlink_to("/dev/zero")
    tree.named = {"cats/fifo.png", "cats/socket.jpg", "cats/zero.jpg"}
    return tree


def strays(root: Path) -> Tree:
    """An archive, a table and a packed archive beside photos."""
    tree = photos(root)
    write_tar(root / "backup.tar", {"a.png": encoded(1), "b.png": encoded(2)})
    rows = [{"id": "a", "vector": [0.1, 0.2]}]
    pq.write_table(pa.Table.from_pylist(rows), root / "cats" / "gallery.parquet")
    (root / "old.zip").write_bytes(b"PK")
    tree.named = {"backup.tar", "cats/gallery.parquet", "old.zip"}
    return tree


def cameras(root: Path) -> Tree:
    """What cameras, programs, network drives and systems leave beside photos."""
    tree = photos(root)
    for name in ("IMG.txt", "IMG.xmp", "IMG.json", "IMG.mov", "IMG.MP4", "IMG.aae", "p.ini", "x.db", "a.zip"):
        (root / "cats" / name).write_bytes(b"beside")
        tree.named.add(f"cats/{name}")
    for name in ("IMG.CR2", "IMG.dng"):
        (root / "dogs" / name).write_bytes(b"II*\0")
        tree.named.add(f"dogs/{name}")
    (root / "README").write_text("of these photos")
    (root / "dogs" / "._00.png").write_bytes(b"\0\5\x16\7")
    tree.named |= {"README", "dogs/._00.png"}
    folders = ("@eaDir", "#recycle", "#snapshot", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".thumbnails")
    for name in (*folders, "System Volume Information", "cats/@eaDir"):
        photos(root / name, 2)
        tree.named.add(f"{name}/")
    return tree


def patterns(root: Path) -> Tree:
    """Photos of which some are not wanted."""
    tree = photos(root)
    (root / "cats" / "small").mkdir()
    (root / "cats" / "small" / "x.png").write_bytes(encoded(3))
    (root / "dogs" / "draft-1.png").write_bytes(encoded(4))
    (root / "dogs" / "x.gif").write_bytes(encoded(4, "GIF"))
    tree.named = {"cats/small/", "dogs/draft-1.png", "dogs/x.gif"}
    tree.flags = ("include", "*.png", "exclude", "small,draft-*")
    return tree


def large(root: Path) -> Tree:
    """Good images that programs take for attacks: long texts, a large profile, many pixels."""
    from PIL.PngImagePlugin import PngInfo

    tree = photos(root)
    info = PngInfo()
    info.add_itxt("prompt", "a cat " * 400_000, zip=True)
    (root / "cats" / "prompt.png").write_bytes(encoded(5, pnginfo=info))
    (root / "dogs" / "profile.png").write_bytes(encoded(6, icc_profile=bytes(3_000_000)))
    Image.new("L", (20_000, 10_000)).save(root / "dogs" / "scan.png", compress_level=1)
    tree.read += 3
    return tree


def names(root: Path) -> Tree:
    """A name that is no text, and names that move a terminal's cursor."""
    tree = photos(root)
    (root / "cats" / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(1))
    (root / "dogs" / "\x1b[31mred\nline.txt").write_bytes(b"")
    (root / "dogs" / "\x1b]0;title\x07.png").write_bytes(encoded(2))
    tree.read += 1
    tree.named = {os.fsdecode(b"cats/caf\xe9.png"), "dogs/\x1b[31mred\nline.txt"}
    return tree


def beside_splits(root: Path) -> Tree:
    """`train/` and `val/`, and things beside these."""
    photos(root / "train", 3), photos(root / "val", 2)
    photos(root / "test", 2)
    (root / "notes.txt").write_text("hello")
    (root / "train" / "loose.png").write_bytes(encoded(9))
    return Tree(root, read=10, named={"test/", "notes.txt", "train/loose.png"})


def archive(root: Path) -> Tree:
    """Members with more dots, without an image, with two, a RAW photo, links, what macOS adds."""
    root.mkdir(parents=True)
    members: dict[str, bytes] = {}
    for number in range(6):
        members |= {f"{number:03d}.png": encoded(number), f"{number:03d}.json": _label(CLASSES[number % 2])}
    members |= {"IMG.v2_1.png": encoded(1), "IMG.v2_2.png": encoded(2), "IMG.cls": b"0"}
    members |= {"two.png": encoded(3), "two.jpg": encoded(4, "JPEG"), "two.json": _label("dogs")}
    members |= {"words.txt": b"no image", "photo.cr2": b"II*\0", "null.json": _label(None)}
    members |= {"bad.png": encoded(5), "bad.json": b'{"label": [1]}', "null.png": encoded(6)}
    members |= {"__MACOSX/000.png": encoded(7), "._001.png": encoded(8)}
    write_tar(root / "all.tar", members, link="link.png")
    (root / "words.md").write_text("about it")
    named = {"IMG.v2_2.png", "two.jpg", "words", "photo", "bad", "__MACOSX/000.png", "._001.png", "link.png"}
    named = {f"all.tar#{name}" for name in named} | {"words.md"}
    return Tree(root, "shards", 9, named, unlabelled={"all.tar#null"})


def table(root: Path) -> Tree:
    """The hub's layout: other names of columns, classes in the metadata, a null row, a path for bytes."""
    (root / "data").mkdir(parents=True)
    (root.parent / "apart.png").write_bytes(encoded(3))
    rows = [{"img": {"bytes": encoded(row), "path": None}, "fine_label": row % 2} for row in range(8)]
    rows[3]["img"] = None
    rows[4]["img"] = {"bytes": None, "path": str(root.parent / "apart.png")}
    features = {"img": {"_type": "Image"}, "fine_label": {"names": [*CLASSES], "_type": "ClassLabel"}}
    noted = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split, some in (("train", rows), ("test", rows[:2])):
        file = root / "data" / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(some).replace_schema_metadata(noted), file)
    (root / "README.md").write_text("a card")
    named = {"data/train-00000-of-00001.parquet#3", "README.md"}
    return Tree(root, "parquet", 9, named)


def plain_table(root: Path) -> Tree:
    """Plain bytes with labels from a dictionary of texts, a row of several labels beside them."""
    root.mkdir(parents=True)
    labels = pa.array([CLASSES[row % 2] for row in range(8)]).dictionary_encode()
    tags = pa.array([["a", "b"]] * 8)
    content = pa.array([encoded(row) for row in range(8)], pa.binary())
    pq.write_table(pa.table({"tags": tags, "picture": content, "category": labels}), root / "x.parquet")
    return Tree(root, "parquet", 8)


def _label(value: object) -> bytes:
    return json.dumps({"label": value}).encode()


def write_tar(file: Path, members: Mapping[str, bytes], link: str = "") -> None:
    """A tar file of these members, and a link to nothing."""
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "nowhere"
            tar.addfile(member)


TREES: dict[str, Callable[[Path], Tree]] = {
    made.__name__: made
    for made in (
        links, skipped_links, locked, special, strays, cameras, patterns, large, names, beside_splits,
        archive, table, plain_table,
    )
}  # fmt: skip


@contextmanager
def without_override(folder: Path | None) -> Iterator[None]:
    """Inside, the folder cannot be listed: root's right to read everything is laid down meanwhile."""
    if folder is None:
        yield
        return
    before = _rights()
    folder.chmod(0)
    _set_rights(before, without=(1, 2))
    try:
        yield
    finally:
        _set_rights(before)
        folder.chmod(0o700)


_VERSION = 0x20080522


def _rights() -> Any:
    """Capabilities of this thread: (effective, permitted, inheritable) twice, see capget(2)."""
    header, data = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capget(header, data) == 0
    return data


def _set_rights(rights: Any, without: tuple[int, ...] = ()) -> None:
    header, data = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)(*rights)
    for bit in without:
        data[0] &= ~(1 << bit)
    assert ctypes.CDLL(None).capset(header, data) == 0


def noise(size: tuple[int, int]) -> Image.Image:
    """Pixels by chance."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3))
    return Image.fromarray(pixels.astype(np.uint8))
