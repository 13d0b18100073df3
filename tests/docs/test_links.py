"""Links of the pages lead somewhere, and so do their anchors."""

from __future__ import annotations

from pathlib import Path

import documents
import pytest
from markdown.extensions.toc import slugify, unique


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    found: set[str] = set()
    for line in documents.unfenced(page).splitlines():
        if line.startswith("#"):
            unique(slugify(line.lstrip("#").strip().replace("`", ""), "-"), found)
    return found


@pytest.mark.parametrize("page", documents.PAGES, ids=documents.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for path, anchor in documents.links(page):
        if path.startswith(("http://", "https://")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {path}#{anchor}"


def test_every_page_is_linked_from_the_readme_or_the_first_page() -> None:
    linked = {
        (page.parent / path).resolve()
        for page in (documents.README, documents.ROOT / "docs" / "index.md")
        for path, _ in documents.links(page)
    }
    pages = {page for page in documents.PAGES if page.parent == documents.ROOT / "docs"}
    assert pages - {documents.ROOT / "docs" / "index.md"} <= linked
