"""Frames of videos on the page: a card for each scene, with its moments, and its strip in the large view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import matmamba_vision as mv
import pytest
from browsing import Served, served
from made_videos import at_rate, cuts, pan, scenery, write_video
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
Opens = Callable[..., Page]
# A name that is HTML, and ends a text in SQL.
VIDEO = "it's <b>two.mp4"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of a long pan and two more scenes, and another that has the second one again."""
    root = tmp_path_factory.mktemp("films")
    (root / "videos").mkdir()
    turning = pan(scenery(2), 60, share=1.0)
    write_video(root / "videos" / "one.mp4", at_rate([*turning, *cuts([1, 3], [3, 3])]))
    write_video(root / "videos" / VIDEO, at_rate(cuts([1, 4], [3, 3])))
    mv.index_video(
        root / "videos", root / "films", model="matmamba_nano_patch4_32", threshold=0.97, threads=1
    )
    return root / "films"


@pytest.fixture(scope="module")
def films(gallery: Path) -> Iterator[Served]:
    with served([gallery], "--slo", "5s") as found:
        yield found


def scenes(page: Page) -> Locator:
    return page.locator("#hits > li")


def ask(page: Page, id: str) -> None:
    """With a frame, which is itself no hit then."""
    page.locator("#id").fill(id)
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#results-title")).to_have_text("What was found")


def frames_of(gallery: Path, video: str, scene: int) -> list[str]:
    """Ids of the frames of a scene, in the order of time."""
    with mv.open_gallery(gallery) as opened:
        rows = opened.rows()
    return [row.id for row in rows if (row.metadata["video"], row.metadata["scene"]) == (video, scene)]


def test_hits_are_grouped_by_scene_and_further_pages_join_them(
    opens: Opens, films: Served, gallery: Path
) -> None:
    long = frames_of(gallery, "one.mp4", 1)
    assert len(long) > 5
    with mv.open_gallery(gallery) as opened:
        total = len(opened)
    assert total > 11
    page = opens(films.url, viewport={"width": 1280, "height": 500})
    page.locator("#k").select_option("10")
    ask(page, long[0])
    for _ in range(6):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(100)
    expect(scenes(page)).to_have_count(5)
    expect(page.locator("#summary")).to_contain_text(f"{total - 1} images in 5 scenes")
    card = scenes(page).filter(has_text="0:00-0:06")
    expect(card.locator("figcaption b")).to_have_text("one.mp4")
    told = f"and {len(long) - 5} more" if len(long) > 5 else "at"
    expect(card.locator(".detail").last).to_contain_text(told)
    assert "one.mp4, 0:00-0:06, at 0:01" in (card.locator(".frame").get_attribute("aria-label") or "")
    assert page.locator("figcaption b").filter(has_text=VIDEO).count() == 2
    page.locator("#toggle-compare").click()
    side = page.locator(".side").first
    expect(side.locator("li")).to_have_count(10)
    expect(side.locator("figcaption .detail").first).to_contain_text("0:0")


def test_the_strip_of_a_scene(opens: Opens, films: Served, gallery: Path) -> None:
    """Of a name that is HTML and ends a text in SQL, too; a frame of it is shown large."""
    frames = frames_of(gallery, VIDEO, 2)
    assert len(frames) > 1
    page = opens(films.url)
    ask(page, frames[0])
    scenes(page).first.locator("button.frame").click()
    strip = page.locator("#lightbox .strip")
    expect(strip.locator("li")).to_have_count(len(frames))
    expect(strip.locator("[aria-current]")).to_have_count(1)
    assert strip.get_attribute("aria-label") == f"Scene 2 of {VIDEO}, 0:03 to 0:05"
    large = page.locator("#lightbox .stage > img")
    before = large.get_attribute("src")
    strip.locator("button").first.click()
    expect(large).not_to_have_attribute("src", before or "")
    # The next one is of another scene.
    page.keyboard.press("ArrowRight")
    expect(page.locator("#lightbox .note").first).to_contain_text("2 of ")
    expect(strip).not_to_have_attribute("aria-label", f"Scene 2 of {VIDEO}, 0:03 to 0:05")


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 1280, "height": 900}},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
    ],
    ids=["desktop", "dark phone"],
)
def test_cards_fit_on_their_screen(
    options: dict[str, object], opens: Opens, films: Served, gallery: Path, tmp_path: Path
) -> None:
    with mv.open_gallery(gallery) as opened:
        first = opened.rows()[0].id
    page = opens(films.url, **options)
    ask(page, first)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=tmp_path / "scenes.png")
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    for words in page.locator("#hits .detail").all():
        assert words.is_visible()
