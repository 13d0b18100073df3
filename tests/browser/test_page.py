"""The page as people use it: what they ask, and what they are shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import matmamba_vision as mv
import pytest
from browsing import EACH, HOSTILE_CLASS, HOSTILE_FILE, Served, served
from drawn_pictures import KINDS, draw_folder
from encoders_made import clip_folder
from playwright.sync_api import Locator, Page, Route, expect

pytestmark = pytest.mark.browser
Opens = Callable[..., Page]
ALL = EACH * len(KINDS) + 1
# Hands a file to the page as the system does when something is pasted or dropped.
HAND_OVER = """([kind, name, type, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def ask(page: Page, query: Path) -> None:
    """Ask with a file, and wait for the answer."""
    page.locator("#file").set_input_files(query)
    answered(page)


def answered(page: Page) -> None:
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#results-title")).to_have_text("What was found")


def hits(page: Page) -> Locator:
    return page.locator("#hits > li")


def labels(page: Page) -> list[str]:
    return hits(page).locator("figcaption b").all_text_contents()


def ids(page: Page) -> list[str]:
    return [hit.get_attribute("data-id") or "" for hit in hits(page).all()]


def hand_over(page: Page, kind: str, query: Path) -> None:
    encoded = base64.b64encode(query.read_bytes()).decode()
    page.evaluate(HAND_OVER, [kind, query.name, "image/jpeg", encoded])


def test_the_gallery_is_shown_before_anything_is_asked(opens: Opens) -> None:
    page = opens()
    expect(hits(page).first).to_be_visible()
    expect(page.locator("#gallery-facts")).to_contain_text(f"{ALL} images")
    expect(page.locator("#summary")).to_contain_text(f"{ALL} images")


def test_an_uploaded_image_finds_its_like(opens: Opens, query: Path) -> None:
    page = opens()
    ask(page, query)
    assert labels(page)[:3] == ["boats"] * 3
    expect(page.locator("#summary")).to_contain_text("encoded at")
    expect(page.locator("#answer-facts")).to_contain_text("encode")
    first = hits(page).first.locator("img")
    expect(first).to_be_visible()
    assert first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    page.locator("#forget-image").click()
    expect(page.locator("#results-title")).to_have_text("Images of the gallery")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_an_image_is_pasted_or_dropped(opens: Opens, query: Path, kind: str) -> None:
    page = opens()
    expect(hits(page).first).to_be_visible()
    hand_over(page, kind, query)
    answered(page)
    assert labels(page)[0] == "boats"
    expect(page.locator("#query-image")).to_be_visible()


def test_more_and_less_like_this(opens: Opens, query: Path) -> None:
    page = opens()
    ask(page, query)
    first, second = ids(page)[:2]
    hits(page).nth(0).hover()
    hits(page).nth(0).get_by_title("More like this").click()
    expect(page.locator(".chip.like")).to_contain_text(first)
    hits(page).filter(has_text=second).hover()
    hits(page).filter(has_text=second).get_by_title("Less like this").click()
    expect(page.locator(".chip.unlike")).to_contain_text(second)
    answered(page)
    assert not {first, second} & set(ids(page))
    for _ in range(2):
        page.locator(".chip button").first.click()
    expect(page.locator(".chip")).to_have_count(0)
    answered(page)
    assert ids(page)[:2] == [first, second]


def test_examples_alone_are_a_query(opens: Opens) -> None:
    page = opens()
    flower = hits(page).filter(has_text="flowers").first
    flower.hover()
    flower.get_by_title("More like this").click()
    answered(page)
    assert labels(page)[0] == "flowers"


def test_words_are_asked_where_they_are_taken(opens: Opens, service: Served) -> None:
    """The galleries here take none; this one says that it does, and the service refuses what it is sent."""
    page, posted = opens("about:blank"), list[str]()

    def takes_text(route: Route) -> None:
        found = route.fetch()
        known = found.json()
        for gallery in known["galleries"]:
            gallery["takes_text"] = True
        route.fulfill(response=found, json=known)

    page.route("**/v1/galleries", takes_text)
    page.on("request", lambda request: posted.append(request.post_data or ""))
    page.goto(service.url)
    page.locator("#text").fill("a boat")
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("This was not understood")
    assert [json.loads(sent)["text"] for sent in posted if sent] == ["a boat"]
    page.locator("#reset").click()
    expect(page.locator("#text")).to_have_value("")


def test_words_find_pictures_by_a_model_with_a_text_tower(opens: Opens, tmp_path: Path) -> None:
    draw_folder(tmp_path / "drawn", 1)
    mv.index(tmp_path / "drawn", tmp_path / "words", model=clip_folder(tmp_path / "clip"), threads=1)
    with mv.open_gallery(tmp_path / "words") as gallery:
        wanted = [hit.id for hit in gallery.search(text="a boat", k=3)]
    with served([tmp_path / "words"], "--slo", "5s") as service:
        page = opens(service.url)
        page.locator("#text").fill("a boat")
        page.keyboard.press("Enter")
        answered(page)
        assert ids(page)[:3] == wanted


def test_a_filter_and_a_least_score(opens: Opens, query: Path) -> None:
    page = opens()
    ask(page, query)
    page.locator("#where").fill("label = 'sunsets'")
    page.keyboard.press("Enter")
    expect(hits(page)).to_have_count(EACH)
    assert set(labels(page)) == {"sunsets"}
    page.locator("#where").fill("nonsense ===")
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("This was not understood")
    expect(hits(page)).to_have_count(0)
    page.locator("#where").fill("")
    page.keyboard.press("Enter")
    answered(page)
    expect(page.locator("#notices")).to_be_empty()
    page.locator("#min-score").fill("1")
    expect(page.locator("#results-title")).to_have_text("Nothing was found")


def test_pages_go_on_to_the_end(opens: Opens, query: Path) -> None:
    page = opens(viewport={"width": 1280, "height": 400})
    page.locator("#k").select_option("10")
    ask(page, query)
    for _ in range(12):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(100)
    expect(hits(page)).to_have_count(ALL)
    assert len(set(ids(page))) == ALL
    ranks = [text.split()[0] for text in hits(page).locator(".badge").all_text_contents()]
    assert ranks == [str(rank) for rank in range(1, ALL + 1)]


def test_the_slider_says_what_a_width_changes(opens: Opens, query: Path) -> None:
    page = opens()
    page.locator("#k").select_option("10")
    ask(page, query)
    slider = page.locator("#width")
    slider.focus()
    page.keyboard.press("End")
    expect(page.locator("#summary")).to_contain_text("encoded at full width")
    full = ids(page)[:10]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#width-facts")).to_contain_text("times less than full")
    expect(page.locator("#summary")).to_contain_text("encoded at width 1/8")
    assert (slider.get_attribute("aria-valuetext") or "").startswith("width 1/8")
    came = set(ids(page)[:10]) - set(full)
    said = page.locator("#width-change")
    expect(said).to_contain_text(f"{len(came)} image" if came else "The same images")
    expect(page.locator("#gone li")).to_have_count(len(came))


def test_two_settings_side_by_side(opens: Opens, query: Path) -> None:
    page = opens()
    page.locator("#k").select_option("10")
    ask(page, query)
    page.locator("#toggle-compare").click()
    sides = page.locator(".side")
    expect(sides).to_have_count(2)
    expect(sides.nth(0).locator("li")).to_have_count(10)
    columns = [[hit.get_attribute("data-id") for hit in sides.nth(at).locator("li").all()] for at in range(2)]
    common = len(set(columns[0]) & set(columns[1]))
    expect(page.locator(".agreed")).to_have_text(f"{common} of 10")
    expect(page.locator(".badge.lone")).to_have_count(2 * (10 - common))
    expect(page.locator(".badge.same")).to_have_count(2 * sum(a == b for a, b in zip(*columns, strict=True)))
    page.get_by_label("Width of A").select_option("full")
    expect(page.locator(".agreed")).to_have_text("10 of 10")
    page.locator("#toggle-compare").click()
    answered(page)


def test_a_large_view_goes_through_the_hits(opens: Opens, query: Path) -> None:
    page = opens()
    ask(page, query)
    shown = ids(page)
    hits(page).nth(1).locator("button.frame").click()
    box = page.locator("#lightbox")
    expect(box).to_contain_text(shown[1])
    page.keyboard.press("ArrowRight")
    expect(box).to_contain_text(shown[2])
    box.get_by_text("More like this").click()
    expect(box).to_be_hidden()
    expect(page.locator(".chip.like")).to_contain_text(shown[2])


def test_back_goes_to_the_question_before(opens: Opens, query: Path) -> None:
    page = opens()
    # Whoever asks at once has nothing before that to go back to; the title is there before the gallery.
    expect(page.locator("#summary")).to_contain_text("choose one to see it")
    ask(page, query)
    first = ids(page)
    page.locator("#width").press("End")
    expect(page.locator("#width-facts")).to_contain_text("multiply-adds")
    hits(page).first.hover()
    hits(page).first.get_by_title("More like this").click()
    expect(hits(page).first).not_to_have_attribute("data-id", first[0])
    page.go_back()
    expect(page.locator(".chip")).to_have_count(0)
    expect(hits(page).first).to_have_attribute("data-id", first[0])
    page.go_back()
    expect(page.locator("#query-picture")).to_be_hidden()
    expect(page.locator("#results-title")).to_have_text("Images of the gallery")
    page.go_forward()
    answered(page)
    expect(page.locator("#query-image")).to_be_visible()
    page.locator("#gallery").select_option("few")
    expect(hits(page)).to_have_count(len(KINDS))
    page.go_back()
    answered(page)
    expect(page.locator("#gallery")).to_have_value("pictures")


def test_another_gallery_is_chosen(opens: Opens) -> None:
    page = opens()
    page.locator("#gallery").select_option("few")
    expect(page.locator("#gallery-facts")).to_contain_text(f"{len(KINDS)} images")
    expect(hits(page)).to_have_count(len(KINDS))
    expect(page.locator("#open-plan")).to_be_hidden()


def test_the_panel_asks_only_while_it_is_open(opens: Opens, query: Path) -> None:
    page = opens()
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url) if "v1/status" in request.url else None)
    ask(page, query)
    assert not asked
    page.locator("#toggle-status").click()
    panel = page.locator("#status")
    expect(panel).to_contain_text("Searches a second")
    expect(panel.locator("details")).to_contain_text("width")
    expect(panel).to_contain_text("2 galleries")
    panel.get_by_label("Close the panel").click()
    expect(panel).to_be_hidden()
    before = len(asked)
    page.wait_for_timeout(2500)
    assert 1 <= len(asked) == before


def test_the_plan_is_drawn(opens: Opens) -> None:
    page = opens()
    page.locator("#open-plan").click()
    plan = page.locator("#plan")
    expect(plan.locator("svg.front circle.ring")).to_have_count(1)
    expect(plan.locator("tbody tr").first).to_contain_text("%")
    page.keyboard.press("Escape")
    expect(plan).to_be_hidden()


def test_names_are_shown_as_they_are(opens: Opens) -> None:
    page = opens()
    hostile = f"{HOSTILE_CLASS}/{HOSTILE_FILE}"
    page.locator("#id").fill(hostile)
    page.keyboard.press("Enter")
    answered(page)
    page.locator("#id").fill("")
    page.locator("#where").fill(f"label = '{HOSTILE_CLASS}'")
    page.keyboard.press("Enter")
    expect(hits(page)).to_have_count(1)
    assert labels(page) == [HOSTILE_CLASS]
    hits(page).first.hover()
    hits(page).first.get_by_title("More like this").click()
    expect(page.locator(".chip")).to_contain_text(HOSTILE_FILE)
    page.locator("#where").fill("")
    page.locator(".chip button").click()
    page.locator("#ask button[type=submit]").click()
    page.locator("#id").fill(f"no {hostile}")
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text(HOSTILE_FILE)
    assert page.evaluate("window.hurt") is None


def test_it_works_below_a_path(opens: Opens, service: Served) -> None:
    """Behind a proxy that shows it at a path: nothing is asked beside that."""
    page = opens("about:blank")
    below = f"{service.url}some/path/"
    beside = list[str]()

    def forward(route: Route) -> None:
        url = route.request.url
        beside.extend([] if url.startswith((below, "blob:")) else [url])
        route.fulfill(response=route.fetch(url=url.replace(below, service.url)))

    page.route("**/*", forward)
    page.goto(below)
    page.locator("#id").fill("boats/00.jpg")
    page.keyboard.press("Enter")
    answered(page)
    assert labels(page)[0] == "boats"
    assert beside == []
