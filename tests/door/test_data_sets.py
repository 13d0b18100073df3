"""What is done with data sets before training, as calls of Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_datasets import DataConfig
from matmamba_vision import MatMambaError, prepare_shards, reading_rates, verify_data
from matmamba_vision.progress import Event, Progress
from PIL import Image


@pytest.fixture(autouse=True)
def silent(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No call prints."""
    yield
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of five images each."""
    draw = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(5):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{n}.png")
    return tmp_path / "photos"


def test_shards_are_written_and_checked(photos: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    data = {"name": "folder", "root": str(photos)}
    done = prepare_shards(data, tmp_path / "shards", progress=events.append)
    assert sum(split.images for split in done.splits) == 10
    assert json.loads(json.dumps(done.to_dict()))["folder"] == str(tmp_path / "shards")
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.stage, last.finished) == ("preparing", True)
    found = verify_data(DataConfig(name="shards", root=str(tmp_path / "shards")))
    assert found.whole
    assert sum(found.images.values()) == 10
    assert json.loads(json.dumps(found.to_dict()))["whole"] is True


def test_a_broken_image_is_found(photos: Path) -> None:
    (photos / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = verify_data({"name": "folder", "root": str(photos)})
    assert not found.whole
    assert [name for names in found.broken.values() for name in names] == [str(photos / "a" / "0.png")]


def test_rates(photos: Path) -> None:
    (row,) = reading_rates({"name": "folder", "root": str(photos)}, input_size=16, seconds=0.01)
    assert row["workers"] == 0
    assert row["images_per_second"] > 0


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda place: verify_data("photos"), TypeError, "data is 'photos': it can be a DataConfig"),  # type: ignore[arg-type]
        (
            lambda place: verify_data({"nam": "folder"}),
            MatMambaError,
            "data: unknown key nam; did you mean name",
        ),
        (lambda place: verify_data({"held_out": 2.0}), MatMambaError, "data.held_out is 2.0"),
        (lambda place: prepare_shards({"name": "moon"}, place / "new"), MatMambaError, "moon"),
        (lambda place: prepare_shards({"name": "digits"}, 3), TypeError, "output is 3"),  # type: ignore[arg-type]
        (lambda place: prepare_shards({}, place / "new", shard_mb=0), MatMambaError, "shard_mb is 0"),
        (lambda place: reading_rates({"name": "digits"}, workers=2), TypeError, "workers is 2"),  # type: ignore[arg-type]
        (lambda place: reading_rates({"name": "digits"}, workers=[-1]), MatMambaError, "workers is -1"),
        (lambda place: reading_rates({"name": "digits"}, seconds=0), MatMambaError, "seconds is 0"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    call: Callable[[Path], Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
