"""What is imported when it is first used is what is written there for those who only read it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from matmamba_common.lazy import Deferred, when_imported

# All modules whose names are imported when they are asked for.
LAZY = (
    "matmamba_datasets",
    "matmamba_retrieval",
    "matmamba_vision",
    "matmamba_vision.api",
    "matmamba_vision.measures",
    "matmamba_vision.models",
    "matmamba_vision.official",
    "matmamba_vision.runs",
    "matmamba_vision.training",
)


def written(module: ModuleType) -> tuple[dict[str, str], dict[str, str]]:
    """Where names are from, as a type checker reads it, and as the program does."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    (choice,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    read = {
        alias.name: "." * node.level + (node.module or "")
        for node in choice.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (call,) = (node for node in ast.walk(choice) if isinstance(node, ast.Call))
    table = ast.literal_eval(call.args[1])
    return read, {name: place for place, names in table.items() for name in names}


@pytest.mark.parametrize("name", LAZY)
def test_names_come_from_where_a_reader_finds_them(name: str) -> None:
    module = importlib.import_module(name)
    read, done = written(module)
    assert read == done
    assert {one for one in module.__all__ if not one.startswith("__")} == set(done)
    for one, place in done.items():
        there = importlib.import_module(place, module.__package__)
        assert getattr(module, one) is getattr(there, one)
        assert one in dir(module)


@pytest.mark.parametrize("name", LAZY)
def test_no_name_is_that_of_a_module_below(name: str) -> None:
    """Importing the module would put it where the name is looked for first."""
    package = importlib.import_module(name)
    if hasattr(package, "__path__"):
        below = {file.stem for place in package.__path__ for file in Path(place).iterdir()}
        assert not below & set(package.__all__)


def test_an_unknown_name_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'matmamba_vision' has no attribute 'nothing'"):
        getattr(importlib.import_module("matmamba_vision"), "nothing")  # noqa: B009


def test_a_deferred_library_is_the_library() -> None:
    import colorsys

    assert Deferred("colorsys").rgb_to_hsv is colorsys.rgb_to_hsv


def test_something_is_done_when_a_library_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "awaited.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    seen = list[int]()
    when_imported("awaited", lambda: seen.append(sys.modules["awaited"].value))
    assert not seen
    module = importlib.import_module("awaited")
    assert seen == [1]
    # As if nobody had waited for it.
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    when_imported("awaited", lambda: seen.append(2))
    assert seen == [1, 2]


@pytest.mark.parametrize("program", ["import timm, matmamba_vision", "import matmamba_vision, timm"])
def test_timm_knows_the_models_whichever_is_imported_first(program: str) -> None:
    known = f"import matmamba_datasets; {program}; print(len(timm.list_models('matmamba_*')))"
    said = subprocess.run([sys.executable, "-c", known], capture_output=True, text=True, check=True)
    assert int(said.stdout) > 5


def test_threads_that_ask_at_once_wait_until_a_library_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loads_slowly.py").write_text("import time\ntime.sleep(0.3)\nlast = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    library = Deferred("loads_slowly")
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda _: library.last, range(4))] == [1] * 4
    with pytest.raises(AttributeError, match="never"):
        _ = library.never
