"""A browser, and a service for it to look at: what tests of the page, and its picture, are made with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matmamba_vision as mv
from drawn_pictures import KINDS, draw_folder, drawn
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
# It runs as any user, without a GPU, and calls nobody by itself.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A class and a file whose names are HTML that runs a script, wherever they are taken for it.
HOSTILE_CLASS = "<img src=x onerror=window.hurt=1>"
HOSTILE_FILE = '"><svg onload=window.hurt=1>.jpg'
EACH = 6


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    if not CHROMIUM.exists():
        raise FileNotFoundError(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield browser
        browser.close()


def make_gallery(place: Path, each: int = EACH, *, hostile: bool = False) -> Path:
    """A gallery of drawn pictures with the weights that come with the package, and its encoders beside it.

    Args:
        place: folder to write; pictures go beside it.
        each: pictures of a kind.
        hostile: whether names in it are HTML.
    """
    photos = place.with_name(f"{place.name} pictures")
    draw_folder(photos, each)
    if hostile:
        (photos / HOSTILE_CLASS).mkdir()
        drawn("planets", 99).save(photos / HOSTILE_CLASS / HOSTILE_FILE)
    mv.index(photos, place, dims=(32,), threads=1)
    with mv.open_gallery(place, write=True) as gallery:
        gallery.freeze(("full", "1/2", "1/4", "1/8"))
    return place


def plan_gallery(place: Path, queries: Path) -> None:
    """Measure strategies with drawn queries, and have the gallery keep the best."""
    for kind in KINDS:
        for number in range(2):
            (queries / kind).mkdir(parents=True, exist_ok=True)
            drawn(kind, 70 + number).save(queries / kind / f"{number}.jpg")
    with mv.open_gallery(place, write=True) as gallery:
        gallery.plan(queries, target={"recall": 0.9})


@dataclass
class Served:
    """A service that runs: where it is, and its process."""

    url: str
    process: subprocess.Popen[str]

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def served(galleries: Sequence[Path], *flags: str) -> Iterator[Served]:
    """The command `serve` for some galleries, until the block ends."""
    named = [word for place in galleries for word in ("--gallery", str(place))]
    command = [
        sys.executable,
        "-m",
        "matmamba_vision",
        "serve",
        *named,
        "--port",
        "0",
        "--threads",
        "1",
        "--quiet",
    ]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first.startswith("serving at "), first
        yield Served(first.split()[-1], process)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
