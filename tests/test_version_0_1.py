"""What version 0.1 made is read, and what it answered is answered: to the bit, on a machine like its own.

`data/v0_1` holds a run, galleries with each kind of plan, vectors, a Parquet file, and what the commands
printed then, with --json; `data/v0_1/make.py` made it. The commands are given once more to the code of today,
each in a copy: by PyTorch's operations, as then, and by the kernels in C. Scores may differ in their last
digits everywhere: images are encoded by frozen widths now, whose sums are rounded otherwise. The kernels,
another processor, and other versions of the libraries that compute round all sums otherwise: there, numbers
are compared with a tolerance.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from matmamba_common.native import loading
from matmamba_vision.cli.main import main
from matmamba_vision.native import why_missing
from matmamba_vision.ops import resolve
from safetensors.numpy import load_file

HERE = Path(__file__).parent / "data" / "v0_1"
ABOUT = json.loads((HERE / "about.json").read_text())
# Values below these keys are times, or say when something was made: their keys are compared, they are not.
# Paths are compared below the folder that was asked in.
EXCLUDED = {
    "ms", "ms_by_stage", "ms_p95", "ms_quartiles", "encode_ms", "search_ms", "one_encode_ms", "one_search_ms",
    "latency_ms", "queries_per_second", "seconds", "changed",
}  # fmt: skip
# Which code and libraries, on which machine: neither values nor keys are those of then.
ENVIRONMENT = {"commit", "versions", "machine"}
# Keys that answers have had since: what was there then is there still, and means the same.
ADDED = {
    "rerank_widths", "ms_over_single_shot", "macs_over_single_shot", "saves", "falls_back", "notes",
    "encoded_by", "takes_text",
}  # fmt: skip
# Of numbers, on a machine that rounds otherwise.
TOLERANCE = 1e-4
# Of scores, on any machine: that of embeddings by a frozen width.
SCORE_TOLERANCE = 1e-5


def like_then() -> bool:
    """Whether the last bit of a sum has to be the same as on the machine that made the data."""
    if why_missing() is None:
        return False
    then = dict(ABOUT["machine"])
    processor, capability, kind = (then.pop(name) for name in ("processor", "capability", "kind"))
    same = all(version(package) == known for package, known in then.items())
    names = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    family = " ".join(re.findall(r"^(?:cpu family|model)\t*: (.*)$", names, re.MULTILINE)[:2])
    return (
        same
        and torch.backends.cpu.get_cpu_capability() == capability
        and f": {processor}\n" in names
        and family == kind
    )


def kept(value: Any, excluded: bool = False) -> Any:
    """JSON without the keys that are new, and with nothing in place of the values that are excluded."""
    if isinstance(value, dict):
        parts = {key: None if key in ENVIRONMENT else item for key, item in value.items() if key not in ADDED}
        return {key: kept(item, excluded or key in EXCLUDED) for key, item in parts.items()}
    if isinstance(value, list):
        return [kept(item, excluded) for item in value]
    return None if excluded else value


def printed(text: str) -> list[Any]:
    """What a command printed: a JSON document, or one on each line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The single values in JSON, by where they stand; keys in their order."""
    if not isinstance(value, dict | list) or not value:
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {where: item for key, part in items for where, item in flat(part, f"{name}/{key}").items()}


def require_same(now: Any, then: Any) -> None:
    """The same keys in the same order, and the same values."""
    found, known = flat(now), flat(then)
    assert list(found) == list(known)
    for name, value in known.items():
        assert type(found[name]) is type(value), name
        tolerance = TOLERANCE if not like_then() else SCORE_TOLERANCE if name.endswith("/score") else 0
        near = pytest.approx(value, rel=tolerance, abs=tolerance) if isinstance(value, float) else value
        assert found[name] == near, name


def require_same_weights(now: Path, then: Path) -> None:
    found, known = load_file(now), load_file(then)
    assert list(found) == list(known)
    for name, values in known.items():
        assert found[name].dtype == values.dtype
        if like_then():
            assert np.array_equal(found[name], values), name
        np.testing.assert_allclose(found[name], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


@pytest.fixture(params=["PyTorch's operations", "kernels"], autouse=True)
def arithmetic(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """As if there were no kernels in C, and with them."""
    if request.param == "kernels" and (reason := why_missing()):
        pytest.skip(f"no kernels: {reason}")
    if request.param != "kernels":
        monkeypatch.setattr(loading, "FILE", tmp_path / "none.so")
    resolve.cache_clear()
    yield
    resolve.cache_clear()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what version 0.1 made, to work in."""
    shutil.copytree(HERE, tmp_path / "0.1", ignore=shutil.ignore_patterns("answers", "*.py", "__pycache__"))
    monkeypatch.chdir(tmp_path / "0.1")
    return tmp_path / "0.1"


@pytest.mark.parametrize("name", ABOUT["asked"])
def test_commands_answer_as_then(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *before, last = ABOUT["asked"][name]["commands"]
    for command in before:
        assert main(shlex.split(command)) == 0, command
    capsys.readouterr()
    assert main(shlex.split(last)) == ABOUT["asked"][name]["status"]
    said = capsys.readouterr().out
    if "--json" in last:
        now = printed(said.replace(str(place), ABOUT["place"]))
        then = printed((HERE / "answers" / f"{name}.json").read_text())
        require_same(kept(now), kept(then))


def test_an_export_is_the_file_of_then(place: Path) -> None:
    assert main(["gallery", "export", "gallery", "now.parquet"]) == 0
    assert pq.read_table("now.parquet").equals(pq.read_table("exported.parquet"), check_metadata=True)


def test_the_same_training_gives_the_weights_of_then(place: Path) -> None:
    assert main([*shlex.split(ABOUT["train"]), "--output", "now"]) == 0
    for file in ("model.safetensors", "best.safetensors"):
        require_same_weights(place / "now" / file, place / "run" / file)


def test_a_run_of_then_is_continued_to_its_weights(place: Path) -> None:
    """From the checkpoint in its third epoch; what it had made of its fourth is taken away."""
    known = (place / "run" / "model.safetensors").rename(place / "known.safetensors")
    assert main([*shlex.split(ABOUT["train"]), "--output", "run", "--resume", "auto"]) == 0
    require_same_weights(place / "run" / "model.safetensors", known)
