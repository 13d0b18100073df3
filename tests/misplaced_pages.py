"""A catalogue whose pages are whole but in the wrong places: blank, swapped, or one twice."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
from damaged_galleries import answers
from drawn_vectors import unit_vectors
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row
from matmamba_retrieval.gallery.inspection import verify
from matmamba_retrieval.gallery.repairing import repair

PAGE, DIM, IMAGES = 4096, 32, 400
KINDS = ("blank", "swapped", "twice")


def wide_gallery(folder: Path) -> Path:
    """Some images have so much metadata that SQLite continues it on pages of its own."""
    with Gallery.create(folder, EmbeddingSpec("a" * 64, "full", DIM), widths=("1/8",)) as gallery:
        for start in range(0, IMAGES, IMAGES // 4):
            xb = unit_vectors(IMAGES // 4, DIM, start)
            rows = [
                Row(
                    f"id{n}",
                    f"/photos/{n}.jpg",
                    str(n % 3),
                    {"year": 2000 + n, "text": f"{n} " * (n % 7 * 400)},
                )
                for n in range(start, start + len(xb))
            ]
            gallery.add(rows, xb, {"1/8": xb})
        gallery.delete([f"id{n}" for n in range(5, IMAGES, 9)])
        gallery.build_shortlist(8)
        gallery.build_shortlist(8, width="1/8")
        gallery.save_plan({"kind": "single-shot"})
    return folder


def misplaced(content: bytes, kind: str, chance: random.Random) -> bytes:
    """The content with one or two pages changed, not the first."""
    changed, places = bytearray(content), range(1, len(content) // PAGE)
    one, other = (slice(PAGE * place, PAGE * (place + 1)) for place in chance.sample(places, 2))
    if kind == "blank":
        changed[one] = bytes(PAGE)
    elif kind == "twice":
        changed[one] = content[other]
    else:
        changed[one], changed[other] = content[other], content[one]
    return bytes(changed)


def all_answers(folder: Path) -> object:
    """`answers`, and whatever else one may ask of all images."""
    with Gallery(folder) as gallery:
        keys = gallery.live_keys()
        found = [row.id for row in gallery.rows(np.arange(gallery.key_count))]
        return answers(folder), keys.tolist(), found, gallery.plan, gallery.fields(), gallery.versions()


def misplace_and_restore(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Misplace pages again and again; what came of it."""
    file, chance, counts = folder / "catalog.sqlite", random.Random(seed), Counter[str]()
    before, expected = file.read_bytes(), all_answers(folder)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        content = misplaced(before, kind, chance)
        file.write_bytes(content)
        counts[f"{kind} answered {_answered(folder, expected)}"] += 1
        found = verify(folder)
        # A free page may hold anything.
        counts["seen" if found else "not seen"] += 1
        counts[_repaired(folder, expected)] += 1
        for other in folder.glob("catalog*"):
            other.unlink()
        file.write_bytes(before)
    return counts


def _answered(folder: Path, expected: object) -> str:
    try:
        return "right" if all_answers(folder) == expected else "wrong"
    except GalleryError:
        return "with an error"


def _repaired(folder: Path, expected: object) -> str:
    try:
        repair(folder)
        whole = not verify(folder)
    except GalleryError:
        return "cannot be repaired"
    return "repaired" if whole and all_answers(folder) == expected else "repaired and wrong"
