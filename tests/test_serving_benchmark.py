"""The benchmark of the service: what it asks, when, and that it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import open_loop
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving
from matmamba_vision.native import why_missing
from open_loop import Response, arrivals, summary, upload
from PIL import Image

TINY = serving.Scale(images=12, queries=4, seconds=0.5, search_seconds=0.25, loads=(1.0,), pairs=2)


def test_requests_come_at_the_stated_rate_and_twice_as_often_in_bursts() -> None:
    times = np.array(arrivals(50.0, 200.0, seed=0))
    assert len(times) == pytest.approx(10_000, rel=0.03)
    assert (np.diff(times) > 0).all()
    assert times[-1] < 200
    in_bursts = (times % 10 < 2).sum() / 40 / ((times % 10 >= 2).sum() / 160)
    assert in_bursts == pytest.approx(2.0, rel=0.05)
    steady = np.array(arrivals(50.0, 200.0, seed=0, bursts=False))
    assert (steady % 10 < 2).mean() == pytest.approx(0.2, abs=0.02)


def test_a_request_is_one_form_with_a_length() -> None:
    head, _, body = upload("host", "g", b"\xff\xd8image", {"k": 3}).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert head.startswith(b"POST /v1/galleries/g/search HTTP/1.1\r\n")
    assert body.count(open_loop.BOUNDARY.encode()) == 3
    assert b"\xff\xd8image" in body
    assert b'{"k": 3}' in body


def test_a_run_counts_what_was_late_sent_away_or_wrong() -> None:
    def answer(width: str, label: str) -> bytes:
        return json.dumps({"width": width, "sent_on": False, "hits": [{"label": label}]}).encode()

    responses = [
        Response(0, 200, 10.0, answer("full", "4")),
        Response(1, 200, 150.0, answer("1/8", "4")),
        Response(2, 503, 2.0, b""),
        Response(3, 0, 10_000.0, b""),
    ]
    found = summary(responses, 2.0, 100.0, [4, 5])
    assert (found["asked"], found["in_time"], found["shed"], found["errors"]) == (4, 0.25, 0.25, 1)
    assert found["in_time_of_not_shed"] == pytest.approx(1 / 3)
    assert (found["answered_per_second"], found["knn1"]) == (1.0, 0.5)
    assert found["widths"] == {"full": 0.5, "1/8": 0.5}
    assert found["ms"]["p50"] == 80.0


@pytest.mark.skipif(why_missing() is not None, reason=f"no kernels: {why_missing()}")
@pytest.mark.usefixtures("really_drawn")
def test_it_runs_against_a_real_service(tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("heldout", 1)):
        rng, rows = np.random.default_rng(seed), []
        for number in range(12):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(file, "PNG")
            rows.append({"image": {"bytes": file.getvalue()}, "label": number % 3})
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{part}-0.parquet")
    output = tmp_path / "result.json"
    serving.main(["--quick", "--photos", str(tmp_path), "--output", str(output)], TINY)
    result = json.loads(output.read_text())
    assert [row["policy"] for row in result["rows"]] == [*serving.POLICIES]
    assert len(result["capacity"]["tried"]) == serving.STEPS
    assert all(row["errors"] == 0 for row in result["rows"])
    widths = {row["policy"]: set(row["widths"]) for row in result["rows"]}
    assert widths["always full"] <= {"full"}
    assert widths["always 1/8"] == {"1/8"}
    assert result["overhead"]["http_ms"]["median"] > 0
    assert result["memory_mb"] > 0
    assert result["command"] == "benchmarks/serving.py --photos PHOTOS"
    lines = serving.table(result).splitlines()
    assert len(lines) == 2 + len(result["rows"])
    assert {line.count("|") for line in lines} == {10}
    assert output.with_suffix(".png").stat().st_size > 0
