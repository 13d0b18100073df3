"""Answers of a search as a table, as JSON and as a page of pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matmamba_retrieval import Gate, Plan, Strategy
from matmamba_retrieval.strategies.hits import Cost
from rich.markup import escape
from rich.table import Table

from ..galleries.answers import row_of
from ..galleries.page import Card, Page, Section, image_card
from ..galleries.pictures import Pictures
from .console import Console
from .searching import Answer


def settings_of(strategy: Strategy) -> dict[str, Any]:
    """Name and settings of a strategy for JSON, without those that are not set."""
    chosen = _chosen(strategy)
    plain = {key: asdict(value) if isinstance(value, Gate) else value for key, value in chosen.items()}
    return {"name": strategy.kind, **plain}


def _chosen(strategy: Strategy) -> dict[str, Any]:
    """Settings of a strategy that are set."""
    values: dict[str, Any] = {"query_width": strategy.query_width}
    if strategy.steps:
        first = strategy.steps[0]
        if strategy.kind == "funnel":
            values |= {"dims": strategy.dims, "lengths": strategy.lengths, "widths": strategy.widths}
        else:
            values |= {"dim": first.dim, "shortlist": first.length}
        values |= {"gallery_width": first.gallery_width, "index": first.index, "effort": first.effort}
        if strategy.kind == "gated":
            values |= {"gate": strategy.gate or Gate(), "again": strategy.again}
        values["expand"] = strategy.expand
    return {key: value for key, value in values.items() if value not in ("", (), None)}


def cost_of(cost: Cost) -> dict[str, Any]:
    """What was spent per query, for JSON; `macs` and `ms` by stage."""
    return {
        "encoder_gmacs": cost.macs / 1e9,
        "candidates": cost.candidates,
        "bytes_read": cost.bytes_read,
        "macs": {"encode": cost.macs, **cost.search_macs},
        "ms": {stage: round(value, 3) for stage, value in cost.ms.items()},
    }


def spent_text(cost: Cost) -> str:
    """Milliseconds and multiply-adds by stage."""
    macs = {"encode": cost.macs, **cost.search_macs}
    stages = [
        f"{stage} {ms:.2f} ms, {macs.get(stage, 0.0) / 1e6:,.3f} MMACs" for stage, ms in cost.ms.items()
    ]
    return "; ".join(stages) or "nothing"


def strategy_text(strategy: Strategy) -> str:
    """Name and settings on one line."""
    parts = [f"{name.replace('_', ' ')} {_plain(value)}" for name, value in _chosen(strategy).items()]
    return ", ".join([strategy.kind, *parts])


def plan_text(plan: Plan) -> str:
    """In plain words what a plan does, and what it was made for."""
    chosen = plan.strategy
    encoded = f"encodes the query by width {chosen.query_width}"
    where = (
        f"finds {chosen.lengths[0]} images by {chosen.dims[0]} dims" if chosen.dims else "compares all images"
    )
    last = {
        "single-shot": "",
        "shortlist": ", and ranks these by the full width",
        "funnel": ", and ranks fewer and fewer of these by longer embeddings",
        "gated": ", and asks the full width where the small one is likely to be wrong",
    }[chosen.kind]
    return f"this follows the plan of `matmamba plan` for {plan.goal}: it {encoded}, {where}{last}"


def _plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def as_json(answers: Iterable[Answer], strategy: Strategy, cost: Cost) -> str:
    """All of it; numbers that a program needs are not rounded."""
    listed = [_answer(answer) for answer in answers]
    return json.dumps({"strategy": settings_of(strategy), "cost": cost_of(cost), "answers": listed}, indent=2)


def _answer(answer: Answer) -> dict[str, Any]:
    if answer.error:
        return {"query": answer.name, "error": answer.error, "hits": []}
    hits = [{"rank": rank, "score": score, **row_of(row)} for rank, (score, row) in enumerate(answer.hits, 1)]
    found = {"query": answer.name, "by_full_width": answer.by_full, "hits": hits}
    return found | ({"reason": answer.reason} if answer.reason else {})


def print_answer(console: Console, answer: Answer) -> None:
    """A table of the hits, or why there are none."""
    console.print(f"[bold]{escape(answer.name)}[/bold]", soft_wrap=True)
    if answer.error:
        console.print(f"cannot be read: {escape(answer.error)}", soft_wrap=True)
        return
    if answer.hits:
        console.print(_table(answer))
    if answer.reason:
        console.print(escape(answer.reason), soft_wrap=True)


def _table(answer: Answer) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, justify in (("", "right"), ("score", "right"), ("label", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("id", overflow="fold")
    table.add_column("path", overflow="fold")
    for rank, (score, row) in enumerate(answer.hits, 1):
        table.add_row(str(rank), f"{score:.4f}", escape(row.label or ""), escape(row.id), escape(row.path))
    return table


def write_page(file: Path, answers: Iterable[Answer], intro: str) -> Iterator[tuple[Page, Answer]]:
    """Write answers to a page as they pass; what is known at the end can be added to its facts."""
    pictures = Pictures()
    with Page(file, "Search results", intro) as page:
        for answer in answers:
            page.write(_section(answer, pictures))
            yield page, answer


def _section(answer: Answer, pictures: Pictures) -> Section:
    path = answer.source if isinstance(answer.source, str) else ""
    if answer.error:
        return Section(answer.name, note=f"cannot be read: {answer.error}", warning=True)
    lead = Card(pictures.data_url(answer.source), "query", path=path, mark="lead")
    cards = [
        image_card(pictures, row, score, badge=f"{rank}  ·  {score:.3f}")
        for rank, (score, row) in enumerate(answer.hits, 1)
    ]
    return Section(answer.name, cards, lead, answer.reason)
