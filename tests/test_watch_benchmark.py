"""The benchmark of watching: what its clips show, its tables, and that it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import watch
from matmamba_vision.native import why_missing
from PIL import Image

TINY = watch.Scale(images=6, seconds=0.5, sizes=((160, 90),), beside=(0,), budgets=(), frames=20, photos=2)


def test_a_clip_moves_over_one_picture_after_the_other(tmp_path: Path) -> None:
    colours = [(200, 30, 30), (30, 30, 200)]
    pictures = [Image.new("RGB", (40, 40), colour) for colour in colours]
    with av.open(str(watch.moved(tmp_path / "a.mp4", pictures, (160, 90), 4.0))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4 * watch.FPS
    assert {frame.shape for frame in frames} == {(90, 160, 3)}
    for number, frame in enumerate(frames):
        assert np.abs(frame.mean((0, 1)) - colours[number // (2 * watch.FPS)]).max() < 12


def test_the_page_has_all_that_was_measured() -> None:
    live = {"size": [160, 90], "beside": 1, "budget_ms": 50.0, "frames": 90, "dropped": 10}
    live |= {"lag_ms": {"p50": 8.2, "p99": 61.0, "max": 70.0}, "widths": {"full": 45, "1/8": 45}}
    memory = {"frames": 6000, "first_mb": 200.0, "last_mb": 202.0, "least_mb": 199.0, "most_mb": 203.0}
    found = {"width": "full", "photos": 150, "first": 0.98, "score": 0.93, "score_of_others": 0.5}
    found |= {name: {f"{least:g}": 0.1 for least in watch.SCORES} for name in ("found", "mistaken")}
    machine = {"processor": "a processor", "threads": 2}
    result: dict[str, Any] = {"live": [live], "memory": memory, "found": [found], "machine": machine}
    page = watch.page({**result, "images": 2000, "model": "m", "fps": 10})
    assert "| 160 x 90 | 50 | 1 | 90 | 10 | 8, 61, 70 | full 50%, 1/8 50% |" in page
    assert "200 MB behind the first tenth and 202 MB at the end (+1.0%), 199 to 203 MB" in page
    assert "| full | 98.0% | 0.93 | 0.50 | 10%, 10% |" in page


@pytest.mark.slow
@pytest.mark.skipif(why_missing() is not None, reason=f"no kernels: {why_missing()}")
def test_it_runs(tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("heldout", 1)):
        rng, rows = np.random.default_rng(seed), []
        for _ in range(6):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(file, "PNG")
            rows.append({"image": {"bytes": file.getvalue()}, "label": 0})
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{part}-0.parquet")
    output = tmp_path / "result.json"
    watch.main(["--photos", str(tmp_path), "--output", str(output)], TINY)
    result = json.loads(output.read_text())
    assert [row["frames"] + row["dropped"] for row in result["live"]] == [5]
    assert result["memory"]["frames"] >= 20
    assert [row["width"] for row in result["found"]] == [*watch.WIDTHS]
    assert result["command"] == "benchmarks/watch.py --photos PHOTOS"
    assert watch.page(result)
