"""The benchmark of what a second encoding can reuse: it runs, and counts what it should."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import second_encoding as script
import torch
from matmamba_vision import MatMamba, save_checkpoint
from matmamba_vision.measures import count_macs
from PIL import Image
from small import create
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture
def model() -> MatMamba:
    torch.manual_seed(0)
    overlay = {"input_size": (3, 16, 16)}
    made = create("matmamba_nano_patch4_32", img_size=16, num_classes=2, pretrained_cfg_overlay=overlay)
    return made.eval()


def write(folder: Path, name: str, count: int) -> None:
    rng, rows = np.random.default_rng(len(name)), []
    for number in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 128, (16, 16, 3)) + 120 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": number % 2})
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


def test_it_runs_and_its_table_shows_what_it_found(
    model: MatMamba, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write(photos, "train-0", 120)
    write(photos, "heldout-0", 20)
    (photos / "classes.json").write_text(json.dumps({"names": ["dark", "bright"]}))
    save_checkpoint(tmp_path / "run", model, ("dark", "bright"), {})
    places = ["--photos", photos, "--runs", tmp_path / "kept", "--output", tmp_path / "result.json"]
    script.main([*map(str, places), "--student", str(tmp_path / "run"), "--quick"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert script.table(result) in capsys.readouterr().out
    assert result["images"] == {"gallery": 60, "queries": 20}
    small = [model.label(width) for width in model.trained_widths][1:]
    once = [row for row in result["once"] if row["strategy"] == "shortlist" and row["widths"]]
    assert [(row["query_width"], row["widths"]) for row in once] == [(width, [width]) for width in small]
    for row in once:
        alone = next(
            other
            for other in result["once"]
            if (other["strategy"], other["query_width"]) == ("single-shot", row["query_width"])
        )
        # The shortlist is the gallery here.
        assert (row["knn1"], row["encoder_macs"]) == (alone["knn1"], alone["encoder_macs"])
    ends = [0, *range(script.STEP, len(model.heads), script.STEP)]
    assert [(row["query_width"], row["blocks"]) for row in result["blocks"]] == [
        (width, end) for width in small for end in ends
    ]
    assert all(row["cosine"] == pytest.approx(1) for row in result["blocks"] if not row["blocks"])
    assert [row["query_width"] for row in result["together"]] == small


def test_what_was_computed_is_not_counted_again(model: MatMamba) -> None:
    full, small = (count_macs(model, width) for width in ("full", "1/4"))
    patches, depth = script.patch_macs(model), len(model.heads)
    assert script.costs(model, "1/4", 0)["small_and_rest"] == small + full - patches
    for end in range(1, depth):
        found = script.costs(model, "1/4", end)
        first = sum(script.block_macs(model, "1/4")[:end])
        assert small < found["mixed"] < full
        assert found["small_and_rest"] == small + found["mixed"] - patches - first


def test_the_same_products_are_made_apart_and_together(model: MatMamba) -> None:
    counted = []
    for at_once in (False, True):
        with FlopCounterMode(display=False) as counter:
            script.project(model, "1/4", at_once)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0


def test_the_fewest_queries_are_sent_on_that_keep_to_the_target() -> None:
    """Against all thresholds by hand; ties are sent together; the best rule is taken."""
    rng = np.random.default_rng(0)
    cheap, rest = rng.choice([0.0, 0.0, 0.01], (60, 2)), np.zeros((60, 2))
    rules = [rng.integers(0, 20, 60) / 20, -cheap.max(1)]
    expected = []
    for margins in rules:
        for threshold in [*np.unique(margins), np.inf]:
            sent = margins < threshold
            if np.where(sent[:, None], rest, cheap).mean(0).max() <= script.LOSS / 100 + 1e-12:
                expected.append(sent.mean())
                break
    assert script.fewest(rules, cheap, rest) == pytest.approx(min(expected))
    assert script.fewest(rules, cheap, rest + 1.0) is None
    assert script.gated(None, 1.0, 2.0, 4.0) is None
    assert script.gated(0.25, 1.0, 2.0, 5.0) == {"share": 0.25, "macs_over_full": 0.25}
