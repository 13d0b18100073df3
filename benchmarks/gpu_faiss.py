"""A gallery of a million vectors, indexed and searched by FAISS with GPUs and without."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

from gpu_setting import Setting, left_out
from matmamba_retrieval import Gallery
from matmamba_retrieval.index import gallery_index, shortlist_index
from measuring import Case, Plan, Ratio, measure_case, timed
from million import made_gallery
from structured import Structured

QUERIES, SHORTLIST = (1, 1000), 100
RATIO = Ratio("CPU / GPU", "CPU", "GPU")


def on_gpu_and_cpu(plan: Plan, setting: Setting) -> Iterator[Case]:
    """Building indexes and searching them, with the GPUs that FAISS sees and without."""
    if setting.device == "cuda" and not shortlist_index.gpus():
        yield left_out("FAISS", "the FAISS that is installed was built without GPUs")
        return
    data = Structured(dim=setting.dim, classes=max(10, min(1000, setting.rows // 100)))
    with (
        tempfile.TemporaryDirectory() as folder,
        made_gallery(Path(folder) / "gallery", data, setting.rows) as gallery,
    ):
        for recipe in setting.recipes:
            yield _building(gallery, setting, recipe)
            yield from _searching(gallery, data, plan, setting, recipe)


def _building(gallery: Gallery, setting: Setting, recipe: str) -> Case:
    build = partial(gallery.build_shortlist, setting.dim, recipe)

    def without_gpus() -> None:
        with patch.object(gallery_index, "gpus", lambda: 0):
            build()

    sides = {"CPU": partial(_seconds, without_gpus), "GPU": partial(_seconds, build)}
    settings = {"rows": setting.rows, "dim": setting.dim, "gpus": shortlist_index.gpus()}
    return measure_case(f"FAISS, index, {recipe}", sides, [RATIO], Plan(0, 1), settings, unit="s")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _searching(
    gallery: Gallery, data: Structured, plan: Plan, setting: Setting, recipe: str
) -> Iterator[Case]:
    (record,) = (built for built in gallery.shortlists() if built.dim == setting.dim)
    on_cpu = gallery.shortlist_index(record)
    on_gpu = copy.copy(on_cpu)
    settings = {"rows": setting.rows, "dim": setting.dim, "shortlist": SHORTLIST}
    # FAISS knows some kinds on the CPU alone, and is asked there.
    settings["on_gpu"] = on_gpu.use_gpu()
    for count in QUERIES:
        xq = data.queries(count)
        sides = {
            name: timed(partial(index.search, xq, SHORTLIST))
            for name, index in (("CPU", on_cpu), ("GPU", on_gpu))
        }
        name = f"FAISS, search, {recipe}, {count} queries"
        yield measure_case(name, sides, [RATIO], plan, settings)
