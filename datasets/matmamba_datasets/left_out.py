"""What was left out, in words."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping

from .names import shown

# Lines of what was left out.
_REASONS = 20


def left_out_text(left_out: Mapping[str, str], most: int = 3) -> str:
    """What was left out, a line for each reason with its count and the first `most` names."""
    start, names = _common(left_out), defaultdict[str, list[str]](list)
    for name, reason in left_out.items():
        names[reason].append(name[len(start) :] or ".")
    lines = [
        f"  {len(found):,} {shown(reason)}: {', '.join(map(shown, sorted(found)[:most]))}"
        + (", ..." if len(found) > most else "")
        for reason, found in sorted(names.items(), key=lambda item: -len(item[1]))
    ]
    hidden = 0 if most >= len(left_out) else max(0, len(lines) - _REASONS)
    if hidden:
        lines[_REASONS:] = [f"  ... and {hidden} more reasons"]
    where = f" in {shown(start)}" if start else ""
    count = f"{len(left_out):,} entries{where} are" if len(left_out) > 1 else f"1 entry{where} is"
    return "\n".join([f"{count} not read:", *lines])


def _common(names: Collection[str]) -> str:
    """The folder of all paths, with a slash at its end; "" if there is none."""
    folders = {name.rstrip("/").rpartition("/")[0] for name in names}
    if not all(folder.startswith("/") for folder in folders):
        return ""
    return f"{os.path.commonpath(folders)}/"
