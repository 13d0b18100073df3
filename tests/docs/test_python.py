"""The Python examples of the pages run, and so do the scripts in examples/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import documents
import pytest

BLOCKS = [
    pytest.param(block, id=f"{documents.name(page)}-{number}")
    for page in documents.PAGES
    for number, block in enumerate(documents.blocks(page, "python"))
]
SCRIPTS = {
    "own_photos.py": ("PHOTOS", "--gallery", "MINE"),
    "adaptive_retrieval.py": ("PHOTOS", "--epochs", "1"),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_runs(block: str, world: Path) -> None:
    """As a program of its own would: with nothing but what it imports."""
    if 'mv.index("PHOTOS", "G"' in block:
        # With the weights of the package, as nobody has made it before.
        shutil.rmtree("G")
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})


def test_the_readme_indexes_and_searches_in_three_lines() -> None:
    (first, *_) = documents.blocks(documents.README, "python")
    assert "mv.index(" in first
    assert ".search(" in first


def test_every_example_is_tried() -> None:
    assert {file.name for file in (documents.ROOT / "examples").glob("*.py")} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs(script: str, world: Path) -> None:
    command = [sys.executable, str(documents.ROOT / "examples" / script), *SCRIPTS[script]]
    places = ("", "datasets", "retrieval")
    known = os.pathsep.join(str(documents.ROOT / place) for place in places)
    said = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": known}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    page = (documents.ROOT / "docs" / "examples.md").read_text()
    for line in LINES[script]:
        assert line in said.stdout
        assert line in page


# What each prints whatever its images are; the page shows them with what was recorded.
LINES = {
    "own_photos.py": (" images added, ", "like the file "),
    "adaptive_retrieval.py": ("held-out top-1: ", "single-shot, full width", "funnel by 1/8, 16-32-64 dims"),
}
