"""What a command imports: what it uses. Each runs in a fresh interpreter, whose modules are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matmamba_vision import __version__
from matmamba_vision.cli.main import COMMANDS, main
from matmamba_vision.errors import EXTRAS
from PIL import Image

# What trains and draws; none of it is needed to be told something.
HEAVY = (
    "torch", "torchvision", "timm", "accelerate", "torchmetrics", "matplotlib", "sklearn", "scipy",
    "tensorboard", "transformers", "onnx", "triton",
)  # fmt: skip
# What some commands need.
SOMETIMES = ("faiss", "sqlglot", "rich.progress")
# Libraries that are not installed, as far as a program can see; None in sys.modules is more than that.
ABSENT = """
class Absent:
    def find_spec(name, path=None, target=None):
        if name in os.environ["WITHOUT"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
"""
COUNT = f"""
import json, os, sys
{ABSENT}
from matmamba_vision.cli import main
found = []
for line in sys.argv[1:]:
    try:
        status = main(line.split())
    except SystemExit as leaving:
        status = leaving.code or 0
    found.append([status, [name for name in {[*HEAVY, *SOMETIMES]} if sys.modules.get(name)]])
with open("imported.json", "w") as file:
    json.dump(found, file)
"""
ERRORS = (
    "serach",
    "search --galery g",
    "search --gallery none a/0.png",
    "search --gallery g --like none",
    "search --gallery g none.png",
    "search --gallery g --text words",
    "gallery lsit",
    "index --checkpoint none --images photos --gallery new",
    "train --optim.lr -1",
    "train --config none.yaml",
    "validate --checkpoint none",
    "extract --checkpoint none --width 1/4 --output new",
    "data verify --data.name none",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of noise and a gallery of them."""
    root, rng = tmp_path_factory.mktemp("start"), np.random.default_rng(0)
    for number in range(12):
        file = root / "photos" / ("a", "b")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(file)
    model = ["--checkpoint", "matmamba_nano_patch4_32", "--threads", "1"]
    assert main(["index", *model, "--images", str(root / "photos"), "--gallery", str(root / "g")]) == 0
    return root


def run(place: Path, *lines: str, without: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Commands in one interpreter, where some libraries are not to be had."""
    known = os.environ | {"WITHOUT": " ".join(without)}
    command = [sys.executable, "-c", COUNT, *lines]
    done = subprocess.run(command, cwd=place, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def imported(place: Path, *lines: str, without: Sequence[str] = ()) -> list[tuple[int, set[str]]]:
    """Of commands in one interpreter: their exit status, and which heavy libraries are there behind them."""
    run(place, *lines, without=without)
    return [(status, set(found)) for status, found in json.loads((place / "imported.json").read_text())]


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"matmamba {__version__}\n"


def test_help_imports_no_library_of_models(place: Path) -> None:
    lines = [f"{line} --help" for line in ("", *COMMANDS, "gallery list", "data prepare")]
    for line, found in zip(lines, imported(place, *lines), strict=True):
        assert found == (0, set()), line


def test_an_error_without_a_model_imports_no_library_of_models(place: Path) -> None:
    for line, found in zip(ERRORS, imported(place, *ERRORS), strict=True):
        assert found == (2, set()), line


@pytest.mark.parametrize(
    ("line", "used"),
    [
        ("gallery info g", set()),
        ("gallery list g", set()),
        ("gallery list g --where label='x'", {"sqlglot"}),
        ("gallery export g g.parquet", set()),
        ("gallery delete g --where id='b/5.png' --yes", {"sqlglot"}),
        ("gallery verify g", set()),
        ("search --gallery g --like a/0.png", {"faiss"}),
        ("duplicates --gallery g", {"faiss"}),
        ("knn-label --gallery g", {"faiss"}),
        ("data verify --data.name folder --data.root photos", set()),
    ],
)
def test_what_needs_no_model_imports_no_library_of_models(place: Path, line: str, used: set[str]) -> None:
    ((status, found),) = imported(place, line)
    assert status == 0
    assert found <= used


def test_a_search_with_a_photo_imports_torch_alone(place: Path) -> None:
    assert imported(place, "search --gallery g photos/a/0.png") == [(0, {"torch", "faiss"})]


def test_the_packages_import_nothing_heavy() -> None:
    """Not even NumPy."""
    program = "import sys, matmamba_vision, matmamba_datasets, matmamba_retrieval\n"
    program += f"print([name for name in {[*HEAVY, 'faiss', 'numpy', 'PIL']} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


# What the extra `torch` brings.
OF_TORCH = [package for package, extra in EXTRAS.items() if extra == "torch"]


def test_a_gallery_is_searched_where_there_is_no_torch(place: Path) -> None:
    lines = (
        "gallery info g",
        "search --gallery g --like a/0.png",
        "duplicates --gallery g",
        "merge g --into h",
    )
    assert [status for status, _ in imported(place, *lines, without=OF_TORCH)] == [0] * len(lines)


def test_a_gallery_with_encoders_is_served_where_there_is_no_torch(place: Path) -> None:
    assert main(["merge", str(place / "g"), "--into", str(place / "kept")]) == 0
    assert main(["gallery", "freeze", str(place / "kept"), "--widths", "full", "1/2"]) == 0
    line = "serve --gallery kept --widths full 1/2 --port 0 --check"
    ((status, found),) = imported(place, line, without=OF_TORCH)
    assert status == 0
    assert found <= {"faiss", "sqlglot"}


def test_what_needs_torch_says_which_extra_brings_it(place: Path) -> None:
    lines = (
        "search --gallery g photos/a/0.png",
        "index --images photos --gallery new",
        "train --data.name folder --data.root photos --output new",
        "validate --checkpoint matmamba_nano_patch4_32",
        "extract --checkpoint matmamba_nano_patch4_32 --width 1/4 --output new",
    )
    said = run(place, *lines, without=OF_TORCH).stderr.splitlines()
    assert said == ["matmamba: error: this needs torch: pip install 'matmamba-vision[torch]'"] * len(lines)


def test_a_call_that_needs_torch_says_so_too() -> None:
    program = f"import os, sys\n{ABSENT}\nimport matmamba_vision as mv\n"
    program += "try:\n    mv.train\nexcept mv.MissingPackageError as error:\n    print(error)"
    known = os.environ | {"WITHOUT": " ".join(OF_TORCH)}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, env=known, capture_output=True, text=True, check=True).stdout
    assert said == "this needs torch: pip install 'matmamba-vision[torch]'\n"
