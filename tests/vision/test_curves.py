"""The curves of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_vision.runs import curves
from matmamba_vision.runs.curves import draw_curves
from matmamba_vision.runs.metrics_log import read_metrics
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

pytestmark = pytest.mark.usefixtures("really_drawn")


def step(number: int, **other: Any) -> dict[str, Any]:
    row = {
        "event": "step",
        "step": number,
        "epoch": number / 10,
        "seconds": 1.0,
        "lr": 1e-3,
        "grad_norm": 0.8,
    }
    row |= {"data_seconds": 0.01, "compute_seconds": 0.3, "loss": 2.0, "terms": {"cross_entropy": 1.9}}
    return row | {"widths": {"full": 2.0 - number / 100, "1/2": 3.0 - number / 100}} | other


def epoch(number: int, **other: Any) -> dict[str, Any]:
    return {"event": "epoch", "epoch": number, "step": number, "seconds": 9.0, "loss": 1.9, **other}


def write(file: Path, *rows: dict[str, Any], tail: str = "") -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return file


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved from now on."""
    found: list[Figure] = []
    save = curves._save_whole

    def keep(figure: Figure, file: Path) -> None:
        found.append(figure)
        save(figure, file)

    monkeypatch.setattr(curves, "_save_whole", keep)
    return found


def data(line: Line2D, axis: str) -> list[float]:
    """What a line draws, along x or y."""
    return np.asarray(line.get_xdata() if axis == "x" else line.get_ydata(), dtype=np.float64).tolist()


def test_each_panel_draws_what_it_says(tmp_path: Path, drawn: list[Figure]) -> None:
    measured = {"top1": {"full": 0.6, "1/2": 0.5}}
    rows = [*map(step, range(20)), epoch(1, top1={}), epoch(2, **measured), epoch(4, **measured)]
    draw_curves(write(tmp_path / "metrics.jsonl", *rows), tmp_path / "curves.png")
    losses, top1, rates, seconds, norms = drawn[0].axes
    assert [line.get_label() for line in losses.lines] == ["full", "1/2"]
    np.testing.assert_allclose(data(losses.lines[1], "y"), [3 - n / 100 for n in range(20)])
    np.testing.assert_allclose(data(losses.lines[0], "x"), [n / 10 for n in range(20)])
    assert [data(line, "y")[0] for line in top1.lines] == [0.6, 0.5]
    assert data(top1.lines[0], "x") == [2, 4]
    assert data(rates.lines[0], "y")[5] == 1e-3
    assert data(norms.lines[0], "y")[5] == 0.8
    assert [data(line, "y")[0] for line in seconds.lines] == pytest.approx([0.01, 0.3])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(2**20) or []) > 10


def test_long_runs_are_drawn_as_means(tmp_path: Path, drawn: list[Figure]) -> None:
    """Loss alternates between 1 and 3, and some steps know one width only."""
    rows = [
        step(n, widths={"full": 1.0 + 2 * (n % 2)} | ({} if n % 4 else {"1/8": 5.0})) for n in range(4000)
    ]
    draw_curves(write(tmp_path / "metrics.jsonl", *rows), tmp_path / "curves.png")
    full, eighth = drawn[0].axes[0].lines
    assert len(data(full, "y")) == curves.POINTS
    np.testing.assert_allclose(data(full, "y"), 2.0)
    np.testing.assert_allclose(data(eighth, "y"), 5.0)


def test_of_many_widths_the_frequent_ones_are_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [step(n, widths={"full": 2.0, f"{n}-1": 3.0}) for n in range(30)]
    draw_curves(write(tmp_path / "metrics.jsonl", *rows), tmp_path / "curves.png")
    assert drawn[0].axes[0].lines[0].get_label() == "full"
    assert len(drawn[0].axes[0].lines) == curves.WIDTHS


def test_a_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path / "metrics.jsonl", step(0), step(1), tail='{"event": "st')
    assert [row["step"] for row in read_metrics(file)] == [0, 1]
    draw_curves(file, tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").write_text('{"event"\n' + json.dumps(step(0)))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1 is not JSON"):
        read_metrics(file)
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        read_metrics(write(file, tail="3\n4\n"))


def test_a_failure_leaves_the_earlier_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, picture = write(tmp_path / "metrics.jsonl", step(0)), tmp_path / "curves.png"
    draw_curves(file, picture)
    before = picture.read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl has no steps"):
        draw_curves(write(file, epoch(1)), picture)

    def full_disk(self: Figure, target: Path, **_: Any) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        draw_curves(write(file, step(0)), picture)
    assert picture.read_bytes() == before
