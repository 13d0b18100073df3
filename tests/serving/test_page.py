"""The page's files: nothing from elsewhere, no text read as HTML, and addresses that work below any path."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import matmamba_vision.serving
import pytest
from matmamba_vision.galleries.page import STYLE

FOLDER = Path(matmamba_vision.serving.__file__).with_name("page")
FILES = sorted(FOLDER.iterdir())
# What makes elements or programs of texts.
FROM_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|Function\("
)


class Tags(HTMLParser):
    """Tags with their attributes, and what stands within scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


@pytest.mark.parametrize("file", [*FILES, STYLE], ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(", text)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.js")), ids=lambda file: file.name)
def test_scripts_make_nothing_of_texts_and_ask_below_the_page(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not FROM_TEXT.search(text)
    assert not re.search(r"[\"'`]/(v1|page)", text)
    assert text.count("\n") <= 500
    for name in re.findall(r"from \"\./([^\"]+)\"", text):
        assert (FOLDER / name).is_file(), name


def test_the_page_has_no_script_and_no_style_within() -> None:
    tags = Tags((FOLDER / "index.html").read_text(encoding="utf-8")).tags
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert [script["src"] for script in scripts] == ["page/main.js"]
    assert "style" not in {tag for tag, _ in tags}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    loaded = [found[name] for _, found in tags for name in ("src", "href") if found.get(name)]
    served = {f"page/{file.name}" for file in [*FILES, STYLE]} | {"#results"}
    assert set(loaded) <= served


def test_what_scripts_look_for_is_in_the_page() -> None:
    ids = {found.get("id") for _, found in Tags((FOLDER / "index.html").read_text(encoding="utf-8")).tags}
    sought = {
        name for file in FOLDER.glob("*.js") for name in re.findall(r"byId\(\"([^\"]+)\"\)", file.read_text())
    }
    assert sought
    assert sought <= ids
