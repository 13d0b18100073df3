"""The calls of Python on galleries: nothing is printed, and errors name the argument."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matmamba_common.errors import MatMambaError
from matmamba_datasets import BrokenImageError, Limits
from matmamba_retrieval import Gallery, Strategy
from matmamba_vision import Checkpoint, load_checkpoint, save_checkpoint
from matmamba_vision.api import ImageGallery, open_gallery
from matmamba_vision.cli.main import main
from matmamba_vision.galleries.answers import Answer, answers_to_dict
from matmamba_vision.galleries.given_vectors import GivenVectors
from matmamba_vision.galleries.image_intake import index
from matmamba_vision.galleries.result_page import write_page
from matmamba_vision.galleries.shortlists import build_indexes
from matmamba_vision.galleries.vector_intake import index_vectors
from matmamba_vision.progress import Event, Progress
from PIL import Image
from small import create, unit_vectors

COUNT = 24
# Of one image whether it is encoded alone or among others.
SCORE_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in two folders, two models of random weights, and a gallery of the photos by the first."""
    root, rng = tmp_path_factory.mktemp("door"), np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (20, 20 + number, 3)) // (1 + number % 2)
        file = root / "photos" / ("dark" if number % 2 else "bright") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    (root / "broken.jpg").write_bytes(b"no image")
    for name, seed in (("model", 0), ("other", 1)):
        torch.manual_seed(seed)
        overlay = {"input_size": (3, 16, 16)}
        made = create("matmamba_nano_patch4_32", img_size=16, num_classes=2, pretrained_cfg_overlay=overlay)
        save_checkpoint(root / name, made.eval(), ("bright", "dark"))
    index(root / "photos", root / "g", model=root / "model", threads=1)
    return root


@pytest.fixture(scope="module")
def model(place: Path) -> Checkpoint:
    return load_checkpoint(place / "model")


@pytest.fixture
def gallery(place: Path, model: Checkpoint) -> Iterator[ImageGallery]:
    with open_gallery(place / "g", model=model) as opened:
        yield opened


@pytest.fixture
def own(place: Path, tmp_path: Path, model: Checkpoint) -> Iterator[ImageGallery]:
    """A gallery of its own that may be changed."""
    index(place / "photos", tmp_path / "own", model=model)
    with open_gallery(tmp_path / "own", model=model, write=True) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    capsys.readouterr()
    yield
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_a_gallery_that_is_there_is_added_to_by_what_made_it(place: Path, tmp_path: Path) -> None:
    for name, model in (("bright", place / "model"), ("dark", None)):
        found = index(place / "photos" / name, tmp_path / "g", model=model, threads=1)
    assert found.total == COUNT
    with Gallery(tmp_path / "g") as gallery, Gallery(place / "g") as at_once:
        assert gallery.spec == at_once.spec
        assert Path(gallery.generation.checkpoint_path).parent == place / "model"


def test_what_made_a_gallery_and_is_gone_is_named(place: Path, tmp_path: Path) -> None:
    """Rather than that the weights of the package are others."""
    save_checkpoint(tmp_path / "gone", load_checkpoint(place / "other").model)
    index(place / "photos", tmp_path / "g", model=tmp_path / "gone", threads=1)
    (tmp_path / "gone" / "model.safetensors").unlink()
    with pytest.raises(MatMambaError, match=r"the checkpoint of \S+g is no longer at \S+gone"):
        index(place / "photos", tmp_path / "g", threads=1)


def test_an_index_that_is_none_is_answered_by_those_there_are(place: Path, tmp_path: Path) -> None:
    said = (
        r"no index over 32 dims is called 'hnws': it can be flat, sq8, hnsw, .*, or a factory string of FAISS"
    )
    with pytest.raises(MatMambaError, match=said):
        index(place / "photos", tmp_path / "g", model=place / "model", factory="hnws")
    assert not (tmp_path / "g").exists()


def photo(place: Path, number: int = 0) -> Path:
    return place / "photos" / ("dark" if number % 2 else "bright") / f"{number:02d}.png"


def ids(answer: Answer) -> list[str]:
    return [hit.id for hit in answer]


def content(folder: Path) -> tuple[list[str], bytes]:
    with Gallery(folder) as opened:
        keys = opened.live_keys()
        return [row.id for row in opened.rows(keys)], opened.vectors(keys).tobytes()


class Listening:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def require_finished(self, *stages: str) -> None:
        """Each stage was told, and its last event says that it is over."""
        told = [event for event in self.events if isinstance(event, Progress)]
        for stage in stages:
            assert [event.finished for event in told if event.stage == stage][-1:] == [True], stage


def test_three_lines_index_a_folder_and_search_it(place: Path, tmp_path: Path) -> None:
    index(place / "photos", tmp_path / "g", model=place / "model")
    with open_gallery(tmp_path / "g") as opened:
        assert opened.search(photo(place)).hits[0].id == "bright/00.png"


def test_what_indexing_did_is_a_value_and_goes_on(place: Path, tmp_path: Path, model: Checkpoint) -> None:
    heard = Listening()
    first = index(place / "photos", tmp_path / "g", model=model, progress=heard, prefix="x/", widths=["1/2"])
    assert (first.added, first.known, first.total, first.broken) == (COUNT, 0, COUNT, {})
    heard.require_finished("indexing")
    again = index(place / "photos", tmp_path / "g", model=model, prefix="x/")
    assert (again.added, again.known, again.total) == (0, COUNT, COUNT)
    assert json.loads(json.dumps(first.to_dict()))["gallery"] == str(tmp_path / "g")
    with Gallery(tmp_path / "g") as opened:
        assert opened.generation.widths == ("1/2",)
    assert build_indexes(tmp_path / "g", dims=[8]) == ("Flat-8", "Flat-8@1/2", "Flat-32", "Flat-32@1/2")


def test_an_interrupted_call_keeps_what_was_encoded(
    place: Path, tmp_path: Path, model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Listening()

    def interrupting(event: Event) -> None:
        heard(event)
        if isinstance(event, Progress) and event.done >= 10 and not event.finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(place / "photos", tmp_path / "g", model=model, batch_size=5, progress=interrupting)
    heard.require_finished("indexing")
    assert len(content(tmp_path / "g")[0]) == 10
    index(place / "photos", tmp_path / "g", model=model, batch_size=5)
    index(place / "photos", tmp_path / "whole", model=model, batch_size=5)
    assert content(tmp_path / "g") == content(tmp_path / "whole")


def test_images_of_every_kind_get_the_same_vectors(place: Path, tmp_path: Path, model: Checkpoint) -> None:
    files = [photo(place, number) for number in range(4)]
    given: list[Any] = [
        files[0],
        Image.open(files[1]),
        np.asarray(Image.open(files[2])),
        files[3].read_bytes(),
    ]
    names = ["a", "b", "c", "d"]
    found = index(given, tmp_path / "mixed", model=model, ids=names, labels=["x", None, "y", "x"])
    index(files, tmp_path / "paths", model=model, ids=names)
    assert found.added == 4
    assert content(tmp_path / "mixed") == content(tmp_path / "paths")
    with open_gallery(tmp_path / "mixed") as opened:
        rows = opened.rows()
        assert [(row.id, row.label) for row in rows] == [("a", "x"), ("b", None), ("c", "y"), ("d", "x")]
        assert [row.path for row in rows] == [str(files[0]), "", "", ""]
        assert ids(opened.search(given[1], k=1)) == ["b"]
        assert [row.id for row in opened.rows(where="label = 'x'")] == ["a", "d"]
        assert [row.id for row in opened.rows(["d", "a"])] == ["d", "a"]
    index(files, tmp_path / "unnamed", model=model)
    with open_gallery(tmp_path / "unnamed") as opened:
        assert [row.id for row in opened.rows()] == [str(file) for file in files]


def test_a_query_of_every_kind_gets_the_same_answer(place: Path, gallery: ImageGallery) -> None:
    file = photo(place)
    wanted = gallery.search(file, k=5)
    assert [hit.rank for hit in wanted] == [1, 2, 3, 4, 5]
    assert wanted[0].id == "bright/00.png"
    assert wanted[0].label == "bright"
    assert wanted[0].path == str(file)
    assert wanted.query == str(file)
    with Image.open(file) as opened:
        opened.load()
        same: list[Any] = [
            str(file),
            file.as_uri(),
            opened,
            np.asarray(opened),
            file.read_bytes(),
            bytearray(file.read_bytes()),
        ]
    answers = gallery.search(same, k=5)
    for answer in answers:
        # Six images at once may be rounded otherwise than one.
        assert [replace(hit, score=0) for hit in answer.hits] == [
            replace(hit, score=0) for hit in wanted.hits
        ]
        scores = [hit.score for hit in wanted.hits]
        assert [hit.score for hit in answer.hits] == pytest.approx(scores, abs=SCORE_TOLERANCE)
    assert [answer.query for answer in answers[2:4]] == ["query[2]", "query[3]"]
    vector = unit(gallery, "bright/00.png")
    assert ids(gallery.search(vector, k=5)) == ids(wanted)
    assert ids(gallery.search("bright/00.png", k=4)) == ids(wanted)[1:]


def unit(gallery: ImageGallery, image_id: str) -> np.ndarray:
    with gallery.reading() as opened:
        vector = opened.vectors(np.array([*opened.keys_of([image_id]).values()]))[0].astype(np.float32)
    return vector / np.linalg.norm(vector)


def test_a_list_is_answered_in_its_order_and_says_what_cannot_be_read(
    place: Path, gallery: ImageGallery
) -> None:
    vectors = unit_vectors(3, gallery.spec.dim)
    asked = [photo(place, 3), "dark/01.png", vectors[0], place / "broken.jpg", "dark/05.png", photo(place, 2)]
    heard = Listening()
    answers = gallery.search(asked, k=3, like=["dark/07.png"], vectors=vectors[1:], progress=heard)
    heard.require_finished("searching")
    names = [str(asked[0]), "dark/01.png", "query[2]", str(asked[3]), "dark/05.png", str(asked[5])]
    assert [answer.query for answer in answers] == [*names, "vectors[0]", "vectors[1]", "dark/07.png"]
    assert [bool(answer.error) for answer in answers] == [place == 3 for place in range(9)]
    assert all(len(answer) == 3 for answer in answers if not answer.error)
    assert all(answer.query not in ids(answer) for answer in answers)
    with pytest.raises(BrokenImageError, match=r"broken\.jpg"):
        gallery.search(place / "broken.jpg")


def test_the_command_prints_what_the_call_answers(
    place: Path, gallery: ImageGallery, capsys: pytest.CaptureFixture[str]
) -> None:
    file, unwanted = photo(place), "bright/02.png"
    words = ["--not", unwanted, "--where", "label = 'bright'", "--k", "30", "--strategy", "funnel", "--json"]
    assert main(["search", "--gallery", str(place / "g"), str(file), *words]) == 0
    printed = json.loads(capsys.readouterr().out)
    strategy = {"strategy": "funnel", "where": "label = 'bright'"}
    found = answers_to_dict([gallery.search(file, k=30, unlike=unwanted, **strategy)])  # type: ignore[call-overload]
    for each in (printed, found):
        each["cost"]["ms"] = list(each["cost"]["ms"])
    assert json.loads(json.dumps(found)) == printed
    assert unwanted not in [hit["id"] for hit in printed["answers"][0]["hits"]]


def test_answers_as_plain_values(place: Path, gallery: ImageGallery) -> None:
    answer = gallery.search(photo(place), k=3)
    assert answers_to_dict(answer) == answers_to_dict([answer])
    with pytest.raises(MatMambaError, match="answers is empty"):
        answers_to_dict([])
    with pytest.raises(TypeError, match=r"answers\[0\] is a Hit"):
        answers_to_dict(list(answer))  # type: ignore[arg-type]


def test_a_strategy_is_a_name_or_a_value(place: Path, gallery: ImageGallery) -> None:
    file = photo(place)
    for strategy in (Strategy.single_shot(), Strategy.shortlist(width="1/2", length=12)):
        assert gallery.search(file, strategy=strategy).strategy == strategy
    named = gallery.search(file, strategy="shortlist", query_width="1/2", dim=32, shortlist=12)
    assert named.strategy == Strategy.shortlist(width="1/2", length=12)
    assert named.cost.candidates == 12
    assert named.cost.ms.keys() == {"encode", "shortlist", "rerank"}


def test_a_small_query_ranks_its_shortlist_itself_and_is_encoded_once(
    place: Path, gallery: ImageGallery
) -> None:
    """Its hits are those of the small width alone where the shortlist holds them, for one encoding."""
    query, label = photo(place), "1/2"
    full, small = (
        gallery.search(query, strategy=Strategy.single_shot(width=width), k=3) for width in ("full", label)
    )
    once = Strategy.shortlist(width=label, length=COUNT, rerank_width=label)
    answer = gallery.search(query, strategy=once, k=3)
    assert ids(answer) == ids(small)
    assert answer.cost.macs == small.cost.macs < full.cost.macs
    assert not answer.by_full_width
    assert answers_to_dict(answer)["strategy"]["rerank_width"] == label
    twice = gallery.search(query, strategy=replace(once, rerank_width=""), k=3)
    assert twice.cost.macs == full.cost.macs + small.cost.macs
    assert "rerank_width" not in answers_to_dict(twice)["strategy"]


def test_a_page_holds_the_answers(place: Path, tmp_path: Path, gallery: ImageGallery) -> None:
    with Image.open(photo(place)) as picture:
        answers = gallery.search([picture, place / "broken.jpg"], k=3)
    write_page(answers, tmp_path / "page.html", intro="What was found.")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 4
    assert "What was found." in page
    assert "cannot be read" in page
    with pytest.raises(MatMambaError, match=r"file .*there is no folder"):
        write_page(answers, tmp_path / "none" / "page.html")
    with pytest.raises(TypeError, match=r"answers\[0\]"):
        write_page(["x"], tmp_path / "other.html")  # type: ignore[list-item]
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_images_are_added_and_seen(place: Path, own: ImageGallery) -> None:
    heard = Listening()
    added = own.add([np.zeros((9, 9, 3), np.uint8)], ids=["black"], labels=["none"], progress=heard)
    heard.require_finished("indexing")
    assert (added.added, added.total, len(own)) == (1, COUNT + 1, COUNT + 1)
    assert ids(own.search(np.zeros((9, 9, 3), np.uint8), k=1)) == ["black"]
    assert own.add(place / "photos").known == COUNT


def test_what_others_add_is_seen_after_refresh(own: ImageGallery, place: Path) -> None:
    with open_gallery(own.folder) as reader:
        own.add([photo(place)], ids=["again"])
        assert len(reader) == COUNT
        reader.refresh()
        assert len(reader) == COUNT + 1


def test_a_plan_is_found_kept_and_followed(own: ImageGallery, place: Path, tmp_path: Path) -> None:
    heard = Listening()
    queries = [np.asarray(Image.open(photo(place, number))) for number in range(8)]
    found = own.plan(queries, target={"recall": 0.5}, k=3, plot=tmp_path / "plan.png", progress=heard)
    heard.require_finished("encoding queries", "measuring latency", "trying strategies")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert found.chosen["recall"] >= 0.5
    assert found.to_dict()["plan"]["goal"] == "recall >= 0.5"
    answer = own.search(photo(place), k=3)
    assert answer.plan == found.plan
    assert answer.strategy == found.plan.strategy
    by_vectors = own.plan(vectors=unit_vectors(12, own.spec.dim), budget=["ms=1000"], k=3)
    assert by_vectors.plan.strategy.query_width == "full"


def test_vectors_made_elsewhere_are_indexed_and_asked(tmp_path: Path) -> None:
    xb, heard = unit_vectors(40, 16), Listening()
    np.save(tmp_path / "x.npy", xb)
    np.save(tmp_path / "q.npy", 2 * xb[3:5])
    assert index_vectors(tmp_path / "x.npy", tmp_path / "c", model_name="clip", progress=heard).added == 40
    heard.require_finished("indexing")
    with open_gallery(tmp_path / "c") as opened:
        by_file = opened.search(vectors=GivenVectors(tmp_path / "q.npy", "clip", normalise=True), k=2)
        assert [answer[0].id for answer in by_file] == ["3", "4"]
        assert opened.search(xb[7], k=1)[0].id == "7"
        with pytest.raises(MatMambaError, match="made elsewhere"):
            opened.search(np.zeros((5, 5, 3), np.uint8))
        with pytest.raises(MatMambaError, match="query_width 1/2"):
            opened.search(xb[7], strategy="shortlist", query_width="1/2")


def test_threads_search_one_gallery_while_it_changes(place: Path, own: ImageGallery) -> None:
    files = [photo(place, number) for number in range(12)]
    wanted = [ids(own.search(file, k=1)) for file in files]
    stop = threading.Event()

    def ask(number: int) -> bool:
        right = True
        while not stop.is_set():
            right &= ids(own.search(files[number], k=1)) == wanted[number]
        return right

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        for number in range(3):
            own.add([np.full((9, 9, 3), 80 * number, np.uint8)], ids=[f"new {number}"])
        stop.set()
        assert all(one.result(60) for one in asking)
    assert len(own) == COUNT + 3


def test_model_and_gallery_are_opened_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matmamba_vision.galleries import gallery_model

    loaded: list[Any] = []

    def counted(*given: Any) -> Checkpoint:
        loaded.append(given)
        return load_checkpoint(*given)

    monkeypatch.setattr(gallery_model, "load_checkpoint", counted)
    with open_gallery(place / "g") as opened:
        opened.search("bright/00.png")
        assert not loaded
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: opened.search(photo(place, number)), range(8)))
    assert len(loaded) == 1


BAD_SEARCHES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a number": ({"query": 7}, TypeError, "query is 7"),
    "numbers in a list": ({"query": [1.0]}, TypeError, r"query\[0\] is 1.0"),
    "floats as pixels": ({"query": np.zeros((4, 4, 3))}, TypeError, "query is an array of float64"),
    "grey pixels": ({"query": np.zeros((4, 4), np.uint8)}, TypeError, "query is an array of uint8"),
    "neither file nor id": ({"query": "nobody.jpg"}, MatMambaError, "query 'nobody.jpg' is neither"),
    "a missing file": ({"query": Path("nobody.jpg")}, MatMambaError, "nobody.jpg"),
    "no query": ({}, MatMambaError, "there is no query"),
    "another length": ({"query": np.full(128, 1.0)}, MatMambaError, "query: vector 0 has length"),
    "other dims": ({"query": np.ones(3)}, MatMambaError, "query has 3 dims"),
    "not finite": ({"vectors": np.full((2, 128), np.nan)}, MatMambaError, "vectors: vector 0"),
    "whole vectors": ({"vectors": np.ones((2, 128), int)}, TypeError, "vectors is an array of int64"),
    "a missing vector file": ({"vectors": "nobody.npy"}, MatMambaError, "nobody.npy"),
    "unknown id": ({"like": "nobody"}, MatMambaError, "like: .* no image of id 'nobody'"),
    "ids that are none": ({"like": [3]}, TypeError, r"like\[0\] is 3"),
    "unknown unlike": ({"query": "bright/00.png", "unlike": "nobody"}, MatMambaError, "unlike 'nobody'"),
    "weight": (
        {"query": "bright/00.png", "unlike": "dark/01.png", "unlike_weight": 0}, MatMambaError, "weight",
    ),
    "k none": ({"query": "bright/00.png", "k": 0}, MatMambaError, "k is 0: it can be 1 or more"),
    "no queries": ({"query": []}, MatMambaError, "query is empty"),
    "a float image": ({"query": np.zeros((4, 4, 3))}, TypeError, r"\(H, W, 3\) of uint8"),
    "progress": ({"query": "bright/00.png", "progress": 3}, TypeError, "progress is 3"),
    "k text": ({"query": "bright/00.png", "k": "5"}, TypeError, "k is '5'"),
    "where": ({"query": "bright/00.png", "where": "colour = 1"}, MatMambaError, "colour"),
    "where list": ({"query": "bright/00.png", "where": ["x"]}, TypeError, r"where is \['x'\]"),
    "score": ({"query": "bright/00.png", "min_score": float("nan")}, MatMambaError, "min_score"),
    "strategy": ({"query": "bright/00.png", "strategy": "fast"}, MatMambaError, "strategy is 'fast'"),
    "strategy type": ({"query": "bright/00.png", "strategy": 3}, TypeError, "strategy is 3"),
    "width": (
        {"query": "bright/00.png", "strategy": "shortlist", "query_width": "1/5"}, MatMambaError, "1/5",
    ),
    "dim": ({"query": "bright/00.png", "dim": 0}, MatMambaError, "dim is 0"),
    "dim unbuilt": ({"query": "bright/00.png", "dim": 7}, MatMambaError, "7 dims"),
    "meaningless": (
        {"query": "bright/00.png", "strategy": Strategy.single_shot(), "dim": 8}, MatMambaError, "dim",
    ),
    "reading": ({"query": "bright/00.png", "reading": 5}, TypeError, "reading is 5"),
    "too large": ({"query": None, "reading": Limits(max_file_mb=1e-6)}, MatMambaError, "larger|bytes|MB"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_what_cannot_be_searched_is_named(name: str, place: Path, gallery: ImageGallery) -> None:
    arguments, kind, message = BAD_SEARCHES[name]
    if name == "too large":
        arguments = arguments | {"query": photo(place)}
    with pytest.raises(kind, match=message):
        gallery.search(**arguments)


def test_what_cannot_be_opened_is_named(place: Path, tmp_path: Path) -> None:
    for arguments, kind, message in (
        ({"folder": tmp_path / "none"}, MatMambaError, "none"),
        ({"folder": 5}, TypeError, "folder is 5"),
        ({"folder": place / "g", "model": place / "nobody"}, MatMambaError, "nobody"),
        ({"folder": place / "g", "model": place / "other"}, MatMambaError, "made with"),
        ({"folder": place / "g", "model": 5}, TypeError, "model is 5"),
        ({"folder": place / "g", "device": "abacus"}, MatMambaError, "abacus"),
        ({"folder": place / "g", "threads": -1}, MatMambaError, "threads is -1"),
    ):
        with pytest.raises(kind, match=message):
            open_gallery(**arguments)
    assert not (tmp_path / "none").exists()


BAD_INDEXES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "missing folder": ({"images": "nowhere"}, MatMambaError, "nowhere"),
    "a number": ({"images": 5}, TypeError, "images is 5"),
    "one image": ({"images": Image.new("RGB", (4, 4))}, TypeError, "images is"),
    "a bad item": ({"images": [5]}, TypeError, r"images\[0\] is 5"),
    "bad pixels": ({"images": [np.zeros((4, 4, 3))]}, TypeError, r"images\[0\] is an array of float64"),
    "nothing": ({"images": []}, MatMambaError, "images is empty"),
    "no ids": ({"images": [np.zeros((4, 4, 3), np.uint8)]}, MatMambaError, "give ids"),
    "too few ids": ({"images": ["a.jpg", "b.jpg"], "ids": ["a"]}, MatMambaError, "1 texts for 2"),
    "an id twice": ({"images": ["a.jpg", "b.jpg"], "ids": ["a", "a"]}, MatMambaError, "'a' is there twice"),
    "ids of a place": ({"ids": ["a"]}, MatMambaError, "ids means nothing"),
    "labels": ({"images": ["a.jpg"], "labels": [5]}, TypeError, r"labels\[0\]"),
    "a text of labels": (
        {"images": ["a.jpg", "b.jpg"], "labels": "xy"},
        TypeError,
        "labels is 'xy'",
    ),
    "reading": ({"reading": 5}, TypeError, "reading is 5"),
    "broken files": ({"images": ["a.jpg"]}, MatMambaError, "no readable images"),
    "model": ({"model": "nobody"}, MatMambaError, "nobody"),
    "width": ({"widths": ["1/5"]}, MatMambaError, "1/5"),
    "widths": ({"widths": [5]}, TypeError, r"widths\[0\]"),
    "dim": ({"dims": [999]}, MatMambaError, "dims: 999"),
    "dims": ({"dims": ["x"]}, TypeError, r"dims\[0\] is 'x'"),
    "factory": ({"factory": "best"}, MatMambaError, "best"),
    "batch": ({"batch_size": 0}, MatMambaError, "batch_size is 0"),
    "threads": ({"threads": "two"}, TypeError, "threads is 'two'"),
    "metadata": ({"metadata": "m.csv"}, MatMambaError, "m.csv"),
    "shard": ({"shard": "3/2"}, MatMambaError, "3/2"),
    "shard and dims": ({"shard": "1/2", "dims": [8]}, MatMambaError, "dims means nothing for a shard"),
    "prune": ({"images": ["a.jpg"], "prune": True}, MatMambaError, "prune means nothing"),
}


@pytest.mark.parametrize("name", BAD_INDEXES)
def test_what_cannot_be_indexed_is_named_and_nothing_written(
    name: str, place: Path, tmp_path: Path, model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, kind, message = BAD_INDEXES[name]
    images = arguments.get("images", place / "photos")
    settings = {"model": model} | {key: value for key, value in arguments.items() if key != "images"}
    with pytest.raises(kind, match=message):
        index(images, tmp_path / "g", **settings)
    assert [*tmp_path.iterdir()] == []


def test_a_gallery_of_another_model_is_left_as_it_is(place: Path, own: ImageGallery) -> None:
    before = content(Path(own.folder))
    with pytest.raises(MatMambaError, match="made with"):
        index(place / "photos", own.folder, model=place / "other", upsert=True)
    assert content(Path(own.folder)) == before


def test_who_reads_changes_nothing(gallery: ImageGallery, place: Path) -> None:
    before = content(Path(gallery.folder))
    for change in (
        lambda: gallery.add([photo(place)], ids=["again"]),
        lambda: gallery.plan(place / "photos", target={"recall": 0.9}),
    ):
        with pytest.raises(MatMambaError, match="write=True"):
            change()
    assert content(Path(gallery.folder)) == before


def test_a_closed_gallery_says_so(place: Path, model: Checkpoint) -> None:
    gallery = open_gallery(place / "g", model=model, write=True)
    gallery.close()
    gallery.close()
    calls: list[Callable[[], object]] = [
        lambda: gallery.search(photo(place)),
        lambda: gallery.add([photo(place)]),
        lambda: gallery.plan(place / "photos", target={"recall": 0.9}),
        lambda: gallery.rows(),
        lambda: gallery.refresh(),
        lambda: len(gallery),
    ]
    for call in calls:
        with pytest.raises(MatMambaError, match="is closed: open it again"):
            call()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, MatMambaError, "either queries"),
        ({"queries": "nowhere", "target": {"recall": 0.9}}, MatMambaError, "nowhere"),
        ({"queries": [5], "target": {"recall": 0.9}}, TypeError, r"queries\[0\] is 5"),
        ({"queries": 5, "target": {"recall": 0.9}}, TypeError, "queries is 5"),
        ({"vectors": np.ones((3, 3)), "target": {"recall": 0.9}}, MatMambaError, "3 dims"),
        ({"vectors": np.ones((3, 3)), "widths": ["1/2"], "target": ["recall=1"]}, MatMambaError, "widths"),
        ({"queries": "x", "target": {"beauty": 0.9}}, MatMambaError, "beauty"),
        ({"queries": "x", "target": {"recall": "all"}}, TypeError, "target recall is 'all'"),
        ({"queries": "x"}, MatMambaError, "target"),
        ({"queries": "x", "target": ["recall=0.9"], "k": 0}, MatMambaError, "k is 0"),
        ({"queries": "x", "target": ["recall=0.9"], "most": 1}, MatMambaError, "most is 1"),
        ({"queries": "x", "target": ["recall=0.9"], "plot": "none/x.png"}, MatMambaError, "plot none/x.png"),
    ],
)
def test_what_cannot_be_planned_is_named(
    arguments: dict[str, Any], kind: type[Exception], message: str, own: ImageGallery
) -> None:
    with pytest.raises(kind, match=message):
        own.plan(**arguments)
    with own.reading() as opened:
        assert opened.plan is None
