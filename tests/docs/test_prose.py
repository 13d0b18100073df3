"""How the pages are written: their length, and one spelling."""

from __future__ import annotations

import re
from pathlib import Path

import documents
import pytest

# American spellings of words that stand, or may stand, in these pages.
AMERICAN = re.compile(
    r"\b(colors?|colored|gr[a]y|centers?|centered|behaviors?|neighbors?|neighboring|favorites?|honors?"
    r"|(?:normal|optim|general|initial|summar|recogn|organ|serial|visual|minim|maxim|real|special|parallel"
    r"|quant|token)iz(?:e|es|ed|ing|er|ers|ation|ations)"
    r"|analyz(?:e|es|ed|ing)|catalogs?|dialogs?|artifacts?|labeled|labeling|modeled|modeling|canceled"
    r"|traveled|fulfills?|licenses?(?= under)|judgment|learned|spelled|distill(?:s)?)\b",
    re.IGNORECASE,
)
# Words that mean something else to readers of this field, or nothing.
FOREIGN = re.compile(r"\b(dear|dearer|dearest|calm|what is to be)\b", re.IGNORECASE)
# Titles of papers are as their authors wrote them.
TITLES = re.compile(r"^.*(?:title=|arXiv).*$", re.MULTILINE)


def text_of(page: Path) -> str:
    return TITLES.sub("", documents.prose(page))


@pytest.mark.parametrize("page", documents.PAGES, ids=documents.name)
def test_spelling_is_british(page: Path) -> None:
    assert not [match.group() for match in AMERICAN.finditer(text_of(page))]


@pytest.mark.parametrize("page", documents.PAGES, ids=documents.name)
def test_words_are_those_of_the_field(page: Path) -> None:
    assert not [match.group() for match in FOREIGN.finditer(text_of(page))]


def test_the_spelling_test_sees_american_words() -> None:
    assert AMERICAN.search("the normalized color of its neighbors")
    assert not AMERICAN.search("the normalised colour of its neighbours")


def test_the_readme_is_short() -> None:
    assert len(documents.README.read_text().splitlines()) <= 200
