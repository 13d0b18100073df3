"""`matmamba gallery info`, `list` and `delete`."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from matmamba_common.counts import counted
from matmamba_common.settings import Bounds
from matmamba_datasets.names import safe_cell, shown
from matmamba_retrieval import Gallery
from matmamba_retrieval.backends.opening import open_to_ask
from matmamba_retrieval.strategies.searchable import Searchable
from rich.markup import escape
from rich.table import Table

from ..galleries.answers import row_of
from ..upkeep import contents
from ..upkeep.contents import describe, keys_where
from .arguments import check_flags, parse
from .console import Console, say

_INFO = """What a gallery holds, what made it, and what it takes on the disk.

examples:
  matmamba gallery info G
  matmamba gallery info G --json
  matmamba gallery info qdrant://localhost:6333/photos
"""
_LIST = """List the images of a gallery in the order in which they were added.

The condition is SQL over id, path, label and metadata, as in `matmamba search`.

examples:
  matmamba gallery list G
  matmamba gallery list G --where "label = 'cat' AND path LIKE '%/2024/%'" --limit 1000
  matmamba gallery list G --format csv > images.csv
  matmamba gallery list G --where "label IS NULL" --format ids
"""
_DELETE = """Delete images from a gallery, by id or by condition. Their files are never touched.

Without --yes nothing is deleted; what would be is shown. Deleted images stay in older versions of the
gallery, and on the disk, until `matmamba gallery compact`.

examples:
  matmamba gallery delete G --ids cats/0001.jpg cats/0002.jpg --yes
  matmamba gallery delete G --where "path LIKE '/old/%'"
"""
# Images that are read at once.
_AT_ONCE = 4096
# Ids that are shown before they are deleted.
SHOWN = 20


@dataclass
class InfoFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Print JSON instead of a table.
    json: bool = False


@dataclass
class ListFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Condition that images have to fulfil, in SQL.
    where: str = ""
    # Images to list at most; 0 for all, which is the default but for a table on a terminal (there 50).
    limit: Annotated[int | None, Bounds(least=0, zero="all")] = None
    # A table, a JSON object on each line, CSV, or ids alone.
    format: Literal["table", "json", "csv", "ids"] = "table"
    # The same as --format json.
    json: bool = False


@dataclass
class DeleteFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Ids of the images to delete.
    ids: list[str] = field(default_factory=list)
    # Condition that images to delete fulfil, in SQL.
    where: str = ""
    # Delete them.
    yes: bool = False


def info(arguments: list[str]) -> int:
    """Print what a gallery is."""
    args = parse(InfoFlags, "gallery info", _INFO, arguments)
    with closing(open_to_ask(args.gallery)) as gallery:
        about = describe(gallery)
    if args.json:
        say(json.dumps(about, indent=2))
        return 0
    width = max(map(len, about))
    for name, value in about.items():
        say(f"{name.replace('_', ' '):{width}}  {_fact(name, value)}")
    return 0


def _fact(name: str, value: Any) -> str:
    """One of the facts; of a plan what it does and is for: --json has its forty figures."""
    if name == "versions" and value:
        return f"{value[0]} to {value[-1]}"
    if name == "plan" and value:
        given = {key: one for key, one in value["settings"].items() if one not in (None, [], {}, "")}
        return f"{_readable(given)} for {value['goal']}"
    return _readable(value)


def _readable(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_readable(each) for each in value) or "none"
    if isinstance(value, dict):
        return " ".join(f"{name} {_readable(each)}" for name, each in value.items())
    return "none" if value in (None, "") else str(value)


def show(arguments: list[str]) -> int:
    """List images."""
    args = parse(ListFlags, "gallery list", _LIST, arguments)
    check_flags(args)
    args.format = "json" if args.json else args.format
    cut = args.format == "table" and Console().is_terminal
    limit = args.limit if args.limit is not None else 50 if cut else 0
    with closing(open_to_ask(args.gallery)) as gallery:
        keys = keys_where(gallery, args.where)
        shown = keys[:limit] if limit else keys
        for start in range(0, len(shown), _AT_ONCE):
            _print_rows(gallery, shown[start : start + _AT_ONCE], args.format, header=start == 0)
    if args.format == "table":
        more = f", {len(shown)} shown: --limit 0 shows all" if len(shown) < len(keys) else ""
        Console(highlight=False).print(f"{counted(len(keys), 'image')}{more}")
    return 0


def _print_rows(gallery: Searchable, keys: np.ndarray, kind: str, header: bool) -> None:
    rows = gallery.rows(keys)
    if kind == "ids":
        say("\n".join(shown(row.id) for row in rows))
    elif kind == "json":
        say("\n".join(json.dumps(row_of(row), ensure_ascii=False) for row in rows))
    elif kind == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([("id", "path", "label", "metadata")] if header else [])
        for row in rows:
            metadata = json.dumps(dict(row.metadata), ensure_ascii=False) if row.metadata else ""
            writer.writerow(map(safe_cell, (row.id, row.path, row.label, metadata)))
    else:
        table = Table(box=None, pad_edge=False, show_header=header)
        for name in ("label", "id", "path", "metadata"):
            table.add_column(name, overflow="fold")
        for row in rows:
            metadata = json.dumps(dict(row.metadata), ensure_ascii=False) if row.metadata else ""
            table.add_row(*map(escape, (row.label or "", row.id, row.path, metadata)))
        Console(highlight=False).print(table)


def delete(arguments: list[str]) -> int:
    """Delete images, or show which."""
    args = parse(DeleteFlags, "gallery delete", _DELETE, arguments)
    console = Console(highlight=False)
    with Gallery(args.gallery, write=args.yes) as gallery:
        ids = contents.ids_to_delete(gallery, args.ids, args.where)
        if args.yes and ids:
            count = contents.delete(gallery, ids)
            console.print(f"{counted(count, 'image')} deleted, {len(gallery):,} left; no file was touched")
            return 0
    for image_id in ids[:SHOWN]:
        console.print(escape(image_id), soft_wrap=True)
    more = f" ({len(ids) - SHOWN} not shown)" if len(ids) > SHOWN else ""
    console.print(
        f"{counted(len(ids), 'image')}{more}; nothing was deleted" + (": --yes deletes them" if ids else "")
    )
    return 0
