"""`matmamba search` as a user runs it: all kinds of queries, filters, pages."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_retrieval import Gallery, Plan, Row, Strategy
from matmamba_vision.cli.main import main
from matmamba_vision.galleries.page import Card, Page, Section
from matmamba_vision.galleries.pictures import Pictures
from PIL import Image
from small import unit_vectors

Run = Callable[..., Any]
COUNT = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of noise in two folders, and a gallery of them by the shipped model."""
    root, rng = tmp_path_factory.mktemp("search"), np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (40, 30 + number, 3)) // (1 + number % 2)
        file = root / "photos" / ("dark" if number % 2 else "bright") / f"{number:02d} é.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    index = ["index", "--images", str(root / "photos"), "--gallery", str(root / "g"), "--threads", "1"]
    assert main(index) == 0
    with Gallery(root / "g", write=True) as gallery:
        keys = gallery.live_keys()
        rows = [Row(r.id, r.path, r.label, {"n": int(r.id[-8:-6])}) for r in gallery.rows(keys)]
        gallery.upsert(rows, gallery.segments.read(keys))
    return root


@pytest.fixture
def search(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a search with --json; what it answered, by query. `status` is what it has to exit with."""

    def run(*arguments: object, status: int = 0) -> dict[str, dict[str, Any]]:
        capsys.readouterr()
        words = ["search", "--gallery", str(place / "g"), *map(str, arguments), "--json"]
        assert main(words) == status
        return {answer["query"]: answer for answer in json.loads(capsys.readouterr().out)["answers"]}

    return run


@pytest.fixture
def fails(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def check(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["search", "--gallery", str(place / "g"), *map(str, arguments)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("matmamba: error: ")
        assert said.err.count("\n") == 1
        return said.err

    return check


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


FIRST = "bright/00 é.png"


def test_the_same_image_by_any_way_gets_the_same_answer(
    place: Path, search: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place / "photos" / FIRST
    wanted = ids(search(file, "--k", 5)[str(file)])
    assert wanted[0] == FIRST
    url = file.as_uri()
    assert "%20" in url
    assert ids(search(url, "--k", 5)[url]) == wanted
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert ids(search("-", "--k", 5)["standard input"]) == wanted
    # The image of the gallery itself is left out of its answer, and the next one takes its place.
    assert ids(search("--like", FIRST, "--k", 4)[FIRST]) == wanted[1:]


def test_a_folder_is_all_images_in_it_in_order(place: Path, search: Run) -> None:
    found = search(place / "photos" / "dark", place / "photos" / FIRST, "--k", 1)
    names = [f"{n:02d} é.png" for n in range(1, COUNT, 2)]
    assert list(found) == [
        *(str(place / "photos" / "dark" / name) for name in names),
        str(place / "photos" / FIRST),
    ]
    assert [ids(answer) for answer in found.values()] == [[f"dark/{name}"] for name in names] + [[FIRST]]


@pytest.mark.parametrize("strategy", ["single-shot", "shortlist", "funnel"])
def test_a_filter_gives_k_or_says_why_not(place: Path, search: Run, strategy: str) -> None:
    query = (place / "photos" / FIRST, "--strategy", strategy)
    (answer,) = search(*query, "--where", "label = 'dark' AND n < 20", "--k", 7).values()
    assert len(answer["hits"]) == 7
    assert "reason" not in answer
    assert all(hit["label"] == "dark" and hit["metadata"]["n"] < 20 for hit in answer["hits"])
    (everything,) = search(*query, "--k", COUNT).values()
    assert (
        ids(answer)
        == [hit["id"] for hit in everything["hits"] if hit["label"] == "dark" and hit["metadata"]["n"] < 20][
            :7
        ]
    )
    (few,) = search(*query, "--where", "n IN (3, 5)", "--k", 7).values()
    assert sorted(ids(few)) == ["dark/03 é.png", "dark/05 é.png"]
    assert "2 images" in few["reason"]
    (none,) = search(*query, "--where", "n > 100").values()
    assert none["hits"] == []
    assert none["reason"] == "no image fulfils the condition"


def test_more_like_all_the_others(search: Run) -> None:
    """k as large as the gallery: one is missing, and the answer says which."""
    answer = search("--like", FIRST, "--k", COUNT)[FIRST]
    assert len(set(ids(answer)) - {FIRST}) == len(answer["hits"]) == COUNT - 1
    assert f"{COUNT - 1} other images" in answer["reason"]
    two = search("--like", FIRST, "--like", "dark/01 é.png", "--k", 3)
    assert list(two) == [FIRST, "dark/01 é.png"]
    assert all(name not in ids(answer) for name, answer in two.items())


def test_what_answers_should_not_be_like_sinks(place: Path, search: Run) -> None:
    file = place / "photos" / FIRST
    before = search(file, "--k", COUNT)[str(file)]
    unwanted = ids(before)[1]
    outside = place / "outside.png"
    shutil.copy(place / "photos" / unwanted, outside)
    by_file = search(file, "--not", outside, "--not-weight", 0.9, "--k", COUNT)[str(file)]
    assert ids(by_file).index(unwanted) > 1
    # By id it is left out besides, and the others are the same.
    by_id = search(file, "--not", unwanted, "--not-weight", 0.9, "--k", COUNT)[str(file)]
    assert unwanted not in ids(by_id)
    assert len(by_id["hits"]) == COUNT - 1
    assert ids(by_id)[:5] == [name for name in ids(by_file) if name != unwanted][:5]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of vectors made elsewhere, and queries of the same model."""
    root, xb = tmp_path_factory.mktemp("elsewhere"), unit_vectors(60, 16)
    np.save(root / "base.npy", xb)
    np.save(root / "queries.npy", 3 * xb[5:9])
    index = [
        "index",
        "--vectors",
        str(root / "base.npy"),
        "--model-name",
        "clip",
        "--gallery",
        str(root / "g"),
    ]
    assert main(index) == 0
    return root


@pytest.mark.parametrize("strategy", ["single-shot", "shortlist", "funnel"])
def test_vectors_made_elsewhere_are_searched(
    elsewhere: Path, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "--vectors",
        str(elsewhere / "queries.npy"),
        "--model-name",
        "clip",
        "--normalise",
        "--like",
        "7",
    ]
    capsys.readouterr()
    command = ["search", "--gallery", str(elsewhere / "g"), *asked, "--k", "3", "--strategy", strategy]
    assert main([*command, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    xb = unit_vectors(60, 16).astype(np.float16).astype(np.float32)
    nearest = np.argsort(-xb[5:9] @ xb.T, axis=1)[:, :3]
    assert [ids(answer) for answer in answers[:4]] == nearest.astype(str).tolist()
    assert [answer["query"] for answer in answers] == ["0", "1", "2", "3", "7"]
    assert "7" not in ids(answers[4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.jpg"], "made elsewhere: ask with vectors or like, not with photo.jpg"),
        (["--vectors", "queries.npy"], "say which model made"),
        (["--vectors", "queries.npy", "--model-name", "other"], "another"),
        (["--vectors", "queries.npy", "--model-name", "clip"], "normalise"),
        (["--vectors", "none.npy", "--model-name", "clip"], "no such file"),
        (["--like", "7", "--query-width", "1/8"], "only the full one"),
        (["--like", "7", "--not", "base.npy"], "no model for images"),
    ],
)
def test_vectors_that_do_not_fit_are_named(
    elsewhere: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(elsewhere)
    assert main(["search", "--gallery", "g", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shortlist", "0"], "shortlist is 0"),
        (["--min-score", "nan"], "min_score is nan: it can be a number"),
        (["--strategy", "single-shot", "--dim", "8"], "mean nothing for strategy single-shot"),
        (["--html", "none/page.html"], "there is no folder none"),
        (["--html", "."], "is a folder"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_the_search(
    place: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    assert main(["search", "--gallery", str(place / "g"), str(place / "photos" / FIRST), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_length_asks_for_a_shortlist_in_a_small_gallery_too(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(place / "photos" / FIRST)
    for flags, kind in ((["--shortlist", "12"], "shortlist"), ([], "single-shot")):
        assert main(["search", "--gallery", str(place / "g"), file, *flags]) == 0
        assert kind in capsys.readouterr().out.splitlines()[-2]


def test_without_an_index_all_are_compared_and_a_shortlist_names_what_is_missing(
    elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, imported = str(tmp_path / "g.parquet"), str(tmp_path / "imported")
    assert main(["gallery", "export", str(elsewhere / "g"), table]) == 0
    assert main(["gallery", "import", table, imported]) == 0
    search = ["search", "--gallery", imported, "--like", "7", "--k", "3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matmamba_vision.galleries.strategies.SMALL_GALLERY", 10)
        assert main(search) == 0
    assert main([*search, "--strategy", "shortlist"]) == 2
    assert "has no index for a shortlist: `index` with dims" in capsys.readouterr().err


def test_a_score_threshold_cuts_and_says_so(place: Path, search: Run) -> None:
    file = place / "photos" / FIRST
    hits = search(file)[str(file)]["hits"]
    middle = (hits[3]["score"] + hits[4]["score"]) / 2
    cut = search(file, "--min-score", middle)[str(file)]
    assert ids(cut) == [hit["id"] for hit in hits[:4]]
    assert cut["reason"].startswith("4 of 10 hits")
    assert "reason" not in search(file, "--min-score", -1)[str(file)]


def test_broken_queries_are_named_and_the_others_answered(
    place: Path, search: Run, fails: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, broken, missing = place / "photos" / FIRST, tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(good.read_bytes()[:300])
    alone = search(good)[str(good)]
    found = search(broken, good, missing, status=1)
    assert list(found) == [str(broken), str(good), str(missing)]
    assert found[str(good)] == alone
    assert found[str(missing)]["error"] == "No such file or directory"
    assert found[str(broken)]["hits"] == []
    page = tmp_path / "page.html"
    words = ["search", "--gallery", place / "g", broken, good, "--html", page]
    assert main([str(word) for word in words]) == 1
    said = capsys.readouterr()
    assert f"{broken} cannot be read" in said.err
    assert FIRST in said.out
    assert "cannot be read" in page.read_text()
    # With none to answer it is an error like any other.
    assert "broken.png" in fails(broken, missing)


def test_a_table_says_what_each_stage_took(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "search",
        "--gallery",
        place / "g",
        place / "photos" / FIRST,
        "--strategy",
        "shortlist",
        "--k",
        3,
    ]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert re.search(r"score\tlabel\tid\tpath", said)
    for stage in ("encode", "shortlist", "rerank"):
        assert re.search(rf"{stage} \d+\.\d\d ms, [\d,]+\.\d+ MMACs", said), said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["https://example.org/a.jpg"], "is not a file here"),
        (["file://elsewhere/a.jpg"], "is not a file here"),
        (["-", "-"], "given twice"),
        (["--like", "nobody"], "no image of id 'nobody'"),
        (["--like", FIRST, "--not", "nobody"], "neither a file nor an id"),
        (["--like", FIRST, "--not", FIRST, "--not-weight", "1"], "nothing is left"),
        (["--like", FIRST, "--not", "dark/01 é.png", "--not-weight", "0"], "above 0"),
        (["--like", FIRST, "--where", "lable = 'dark'"], "did you mean label"),
        (["--like", FIRST, "--where", "label = 'dark'; DROP TABLE images"], "without ';'"),
        (["--like", FIRST, "--k", "0"], "0"),
        ([], "no query"),
    ],
)
def test_what_cannot_be_asked_is_named(fails: Callable[..., str], arguments: list[str], message: str) -> None:
    assert message in fails(*arguments)


def test_an_empty_folder_is_named(fails: Callable[..., str], tmp_path: Path) -> None:
    assert str(tmp_path) in fails(tmp_path)


def test_a_plan_is_followed_unless_told_otherwise(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "g"
    shutil.copytree(place / "g", folder)
    with Gallery(folder, write=True) as gallery:
        plan = Plan(
            strategy=Strategy.shortlist(width="1/4", dim=32, length=12),
            spec=gallery.spec,
            k=10,
            goal="recall=0.9",
        )
        gallery.save_plan(plan.to_json())

    def strategy(*more: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["search", "--gallery", str(folder), "--like", FIRST, "--json", *more]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["strategy"]
        return found

    planned = strategy()
    assert (planned["name"], planned["query_width"], planned["shortlist"]) == ("shortlist", "1/4", 12)
    assert strategy("--strategy", "single-shot")["name"] == "single-shot"
    # The plan keeps too few candidates for so many hits.
    assert strategy("--k", "20")["name"] == "single-shot"


class Reader(HTMLParser):
    """Collects what a page shows and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        assert not {"onclick", "onerror", "onload"} & given.keys()
        if tag == "img":
            self.images.append(given["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_holds_its_pictures_and_names_those_that_are_gone(
    place: Path, tmp_path: Path, search: Run
) -> None:
    folder, page = tmp_path / "photos", tmp_path / "hits.html"
    shutil.copytree(place / "photos", folder)
    shutil.copytree(place / "g", tmp_path / "g")
    with Gallery(tmp_path / "g", write=True) as gallery:
        keys = gallery.live_keys()
        rows = [Row(r.id, str(folder / r.id), "<b>&\"'" + str(r.label), {}) for r in gallery.rows(keys)]
        gallery.upsert(rows, gallery.segments.read(keys))
    query = tmp_path / "<script>alert(1)</script>.png"
    # A slash ends a file name: the rest of the tag is a folder.
    query.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / FIRST, query)
    (folder / "bright" / "02 é.png").unlink()
    words = ["search", "--gallery", tmp_path / "g", query, "--k", COUNT, "--html", page]
    page.write_text("an older page")
    assert main([str(word) for word in words]) == 0
    shown = Reader(page.read_text())
    assert "script" not in shown.tags
    assert "b" in shown.tags  # of the page itself
    assert shown.text.count("<b>&\"'") == COUNT
    assert "<script>alert(1)" in shown.text
    # The query and all hits but the one that is gone.
    assert len(shown.images) == COUNT
    assert all(source.startswith("data:image/jpeg;base64,") for source in shown.images)
    assert shown.text.count("picturenot found") == 1
    assert not re.search(r"(src|href)=\"?https?:", page.read_text())
    assert "prefers-color-scheme: dark" in page.read_text()
    assert "width=device-width" in page.read_text()
    assert list(tmp_path.glob(".*partial")) == []


def test_a_page_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("older")

    def write() -> None:
        with Page(file, "title", "intro") as page:
            page.write(Section("a", [Card("", "b")]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert file.read_text() == "older"
    assert list(tmp_path.iterdir()) == [file]


def test_pictures_inside_other_files_are_found(tmp_path: Path) -> None:
    """Rows of Parquet files and members of shards, by the paths that a gallery remembers."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from matmamba_datasets import open_images

    colours = {"red": (250, 0, 0), "blue": (0, 0, 250)}
    stored = []
    for name, colour in colours.items():
        file = tmp_path / "photos" / name / f"{name}.png"
        file.parent.mkdir(parents=True)
        Image.new("RGB", (40, 20), colour).save(file)
        for copy in range(4):
            shutil.copy(file, file.with_name(f"{copy}.png"))
        stored.append({"bytes": file.read_bytes(), "path": file.name})
    pq.write_table(pa.table({"image": stored, "label": [0, 1]}), tmp_path / "some.parquet")
    prepare = ["data", "prepare", "--name", "folder", "--root", tmp_path / "photos", "--held-out", "0.5"]
    assert main([*map(str, prepare), "--output", str(tmp_path / "shards")]) == 0
    pictures = Pictures()
    for place in (tmp_path / "some.parquet", tmp_path / "shards"):
        images = open_images(place)
        assert all("#" in path for path in images.paths)
        for path, wanted in zip(images.paths, map(images.__getitem__, range(len(images))), strict=True):
            assert np.array_equal(np.asarray(pictures.read(path)), np.asarray(wanted.image))
            assert pictures.data_url(path, 10).startswith("data:image/jpeg")
    small = Image.open(io.BytesIO(pictures.thumbnail(str(tmp_path / "photos/red/red.png"), 10) or b""))
    assert small.size == (10, 5)
    for gone in ("nowhere.png", str(tmp_path / "some.parquet#some.parquet#9"), str(tmp_path / "x.parquet#1")):
        assert pictures.thumbnail(gone) is None
    assert pictures.thumbnail(b"no image") is None
