"""One HTML page of pictures that holds all it shows: no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from types import TracebackType

from matmamba_datasets.frame_names import frame_of
from matmamba_datasets.kinds import container_of
from matmamba_retrieval import Row

from .answers import Hit
from .pictures import Pictures

# Of all pages: the service reads it, too.
STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class Card:
    """A picture and what is said about it. All texts are escaped when they are written.

    Attributes:
        picture: data URL, "" if there is none.
        title: first line.
        detail: second line.
        path: of the file, for the tooltip and, where it is a file, the link.
        score: in 0..1, drawn as a bar.
        badge: a word over the picture.
        mark: "", "lead" (set apart) or "doubt" (in the colour of warnings).
        words: shown where there is no picture; "" says that it was not found.
    """

    picture: str
    title: str
    detail: str = ""
    path: str = ""
    score: float | None = None
    badge: str = ""
    mark: str = ""
    words: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of texts: the first column is what a row is about, the others are figures.

    Attributes:
        heads: names of the columns.
        rows: as many texts each.
        missed: numbers of the rows in the colour of warnings.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    missed: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """A heading, and below it whatever is given of a note, a plot, a table, a leading card, and cards.

    Attributes:
        heading: in a line.
        cards: of images.
        lead: card that stands beside them.
        note: some sentences.
        warning: whether the heading is in the colour of warnings.
        plot: PNG, b"" for none.
        caption: what the plot shows, for those who do not see it, too.
        table: of figures.
        dense: whether cards are small, and many in a row.
    """

    heading: str
    cards: Sequence[Card] = ()
    lead: Card | None = None
    note: str = ""
    warning: bool = False
    plot: bytes = b""
    caption: str = ""
    table: PageTable | None = None
    dense: bool = False


@dataclass
class Page:
    """Writes sections as they come, to a file that is complete or not there; an older one is replaced.

    Attributes:
        file: where.
        title: of the page.
        intro: a sentence below it.
        facts: names and values at its end, which can be filled in until the page is closed.
    """

    file: Path
    title: str
    intro: str
    facts: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Page:
        self._partial = self.file.with_name(f".{self.file.name}.partial")
        # Names of files can hold bytes that are no text.
        self._opened = self._partial.open("w", encoding="utf-8", errors="replace")
        self._opened.write(html_head(self.title, self.intro))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in self.facts.items())
        self._opened.write(f"</main>\n<footer class=sheet><dl>{rows}</dl></footer>\n</body>\n</html>\n")
        self._opened.close()
        if kind is None:
            self._partial.replace(self.file)
        else:
            self._partial.unlink(missing_ok=True)

    def write(self, section: Section) -> None:
        """Add a section."""
        note = f"<p class=note>{escape(section.note)}</p>" if section.note else ""
        plot = _plot(section.plot, section.caption) if section.plot else ""
        table = _table(section.table) if section.table else ""
        lead = f"<div class=lead>{_card(section.lead)}</div>" if section.lead else ""
        cards = "".join(f"<li>{_card(card)}</li>" for card in section.cards)
        grid = f'<ol class="grid{" dense" if section.dense else ""}">{cards}</ol>'
        kind = ' class="warning"' if section.warning else ""
        self._opened.write(
            f"<section{kind}><h2>{escape(section.heading)}</h2>{note}{plot}{table}"
            f"<div class=row>{lead}{grid if section.cards else ''}</div></section>\n"
        )


def html_head(title: str, intro: str) -> str:
    """A page as far as its first section, with the styles in it."""
    return _HEAD.substitute(title=escape(title), intro=escape(intro), style=STYLE.read_text(encoding="utf-8"))


def image_card(
    pictures: Pictures, row: Row | Hit, score: float | None = None, badge: str = "", mark: str = ""
) -> Card:
    """An image of a gallery: its label, or its id where it has none, stands first."""
    title, detail = (row.label, row.id) if row.label else (row.id, "")
    return Card(pictures.data_url(row.path), title, detail, row.path, score, badge, mark)


def _plot(png: bytes, caption: str) -> str:
    picture = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    alt = escape(caption, quote=True)
    return f'<figure class=plot><img alt="{alt}" src="{picture}"><figcaption>{alt}</figcaption></figure>'


def _table(table: PageTable) -> str:
    head = "".join(
        f"<th scope=col{_number(place)}>{escape(name)}</th>" for place, name in enumerate(table.heads)
    )
    body = "".join(_row(row, number in table.missed) for number, row in enumerate(table.rows))
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _row(texts: Sequence[str], missed: bool) -> str:
    cells = "".join(f"<td{_number(place)}>{escape(text)}</td>" for place, text in enumerate(texts))
    return f"<tr{' class=missed' if missed else ''}>{cells}</tr>"


def _number(place: int) -> str:
    return " class=number" if place else ""


def _card(card: Card) -> str:
    alt = escape(card.title, quote=True)
    picture = (
        f'<img alt="{alt}" loading=lazy src="{escape(card.picture, quote=True)}">'
        if card.picture
        else f"<q class=words>{escape(card.words)}</q>"
        if card.words
        else "<span class=missing>picture<br>not found</span>"
    )
    if card.picture and (link := _link(card.path)):
        picture = f'<a href="{escape(link, quote=True)}">{picture}</a>'
    badge = f"<span class=badge>{escape(card.badge)}</span>" if card.badge else ""
    bar = (
        ""
        if card.score is None
        else f"<div class=bar><i style='width:{100 * min(1, max(0, card.score)):.1f}%'></i></div>"
    )
    detail = f"<span class=detail>{escape(card.detail)}</span>" if card.detail else ""
    return (
        f'<figure class="{escape(card.mark, quote=True)}" title="{escape(card.path, quote=True)}">'
        f"<div class=frame>{picture}{badge}</div>{bar}"
        f"<figcaption><b>{escape(card.title)}</b>{detail}</figcaption></figure>"
    )


def _link(path: str) -> str:
    """URL of a picture's file, of a video at the time of the frame; "" where there is no such file."""
    if path.startswith(("http://", "https://")) and not container_of(path):
        return path
    frame = frame_of(path)
    file = Path(path if frame is None or Path(path).is_file() else frame[0])
    if not (file.is_absolute() and file.is_file()):
        return ""
    return file.as_uri() + path[len(str(file)) :]


_HEAD = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header class=sheet><h1>$title</h1><p>$intro</p></header>
<main class=sheet>
""")
