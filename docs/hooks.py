"""Files outside docs/ that the pages link to, such as plots of results, become part of the site.

In the pages the links are those that a repository browser follows (`../benchmarks/results/adaptive.png`); the
site has these files below `repository/`. Markdown files become pages, whose own links are followed in turn.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
PLACE = "repository"
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
_FROM_ELSEWHERE = "https://unpkg.com/iframe-worker/shim"
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add what the pages link to, and what these link to."""
    waiting = [file.src_uri for file in files if file.src_uri.endswith(".md")]
    while waiting:
        page = waiting.pop()
        for target in outside(page):
            uri = f"{PLACE}/{target}"
            if files.get_file_from_path(uri) is None:
                added = File.generated(config, uri, abs_src_path=str(ROOT / target))
                added.inclusion = InclusionLevel.NOT_IN_NAV
                files.append(added)
                if target.endswith(".md"):
                    waiting.append(uri)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead each link to where its file is in the site."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        start, link, anchor, end = match.groups()
        target = in_site(posixpath.normpath(posixpath.join(posixpath.dirname(in_repository(here)), link)))
        return f"{start}{posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor or ''}{end}"

    parts, last = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(moved, markdown[last : fence.start()]), fence.group()]
        last = fence.end()
    return "".join([*parts, _LINK.sub(moved, markdown[last:])])


def outside(page: str) -> list[str]:
    """Files of the repository, outside docs/, to which a page of the site links."""
    source = in_repository(page)
    text = _FENCE.sub("", (ROOT / source).read_text())
    links = [
        posixpath.normpath(posixpath.join(posixpath.dirname(source), m[2])) for m in _LINK.finditer(text)
    ]
    return [link for link in dict.fromkeys(links) if not link.startswith("docs/") and (ROOT / link).is_file()]


def in_repository(uri: str) -> str:
    """Where a file of the site lies in the repository."""
    return uri.removeprefix(f"{PLACE}/") if uri.startswith(f"{PLACE}/") else f"docs/{uri}"


def in_site(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{PLACE}/{path}"


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """What lets the search work from a disk comes with the site, not from another server."""
    up = "../" * page.url.count("/")
    return output.replace(_FROM_ELSEWHERE, f"{up}worker.js")


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page that says that there is no such page."""
    return output_content.replace(_FROM_ELSEWHERE, "worker.js")
