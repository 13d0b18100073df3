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
    for page in module.PAGES:
        text = (ROOT / page).read_text()
        assert "<!-- begin " in text
        assert module.render(text) == text, f"{page}: run `make readme`"


def test_every_file_it_shows_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert "benchmarks/results/demo/examples.png" in links
    for link in links:
        assert (ROOT / link).is_file(), link
