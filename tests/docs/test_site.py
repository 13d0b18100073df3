"""The site is built without a warning, asks no other server for anything, and has every public name."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import documents
import pytest

PACKAGES = ("matmamba_vision", "matmamba_retrieval", "matmamba_datasets")
# Of an element, what a browser fetches by itself.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
LEFT_TO_LIBRARIES = {"__version__"}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    settings = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    said = subprocess.run(
        command, cwd=documents.ROOT, env=settings, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    return folder


class Page(HTMLParser):
    """What a page fetches, and the names of its places.

    Attributes:
        fetched: addresses.
        ids: of elements.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched, self.ids = list[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if name := found.get("id"):
            self.ids.add(name)
        if (target := found.get(FETCHED.get(tag, ""))) and found.get("rel") != "canonical":
            self.fetched.append(target)


def test_pages_ask_no_other_server(site: Path) -> None:
    for file in site.rglob("*.html"):
        outside = [link for link in Page(file.read_text()).fetched if re.match(r"(https?:)?//", link)]
        assert not outside, file


def test_styles_ask_no_other_server(site: Path) -> None:
    for file in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", file.read_text()), file


def public(package: str) -> list[str]:
    return [name for name in importlib.import_module(package).__all__ if name not in LEFT_TO_LIBRARIES]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_stands_in_the_reference(package: str, site: Path) -> None:
    ids = Page((site / "api" / f"{package}.html").read_text()).ids
    assert not [name for name in public(package) if f"{package}.{name}" not in ids]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package: str) -> None:
    module = importlib.import_module(package)
    for name in public(package):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue  # a plain value or a type's other name, which carry no docstring
        assert (value.__doc__ or "").strip(), name
        if isinstance(value, type):
            for part, member in vars(value).items():
                if not part.startswith("_") and (callable(member) or isinstance(member, property)):
                    assert (member.__doc__ or "").strip() or inherited(value, part), f"{name}.{part}"


def inherited(kind: type, part: str) -> bool:
    """Whether a method is documented where it is first declared."""
    return any(
        (getattr(base, part, None).__doc__ or "").strip() for base in kind.__mro__[1:] if hasattr(base, part)
    )


def test_every_page_is_in_the_navigation(site: Path) -> None:
    text = (documents.ROOT / "mkdocs.yml").read_text()
    for page in (documents.ROOT / "docs").rglob("*.md"):
        assert page.relative_to(documents.ROOT / "docs").as_posix() in text


def sections(node: ast.AST) -> list[str]:
    """Lines of a docstring's Args, Attributes and Raises."""
    text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
    found, inside = [], False
    for line in (text or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises):", line):
            inside = True
        elif line.strip() and not line.startswith(" "):
            inside = False
        elif inside:
            found.append(line)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_each_argument_has_a_line_of_its_own(package: str) -> None:
    """`Args: x: this. y: that.` on one line would be read as one argument."""
    folder = Path(importlib.import_module(package).__file__ or "").parent
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            lines = sections(node)
            known = names(node) if lines else set()
            for line in lines:
                entry = re.match(r"    (\w+, )+\w+: ", line)
                assert not entry, f"{file.name}: {line}"
                later = re.findall(r"\. (\w+): ", line)
                assert not [name for name in later if name in known], f"{file.name}: {line}"


def names(node: ast.AST) -> set[str]:
    """Arguments and attributes that a docstring may describe."""
    found = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
    return found | {
        part.target.id
        for part in ast.walk(node)
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
