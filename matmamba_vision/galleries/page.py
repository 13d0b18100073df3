"""One HTML page of pictures that holds all it shows: no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from types import TracebackType

from matmamba_retrieval import Row

from .answers import Hit
from .pictures import Pictures


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
class Section:
    """A heading, an optional leading card, and cards."""

    heading: str
    cards: Sequence[Card] = ()
    lead: Card | None = None
    note: str = ""
    warning: bool = False


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
        self._opened.write(_HEAD.substitute(title=escape(self.title), intro=escape(self.intro)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in self.facts.items())
        self._opened.write(f"</main>\n<footer><dl>{rows}</dl></footer>\n</body>\n</html>\n")
        self._opened.close()
        if kind is None:
            self._partial.replace(self.file)
        else:
            self._partial.unlink(missing_ok=True)

    def write(self, section: Section) -> None:
        """Add a section."""
        note = f"<p class=note>{escape(section.note)}</p>" if section.note else ""
        lead = f"<div class=lead>{_card(section.lead)}</div>" if section.lead else ""
        grid = f"<ol class=grid>{''.join(f'<li>{_card(card)}</li>' for card in section.cards)}</ol>"
        kind = ' class="warning"' if section.warning else ""
        self._opened.write(
            f"<section{kind}><h2>{escape(section.heading)}</h2>{note}"
            f"<div class=row>{lead}{grid if section.cards else ''}</div></section>\n"
        )


def image_card(
    pictures: Pictures, row: Row | Hit, score: float | None = None, badge: str = "", mark: str = ""
) -> Card:
    """An image of a gallery: its label, or its id where it has none, stands first."""
    title, detail = (row.label, row.id) if row.label else (row.id, "")
    return Card(pictures.data_url(row.path), title, detail, row.path, score, badge, mark)


def _card(card: Card) -> str:
    alt = escape(card.title, quote=True)
    picture = (
        f'<img alt="{alt}" loading=lazy src="{escape(card.picture, quote=True)}">'
        if card.picture
        else f"<q class=words>{escape(card.words)}</q>"
        if card.words
        else "<span class=missing>picture<br>not found</span>"
    )
    if card.picture and Path(card.path).is_absolute() and Path(card.path).is_file():
        picture = f'<a href="{escape(Path(card.path).as_uri(), quote=True)}">{picture}</a>'
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


_HEAD = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
  :root { color-scheme: light dark; --back: #f6f6f4; --card: #fff; --text: #1d1d1f; --quiet: #6b6b70;
    --line: #0000001a; --accent: #2563c9; --alarm: #b4231a; --frame: #ebebe8; }
  @media (prefers-color-scheme: dark) { :root { --back: #141416; --card: #1f1f23; --text: #ececf0;
    --quiet: #9b9ba3; --line: #ffffff1f; --accent: #6ea8ff; --alarm: #ff8a7a; --frame: #2a2a2f; } }
  * { box-sizing: border-box; }
  body { margin: 0; background: var(--back); color: var(--text);
    font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
  header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
  header { padding-top: 2rem; }
  h1 { font-size: 1.6rem; margin: 0 0 .25rem; letter-spacing: -.01em; }
  header p, .note { color: var(--quiet); margin: .2rem 0 .7rem; overflow-wrap: anywhere; }
  section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1rem;
    margin: 1.25rem 0; }
  h2 { font-size: 1.02rem; margin: 0 0 .6rem; overflow-wrap: anywhere; }
  .warning h2 { color: var(--alarm); }
  .row { display: flex; gap: 1.25rem; align-items: flex-start; }
  .lead { flex: 0 0 11rem; position: sticky; top: 1rem; }
  .grid { flex: 1; min-width: 0; list-style: none; margin: 0; padding: 0; display: grid; gap: .9rem;
    grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
  figure { margin: 0; min-width: 0; }
  .frame { position: relative; aspect-ratio: 1; background: var(--frame); border-radius: 10px;
    overflow: hidden; display: grid; place-items: center; }
  .frame a, .frame img { width: 100%; height: 100%; display: block; }
  .frame img { object-fit: contain; }
  figure.lead .frame { outline: 3px solid var(--accent); outline-offset: 2px; }
  figure.doubt .badge { background: var(--alarm); }
  .missing { color: var(--quiet); font-size: .8rem; text-align: center; }
  .words { padding: .6rem; overflow: auto; max-height: 100%; overflow-wrap: anywhere; text-align: center; }
  .badge { position: absolute; left: .4rem; top: .4rem; background: #000000a8; color: #fff; font-size: .75rem;
    padding: .05rem .45rem; border-radius: 99px; font-variant-numeric: tabular-nums; }
  .doubt .badge { color: var(--card); }
  .bar { height: 4px; border-radius: 2px; background: var(--frame); margin: .4rem 0 .1rem; }
  .bar i { display: block; height: 100%; border-radius: 2px; background: var(--accent); }
  figcaption { font-size: .82rem; margin-top: .25rem; }
  figcaption b, figcaption span { display: block; overflow: hidden; text-overflow: ellipsis;
    white-space: nowrap; }
  .detail { color: var(--quiet); }
  footer { padding-bottom: 3rem; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; color: var(--quiet);
    font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
  dd { margin: 0; min-width: 0; }
  @media (max-width: 40rem) { .row { flex-direction: column; align-items: stretch; }
    .lead { position: static; flex: none; width: 11rem; }
    .grid { grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); } }
</style>
</head>
<body>
<header><h1>$title</h1><p>$intro</p></header>
<main>
""")
