"""The page on a phone, by keys alone, in the dark, and as programs that read it aloud know it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Opens = Callable[..., Page]
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
# The contrast of each text that is seen with what lies behind it, as WCAG 2 defines it; the worst of them.
WORST_CONTRAST = """() => {
  const parse = (text) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const data = canvas.getImageData(0, 0, 1, 1).data; return [...data.slice(0, 3), data[3] / 255];
  };
  const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3])).concat(1);
  const behind = (element) => {
    const own = element ? parse(getComputedStyle(element).backgroundColor) : [255, 255, 255, 1];
    return own[3] < 1 ? over(own, behind(element.parentElement)) : own;
  };
  const light = (rgb) => {
    const part = (v) => (v / 255 <= 0.03928 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(rgb[0]) + 0.7152 * part(rgb[1]) + 0.0722 * part(rgb[2]);
  };
  const worst = [99, ""];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    // Words over pictures have a ground of their own.
    if (!own || !element.checkVisibility() || element.closest(".badge, .skip, option")) continue;
    const ground = behind(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), ground)), light(ground)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst.splice(0, 2, contrast, element.outerHTML.slice(0, 200));
  }
  return worst;
}"""
WIDER_THAN_SEEN = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def found(page: Page) -> None:
    expect(page.locator("#results-title")).to_have_text("What was found")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")


def test_on_a_phone(opens: Opens, query: Path) -> None:
    page = opens(**PHONE)
    page.locator("#file").set_input_files(query)
    found(page)
    assert page.evaluate(WIDER_THAN_SEEN) == 0
    more = page.locator("#hits").get_by_title("More like this").first
    expect(more).to_be_visible()
    expect(page.locator("#hits .steer").first).to_have_css("opacity", "1")
    box = more.bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 32
    more.tap()
    expect(page.locator(".chip")).to_have_count(1)
    page.locator("#hits button.frame").first.tap()
    expect(page.locator("#lightbox img")).to_be_visible()
    page.locator("#lightbox").get_by_text("Close").tap()
    page.locator("#toggle-compare").tap()
    expect(page.locator(".side li").first).to_be_visible()
    assert page.evaluate(WIDER_THAN_SEEN) == 0
    page.locator("#toggle-status").tap()
    expect(page.locator("#status")).to_contain_text("The service now")
    assert page.evaluate(WIDER_THAN_SEEN) == 0


def test_by_keys_alone(opens: Opens) -> None:
    page = opens()
    expect(page.locator("#hits li").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#choose")).to_be_focused()
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.locator("#id").evaluate("field => field === document.activeElement"):
            break
    page.keyboard.type("boats/00.jpg")
    page.keyboard.press("Enter")
    found(page)
    first = page.locator("#hits button.frame").first
    first.focus()
    page.keyboard.press("ArrowRight")
    second = page.locator("#hits button.frame").nth(1)
    expect(second).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#lightbox")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#lightbox")).to_be_hidden()
    expect(first).to_be_focused()
    page.keyboard.press("-")
    expect(page.locator(".chip.unlike")).to_have_count(1)


def test_every_control_has_a_name(opens: Opens, query: Path) -> None:
    page = opens()
    page.locator("#file").set_input_files(query)
    found(page)
    page.locator("#toggle-status").click()
    expect(page.locator("#status")).to_contain_text("The service now")
    for control in page.locator("button:visible, input:visible, select:visible").all():
        name = control.evaluate(
            "c => c.ariaLabel || [...(c.labels ?? [])].map((l) => l.textContent).join('') || c.textContent"
            " || document.getElementById(c.getAttribute('aria-labelledby'))?.textContent"
        )
        assert (name or "").strip(), control.evaluate("c => c.outerHTML")
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(opens: Opens, query: Path, scheme: str) -> None:
    page = opens(color_scheme=scheme)
    page.locator("#file").set_input_files(query)
    found(page)
    page.locator("#toggle-status").click()
    expect(page.locator("#status")).to_contain_text("The service now")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(14, 19, 18)") == (scheme == "dark")
    contrast, where = page.evaluate(WORST_CONTRAST)
    assert contrast >= 4.5, where
