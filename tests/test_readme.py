"""The README shows what was measured, and nothing that is not there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_generated_tables_are_those_of_the_recorded_results() -> None:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert README.count("| --- |") >= 4
    assert module.render(README) == README, "run `make readme`"


def test_every_file_it_shows_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert "benchmarks/results/demo/examples.png" in links
    for link in links:
        assert (ROOT / link).is_file(), link
