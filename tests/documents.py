"""The pages of the documentation, for tests: their text, their blocks of code, their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).*?\1", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")


def name(page: Path) -> str:
    """The page's path in the repository, for the ids of tests."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for found, text in _FENCE.findall(page.read_text()) if found == language]


def unfenced(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def prose(page: Path) -> str:
    """The text of a page without code, links' targets and comments."""
    text = re.sub(r"<!--.*?-->", "", unfenced(page), flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", _CODE.sub(" ", text))


def links(page: Path) -> list[tuple[str, str]]:
    """The targets of a page's links as (path, anchor), either of them "" if it is not there."""
    return _LINK.findall(_CODE.sub(" ", unfenced(page)))


def shell_lines(page: Path) -> Iterator[list[str]]:
    """The commands of a page's shell blocks in words, comments left out, continued lines joined."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words
