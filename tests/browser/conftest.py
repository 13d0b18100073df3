"""A service with two galleries, and pages in Chromium that may reach nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

# What `make browser` installs; other runs of the tests do without.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*"]

if TYPE_CHECKING:
    from browsing import Served
    from playwright.sync_api import Browser, Page

Opens = Callable[..., "Page"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from browsing import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One with hostile names and a plan, and a small one."""
    from browsing import make_gallery, plan_gallery

    folder = tmp_path_factory.mktemp("galleries")
    made = [make_gallery(folder / "pictures", hostile=True), make_gallery(folder / "few", 1)]
    plan_gallery(made[0], folder / "queries")
    return made


@pytest.fixture(scope="session")
def service(galleries: list[Path]) -> Iterator[Served]:
    """It takes 300 kB at most, compares all answers with exact ones, and has time, however busy this is."""
    from browsing import served

    with served(galleries, "--max-upload-mb", "0.3", "--quality-share", "1", "--slo", "5s") as found:
        yield found


@pytest.fixture
def opens(browser: Browser, service: Served) -> Iterator[Opens]:
    """Opens the page; at the end nothing went wrong in it, and nothing went beyond this machine."""
    contexts, asked, wrong = [], list[str](), list[str]()

    def opened(url: str = service.url, **options: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("console", lambda said: wrong.append(said.text) if is_refused(said.text) else None)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        # What a test answers in the place of a service is answered first, or the next test fails by it.
        for page in context.pages:
            page.unroute_all(behavior="wait")
        context.unroute_all(behavior="wait")
        context.close()
    assert not wrong
    assert asked
    assert {urlsplit(url).hostname for url in asked if not url.startswith(("blob:", "data:"))} == {
        "127.0.0.1"
    }


def is_refused(text: str) -> bool:
    """Whether the page tried what its policy forbids."""
    return "Content Security Policy" in text


@pytest.fixture(scope="session")
def query(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of a boat that no gallery has."""
    from drawn_pictures import drawn

    file = tmp_path_factory.mktemp("query") / "boat.jpg"
    drawn("boats", 40).save(file)
    return file
