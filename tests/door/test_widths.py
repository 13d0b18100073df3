"""`validate`, `select` and `extract` as a program calls them: results, events, files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matmamba_common.errors import MatMambaError
from matmamba_vision import MatMamba, Width, load_checkpoint
from matmamba_vision.progress import Event, Notice
from matmamba_vision.widths.extract import extract
from matmamba_vision.widths.select import select
from matmamba_vision.widths.validate import validate
from untrained_runs import require_finished, untrained_run


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Path:
    """The folder of an untrained model, of a run on the photos."""
    return untrained_run(photos, tmp_path / "run")


def test_a_validation_is_a_value_and_files(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    output = tmp_path / "measured"
    settings: dict[str, Any] = {"widths": ["full", 0.25], "dims": [4, 32], "device": "cpu"}
    found = validate(run, output=output, **settings, progress=events.append)
    assert capsys.readouterr() == ("", "")
    require_finished(events, "encoding queries", "encoding gallery", "searching", "measuring latency")
    assert [row["width"] for row in found.widths] == ["full", "1/4"]
    assert (found.output, found.probes) == (output, None)
    assert json.loads((output / "results.json").read_text()) == found.to_dict()
    before = {file: file.read_bytes() for file in run.rglob("*")}
    again = validate(load_checkpoint(run), **settings)
    assert again.output is None
    assert again.retrieval == found.retrieval
    assert {file: file.read_bytes() for file in run.rglob("*")} == before


def test_a_selection_is_a_value_and_a_slice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    output, settings = tmp_path / "chosen", {"evaluations": 6, "device": "cpu"}
    found = select(run, "params=10k", output=output, **settings, progress=events.append)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")
    require_finished(events, "profiling for params", "reading images", "evaluating")
    assert any(isinstance(event, Notice) and "images decide" in event.text for event in events)
    assert found.costs["params"] <= 10_000
    assert not found.cut_short
    assert (found.label, len(found.candidates)) in {(row["width"], 6) for row in found.shown}
    assert yaml.safe_load((output / "slice.yaml").read_text())["heads"] == found.to_dict()["heads"]
    assert found.slice == output / "slice.yaml"
    # The slice is a width for other calls, as a path and as a text.
    for width in (found.slice, str(found.slice)):
        small = extract(run, width, output=tmp_path / "small", measure=False, overwrite=True)
        assert small.parameters == found.costs["params"]


def test_extract_gives_a_model_or_writes_one(
    run: Path, tmp_path: Path, images: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = load_checkpoint(run)
    model = extract(parent.model, "1/4")
    assert isinstance(model, MatMamba)
    assert torch.equal(model(images), parent.model(images, width="1/4"))
    events: list[Event] = []
    found = extract(parent, Width((2, 2, 2)), output=tmp_path / "small", progress=events.append)
    assert capsys.readouterr() == ("", "")
    require_finished(events, "encoding")
    assert (found.width, found.difference, found.onnx, found.not_measured) == ("1/4", 0, None, "")
    assert found.accuracy is not None
    assert 0 <= found.accuracy["top1"] <= 1
    assert found.latency is not None
    written = load_checkpoint(found.file).model
    assert torch.equal(written(images), model(images))
    assert json.loads(json.dumps(found.to_dict()))["file"] == str(found.file)
    alone = extract(run, "1/4", output=tmp_path / "small.safetensors")
    assert (alone.accuracy, alone.latency) == (None, None)
    assert load_checkpoint(alone.file).model.heads == (2, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"checkpoint": 3}, "checkpoint is 3: it can be a path"),
        ({"widths": "1/4"}, "widths is '1/4': it can be a list"),
        ({"widths": [None]}, "width is nothing"),
        ({"dims": [4.5]}, "dims\\[0\\] is 4.5"),
        ({"knn": [True]}, "knn\\[0\\] is true"),
        ({"data": 5}, "data is 5"),
        ({"root": 5}, "root is 5"),
        ({"compare": "1/2"}, "compare is '1/2'"),
        ({"device": None}, "device is nothing: it can be text"),
        ({"output": 7}, "output is 7"),
    ],
)
def test_a_wrong_type_is_named(arguments: dict[str, Any], named: str, run: Path, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"checkpoint": run, "output": tmp_path / "none", "device": "cpu"} | arguments
    with pytest.raises(TypeError, match=named):
        validate(wanted.pop("checkpoint"), **wanted)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("job", "arguments", "named"),
    [
        (validate, {"widths": ["1/3"]}, "width '1/3'"),
        (validate, {"widths": [Path("nowhere.yaml")]}, "no slice nowhere.yaml"),
        (validate, {"gallery_images": 0}, "gallery_images is 0: it can be 1 or more"),
        (validate, {"dims": [33]}, "dims 33: embeddings of this checkpoint have 32 dims"),
        (validate, {"compare": ("1/2", "3/8")}, "compare 3/8: it can be one of the widths full, 1/2"),
        (validate, {"root": "nowhere"}, "nowhere"),
        (validate, {"data": "moon"}, "moon"),
        (validate, {"device": "abacus"}, "'abacus'"),
        (select, {"budget": "watts=3"}, "limits none of gmacs"),
        (select, {"budget": "params=10"}, "no width of this checkpoint is within params=10"),
        (select, {"budget": "params=10k", "images": 0}, "images is 0"),
        (extract, {"width": "1/3"}, "width '1/3'"),
        (extract, {"width": "1/4", "root": "nowhere"}, "nowhere"),
        (extract, {"width": "1/4", "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_written(
    job: Callable[..., Any], arguments: dict[str, Any], named: str, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(MatMambaError, match=named):
        job(run, output=tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("job", [validate, select, extract])
def test_a_checkpoint_that_is_not_there_is_named(job: Callable[..., Any], tmp_path: Path) -> None:
    given = {select: ("params=1k",), extract: ("1/4",)}.get(job, ())
    with pytest.raises(MatMambaError, match="no checkpoint at"):
        job(tmp_path / "nothing", *given, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_extract_needs_an_output_for_a_checkpoint_alone(run: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="output is left out"):
        extract(run, "1/4")  # type: ignore[call-overload]
    model = load_checkpoint(run).model
    with pytest.raises(TypeError, match="output: a model in memory"):
        extract(model, "1/4", output=tmp_path / "none")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="width is nothing"):
        extract(model, None)  # type: ignore[call-overload]
    with pytest.raises(MatMambaError, match="the checkpoint itself"):
        extract(run, "1/4", output=run, overwrite=True)
    assert not (tmp_path / "none").exists()


def test_what_is_extracted_from_is_named() -> None:
    with pytest.raises(TypeError, match="model is 3"):
        extract(3, "1/4")  # type: ignore[call-overload]
