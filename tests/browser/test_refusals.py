"""What the page says when the service refuses, wants a token, has too much to do, or is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import served
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Opens = Callable[..., Page]
TOKEN = "a-token-of-some-length"


def test_what_cannot_be_taken_is_said(opens: Opens, tmp_path: Path) -> None:
    page = opens()
    notices = page.locator("#notices")
    large, text = tmp_path / "large.jpg", tmp_path / "text.jpg"
    large.write_bytes(os.urandom(400_000))
    text.write_text("no image")
    page.locator("#file").set_input_files(large)
    expect(notices).to_contain_text("The image is too large")
    expect(notices).to_contain_text("Request ")
    page.locator("#file").set_input_files(text)
    expect(notices).to_contain_text("This cannot be read here")
    expect(page.locator("#results-title")).to_have_text("No answer")
    page.locator("#id").fill("nothing.jpg")
    page.keyboard.press("Enter")
    expect(notices).to_contain_text("nothing.jpg")
    notices.get_by_label("Close").click()
    expect(notices).to_be_empty()


def test_a_token_then_too_much_to_do_then_gone(
    opens: Opens, galleries: list[Path], query: Path, tmp_path: Path
) -> None:
    """A service that wants a token, and can answer nothing in the time that it has."""
    (tmp_path / "token").write_text(TOKEN)
    with served(galleries[1:], "--token-file", str(tmp_path / "token"), "--slo", "0.01ms") as strict:
        page = opens(strict.url)
        dialog, notices = page.locator("#token"), page.locator("#notices")
        expect(dialog).to_be_visible()
        page.keyboard.type("not the token")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("not the right one")
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        picture = page.locator("#hits img").first
        expect(picture).to_have_js_property("naturalWidth", 256)
        assert (picture.get_attribute("src") or "").startswith("blob:")
        page.locator("#file").set_input_files(query)
        expect(notices).to_contain_text("Too much to do at the moment")
        expect(notices.get_by_role("button").first).to_contain_text("Again in")
        strict.end()
        page.locator("#ask button[type=submit]").click()
        expect(notices).to_contain_text("The service cannot be reached")
        expect(notices.get_by_text("Try again")).to_be_visible()
