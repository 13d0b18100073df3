"""Draws the picture of the service's page in README and docs: a gallery of drawn scenes, asked with another.

python tests/browser/picture_of_page.py      # docs/pictures/service.png, with what `make browser` installs
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))

from browsing import chromium, make_gallery, plan_gallery, served  # noqa: E402
from drawn_pictures import drawn  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Page, expect  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "service.png"


def main() -> None:
    """Make the gallery, ask, and draw."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gallery = make_gallery(folder / "scenes", 24)
        plan_gallery(gallery, folder / "queries")
        drawn("balloons", 90).save(folder / "query.jpg")
        with served([gallery], "--quality-share", "1") as service, chromium() as browser:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(service.url)
            ask(page, folder / "query.jpg")
            page.screenshot(path=PICTURE)
    with Image.open(PICTURE) as shot:
        shot.convert("RGB").save(PICTURE, optimize=True)


def ask(page: Page, query: Path) -> None:
    """Some questions at all widths, so that there is something to be seen, and an example that steers."""
    page.locator("#file").set_input_files(query)
    answered(page)
    for key in (["ArrowRight"] * 4 + ["ArrowLeft"] * 3) * 4:
        page.locator("#width").press(key)
        answered(page)
    page.locator("#hits > li").filter(has_text="balloons").nth(3).get_by_title("More like this").click(
        force=True
    )
    answered(page)
    page.locator("#toggle-status").click()
    expect(page.locator("#status")).to_contain_text("Searches a second")
    page.mouse.move(720, 2)
    # The panel looks a few times.
    page.wait_for_timeout(9000)


def answered(page: Page) -> None:
    """Wait for an answer, and for its pictures."""
    page.wait_for_timeout(400)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    page.wait_for_load_state("networkidle")


if __name__ == "__main__":
    main()
