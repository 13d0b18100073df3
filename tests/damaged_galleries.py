"""A gallery in whose files bits are flipped, or which are cut short."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from drawn_vectors import unit_vectors
from lookups import by_index
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Row,
    Strategy,
    prefix,
    search,
)
from matmamba_retrieval.gallery.inspection import verify
from matmamba_retrieval.gallery.repairing import repair

DIM, IMAGES = 32, 400


def some_gallery(folder: Path) -> Path:
    """A gallery with labels, metadata, deletions, indexes and two segments of two widths."""
    with Gallery.create(folder, EmbeddingSpec("a" * 64, "full", DIM), widths=("1/8",)) as gallery:
        for start in (0, IMAGES // 2):
            xb = unit_vectors(IMAGES // 2, DIM, start)
            rows = [
                Row(f"id{start + n}", f"/photos/{n}.jpg", str(n % 3), {"year": 2000 + n})
                for n in range(len(xb))
            ]
            gallery.add(rows, xb, {"1/8": xb})
        gallery.delete(["id5", "id250"])
        gallery.build_shortlist(8, "HNSW8")
        gallery.build_shortlist(8, width="1/8")
    return folder


def flip_in_page(gallery: Gallery, table: str, before_end: int) -> Path:
    """Close a gallery, and flip a bit of the first page of a table or index; returns its catalogue."""
    (page,) = gallery.catalog.run("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))[0]
    gallery.close()
    file = gallery.folder / "catalog.sqlite"
    content = bytearray(file.read_bytes())
    content[4096 * page - before_end] ^= 1
    file.write_bytes(content)
    return file


def answers(folder: Path) -> Any:
    """What one may ask a gallery: searches, rows, filters, labels."""
    with Gallery(folder) as gallery:
        xq = unit_vectors(5, gallery.spec.dim, 77)
        queries = EncodedQueries({"full": Encoded(xq, 0, 0), "1/8": Encoded(xq, 0, 0)})
        found = [
            search(gallery, Strategy.single_shot(), queries, 5),
            search(gallery, Strategy.shortlist(dim=8, length=20), queries, 5),
        ]
        filters = ["label = '1'", "id IN ('id3', 'id5')"] + (["year > 2100"] if gallery.fields() else [])
        masks = [gallery.allowed(where) for where in filters]
        return {
            "hits": [(hits.D.tolist(), hits.I.tolist()) for hits in found],
            "rows": [gallery.rows(keys) for keys in found[0].I],
            "masks": [None if mask is None else np.flatnonzero(mask).tolist() for mask in masks],
            "labels": gallery.labels(),
            "keys": gallery.keys_of(["id3", "id5", "id250", "id399"]),
            "listed": by_index(gallery, prefix(xq, 8), 10).tolist(),
        }


def damage_and_restore(folder: Path, count: int, seed: int = 0) -> dict[str, int]:
    """Damage one file after the other, see what is said and answered, and repair; counts of what came of it.

    Each damage is undone afterwards by writing back the file's content.
    """
    chance, counts, expected = random.Random(seed), Counter[str](), answers(folder)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size]
    before = {file: file.read_bytes() for file in files}
    for _ in range(count):
        file = chance.choice(files)
        kind = chance.choice(["flip", "flip", "truncation"])
        file.write_bytes(damaged(before[file], kind, chance))
        counts[kind] += 1
        counts["undetected"] += not verify(folder)
        counts[_answered(folder, expected)] += 1
        counts[_repaired(folder, expected, derived=file.suffix == ".faiss")] += 1
        for other in folder.rglob("*"):
            if other.is_file() and other not in before and other.parent.name != "locks":
                other.unlink()
        for other, content in before.items():
            other.write_bytes(content)
    return {**dict.fromkeys(NAMES, 0), **counts}


NAMES = (
    "flip", "truncation", "undetected", "silently another answer", "error", "right answer", "restored",
    "derived and not restored", "needs the images, or a copy",
)  # fmt: skip


def damaged(content: bytes, kind: str, chance: random.Random) -> bytes:
    """The content with one bit flipped, or cut short."""
    place = chance.randrange(len(content))
    if kind == "truncation":
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _answered(folder: Path, expected: Any) -> str:
    try:
        return "right answer" if answers(folder) == expected else "silently another answer"
    except GalleryError:
        return "error"


def _repaired(folder: Path, expected: Any, *, derived: bool) -> str:
    try:
        repair(folder)
        whole = not verify(folder) and answers(folder) == expected
    except GalleryError:
        whole = False
    if whole:
        return "restored"
    return "derived and not restored" if derived else "needs the images, or a copy"
