"""Answers as a page of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from ..given import require_place
from ..public_call import public_call
from .answers import Answer, Hit, listed_answers, mean_cost, spent_text
from .page import Card, Page, Section, image_card
from .pictures import Pictures
from .strategies import strategy_text


@public_call
def write_page(answers: Answer | Iterable[Answer], file: str | os.PathLike[str], *, intro: str = "") -> None:
    """Write answers with their pictures into one HTML file that holds everything and opens from disk.

    Args:
        answers: of a search, one or several.
        file: to write; it is complete or not there, and an older one is replaced.
        intro: a sentence below the title.

    Raises:
        ConfigError: the folder of the file is not there.
        SystemRefusalError: the file cannot be written.
        TypeError: an argument is of another type.
    """
    write_sections(answers, file, intro, lambda answer, pictures: [answer_section(answer, pictures)])


def write_sections(
    answers: Answer | Iterable[Answer],
    file: str | os.PathLike[str],
    intro: str,
    sections: Callable[[Answer, Pictures], Iterable[Section]],
) -> None:
    """The same page of any sections.

    Args:
        answers: as for `write_page`.
        file: as for `write_page`.
        intro: as for `write_page`.
        sections: of an answer.
    """
    place, listed = require_place("file", file), listed_answers(answers)
    pictures = Pictures()
    with Page(place, "Search results", intro) as page:
        for answer in listed:
            for section in sections(answer, pictures):
                page.write(section)
        if listed:
            page.facts["strategy"] = strategy_text(listed[0].strategy)
            page.facts["per query"] = spent_text(mean_cost(listed))


def answer_section(answer: Answer, pictures: Pictures) -> Section:
    """The query and its hits, the best first."""
    path = answer.source if isinstance(answer.source, str) else ""
    if answer.error:
        return Section(answer.heading, note=f"cannot be read: {answer.error}", warning=True)
    lead = Card(pictures.data_url(answer.source), "query", answer.text, path=path, mark="lead")
    if answer.text == answer.query:
        lead = Card("", "query", words=answer.text, mark="lead")
    return Section(answer.heading, [_card(hit, pictures) for hit in answer], lead, answer.reason)


def _card(hit: Hit, pictures: Pictures) -> Card:
    return image_card(pictures, hit, hit.score, badge=f"{hit.rank}  ·  {hit.score:.3f}")
