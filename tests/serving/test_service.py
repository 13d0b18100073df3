"""The service without HTTP: it answers what the library answers, whatever happens meanwhile."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from matmamba_retrieval import Gallery, Row
from matmamba_vision import MatMamba
from matmamba_vision.checkpoint import save_checkpoint
from matmamba_vision.errors import ConfigError, MatMambaError
from matmamba_vision.native import why_missing
from matmamba_vision.serving.asking import NO_IMAGES
from matmamba_vision.serving.events import Answered, Shed, Swapped
from matmamba_vision.serving.question import OverloadedError, Question, Reply
from matmamba_vision.serving.service import Service
from matmamba_vision.serving.settings import Settings

from .conftest import IMAGES, SIZES, picture

WIDTHS = ("full", "1/2", "1/4")
Serve = Callable[..., Service]
# Scores of engines that add up in another order for another batch; the kernels in C do not.
TOLERANCE = 1e-5


def question(**asked: Any) -> Question:
    known: dict[str, Any] = {"gallery": "pictures", "deadline": time.monotonic() + 60, "k": 5}
    return Question(**known | asked)


def ask(service: Service, **asked: Any) -> Reply:
    return service.submit(question(**asked)).result(timeout=60)


def shown(answer: Any) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in answer]


def equal(found: Any, wanted: Any) -> None:
    """Of two answers, to the bit where the kernels computed both."""
    if why_missing() is None:
        assert shown(found) == shown(wanted)
    else:
        assert [hit.id for hit in found] == [hit.id for hit in wanted]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=TOLERANCE)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_fifty_threads_at_mixed_widths_are_answered_as_by_the_library(
    folder: Path, serve: Serve, workers: int
) -> None:
    kinds = ("single-shot", "auto", "shortlist", "funnel")
    asked = [
        {
            "query": picture(1000 + number),
            "query_width": WIDTHS[number % 3],
            "strategy": kinds[number % 4],
            "where": "label = 'even'" if number % 5 == 0 else "",
            "k": 1 + number % 7,
        }
        for number in range(100)
    ]
    with mv.open_gallery(folder) as gallery:
        wanted = [gallery.search(**one) for one in asked]  # type: ignore[call-overload]
    service = serve(folder, workers=workers)

    def one(number: int) -> Reply:
        known = dict(asked[number])
        image, width = known.pop("query"), known.pop("query_width")
        return ask(service, image=image, width=width, **known)

    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(one, range(100)))
    for reply, answer, known in zip(replies, wanted, asked, strict=True):
        equal(reply.answer, answer)
        assert reply.width == known["query_width"]
        assert reply.answer.strategy == answer.strategy
        assert reply.version == "1.1"


def test_a_batch_gives_what_singles_give(folder: Path, serve: Serve) -> None:
    service, batches = serve(folder, workers=1, max_batch_size=16), list[int]()
    service.on_event(lambda event: batches.append(event.batch) if isinstance(event, Answered) else None)
    pictures = [picture(2000 + number) for number in range(24)]
    alone = [ask(service, image=one, width="1/4").answer for one in pictures]
    assert set(batches) == {1}
    together = [service.submit(question(image=one, width="1/4")) for one in pictures]
    for future, wanted in zip(together, alone, strict=True):
        equal(future.result(60).answer, wanted)
    assert max(batches) > 1


def test_ids_vectors_and_examples_ask_as_in_the_library(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    vector = np.zeros(32, np.float32)
    vector[3] = 1
    with mv.open_gallery(folder) as gallery:
        by_id = gallery.search("picture 3", 5)
        by_vector = gallery.search(vector, 5, where="label = 'odd'")
        away = gallery.search(picture(7), 5, unlike=["picture 7", "picture 8"])
    reply = ask(service, id="picture 3")
    assert shown(reply.answer) == shown(by_id)
    assert (reply.width, reply.sent_on) == ("", False)
    assert shown(ask(service, vector=vector, where="label = 'odd'").answer) == shown(by_vector)
    equal(ask(service, image=picture(7), unlike=("picture 7", "picture 8")).answer, away)


def test_examples_that_answers_should_be_like_are_joined_and_left_out(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    with Gallery(folder) as gallery:
        keys = gallery.keys_of(["picture 3", "picture 4", "picture 5"])
        xb = gallery.segments.read(np.array([*keys.values()])).astype(np.float32)
    mean = xb[1:].mean(0) / np.linalg.norm(xb[1:].mean(0))
    joined = xb[0] + mean
    with mv.open_gallery(folder) as library:
        wanted = library.search(joined / np.linalg.norm(joined), IMAGES)
    left_out = {"picture 3", "picture 4", "picture 5"}
    reply = ask(service, id="picture 3", like=("picture 4", "picture 5"), k=IMAGES)
    assert [hit.id for hit in reply.answer] == [hit.id for hit in wanted if hit.id not in left_out]
    only, by_id = ask(service, like=("picture 4",)).answer, ask(service, id="picture 4").answer
    # Examples are brought to length 1, which stored vectors have but for rounding.
    assert [hit.id for hit in only] == [hit.id for hit in by_id]
    assert [hit.score for hit in only] == pytest.approx([hit.score for hit in by_id], abs=1e-3)


def test_pages_follow_each_other_to_the_end(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    whole = ask(service, image=picture(5), width="full", k=IMAGES)
    assert not whole.more
    pages, offset = list[tuple[str, float]](), 0
    while True:
        reply = ask(service, image=picture(5), width="full", k=30, offset=offset)
        pages += shown(reply.answer)
        offset += 30
        if not reply.more:
            break
    assert pages == shown(whole.answer)
    assert len(pages) == IMAGES
    # As many as there are: none behind.
    assert not ask(service, id="picture 1", k=IMAGES - 1).more


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"gallery": "another", "id": "picture 1"}, "another"),
        ({}, "nothing is asked"),
        ({"image": picture(0), "id": "picture 1"}, "image and id"),
        ({"image": picture(0), "width": "1/3"}, "width is '1/3'"),
        ({"image": picture(0), "min_width": "tiny"}, "min_width is 'tiny'"),
        ({"id": "picture 1", "k": 0}, "k is 0"),
        ({"id": "picture 1", "k": 999, "offset": 2}, "1,000 at most"),
    ],
)
def test_what_no_gallery_can_answer_is_refused_at_once(
    folder: Path, serve: Serve, asked: dict[str, Any], named: str
) -> None:
    service = serve(folder)
    with pytest.raises(MatMambaError, match=named):
        service.submit(question(**asked))


def test_what_this_gallery_cannot_answer_is_told_and_others_are_answered(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    bad: list[dict[str, Any]] = [
        {"id": "nobody"},
        {"image": picture(0), "where": "label ="},
        {"image": picture(0), "unlike": ("nobody",)},
        {"vector": np.ones(32, np.float32)},
        {"text": "a cat"},
        {"image": picture(0), "strategy": "guessing"},
    ]
    for named in ("width", "min_width"):
        with pytest.raises(ConfigError, match=f"{named} is '1/3': pictures is served at full, 1/2, 1/4"):
            service.submit(question(id="picture 1", **{named: "1/3"}))
    futures = [service.submit(question(**one)) for one in bad for _ in range(3)]
    good = service.submit(question(image=picture(0)))
    for future in futures:
        with pytest.raises(MatMambaError):
            future.result(60)
    assert len(good.result(60).answer) == 5
    assert service.status()["queue"] == 0


def test_min_width_is_kept_and_a_deadline_that_cannot_be_is_refused(folder: Path, serve: Serve) -> None:
    service, shed = serve(folder), list[Shed]()
    service.on_event(lambda event: shed.append(event) if isinstance(event, Shed) else None)
    assert ask(service, image=picture(0), min_width="1/2").width in ("full", "1/2")
    with pytest.raises(OverloadedError) as refused:
        service.submit(question(image=picture(0), deadline=time.monotonic() + 1e-4))
    assert refused.value.retry_after > 0
    with pytest.raises(OverloadedError):
        service.require_room("pictures", time.monotonic() + 1e-4)
    service.require_room("pictures", time.monotonic() + 1)
    assert [one.where for one in shed] == ["entry", "entry"]
    assert service.status()["shed"] == 2


def test_nothing_below_the_narrowest_width_of_the_service_answers(folder: Path, serve: Serve) -> None:
    service = serve(folder, min_width="1/2")
    assert [one["width"] for one in service.describe("pictures")["widths"]] == ["full", "1/2"]
    for named in ("width", "min_width"):
        with pytest.raises(ConfigError, match=f"{named} is '1/4': pictures is served at full, 1/2"):
            service.submit(question(image=picture(0), **{named: "1/4"}))
    with pytest.raises(MatMambaError, match="1/3"):
        serve(folder, min_width="1/3")


def test_a_flood_is_bounded_and_everyone_is_told(folder: Path, serve: Serve) -> None:
    service = serve(folder, max_queue=4, workers=1)
    futures, refused, longest = list[Future[Reply]](), list[OverloadedError](), list[int]()

    def flood(number: int) -> None:
        try:
            futures.append(service.submit(question(image=picture(number % 5))))
        except OverloadedError as error:
            refused.append(error)
        longest.append(service.status()["queue"])

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(flood, range(400)))
    assert len(refused) + len(futures) == 400
    assert refused
    assert max(longest) <= 4
    done, left = wait(futures, timeout=60)
    assert not left
    assert all(len(one.result().answer) == 5 for one in done)
    assert max(one.result().queue_position for one in done) <= 4


def test_what_was_let_in_is_answered_before_the_end(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    futures = [service.submit(question(image=picture(number))) for number in range(30)]
    service.close(30)
    assert all(len(future.result(0).answer) == 5 for future in futures)
    with pytest.raises(OverloadedError):
        service.submit(question(id="picture 1"))
    assert not service.ready


def test_who_is_not_answered_before_the_end_is_told(folder: Path, serve: Serve) -> None:
    service = serve(folder, workers=1)
    futures = [service.submit(question(image=picture(number))) for number in range(60)]
    service.close(0.0)
    for future in futures:
        assert future.done()
        error = future.exception()
        assert error is None or isinstance(error, OverloadedError)


def test_who_has_gone_is_not_answered(folder: Path, serve: Serve) -> None:
    service = serve(folder, workers=1)
    futures = [service.submit(question(image=picture(number))) for number in range(40)]
    gone = [future for future in futures[20:] if future.cancel()]
    assert all(len(future.result(60).answer) == 5 for future in futures if future not in gone)
    service.close(5)
    assert service.status()["in_flight"] == 0


def test_a_large_image_is_not_kept_while_its_request_waits(folder: Path, serve: Serve) -> None:
    service, large = serve(folder, workers=1, quality_share=1.0), picture(1).resize((400, 300))
    gone = weakref.ref(large)
    future = service.submit(question(image=large))
    del large
    assert future.result(60).width
    end = time.monotonic() + 10
    while gone() is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert gone() is None


def test_an_empty_gallery_says_so_and_answers_when_it_has_images(
    tmp_path: Path, checkpoint: Path, serve: Serve
) -> None:
    place = tmp_path / "empty"
    mv.index([picture(0)], place, model=checkpoint, ids=["only"])
    with mv.open_gallery(place, write=True) as gallery:
        gallery.delete("only")
    service = serve(place, poll_s=0.05)
    assert service.ready
    assert service.describe("pictures")["state"] == "no images yet"
    reply = ask(service, image=picture(1))
    assert (len(reply.answer), reply.answer.reason, reply.more) == (0, NO_IMAGES, False)
    with mv.open_gallery(place, write=True) as gallery:
        gallery.add([picture(1)], ids=["first"])
    end = time.monotonic() + 20
    while not reply.answer.hits:
        assert time.monotonic() < end
        time.sleep(0.05)
        reply = ask(service, image=picture(1))
    assert [hit.id for hit in reply.answer] == ["first"]
    assert service.describe("pictures")["widths"][0]["ms"] > 0


def test_it_starts_beside_a_writer_and_disturbs_it_not(folder: Path, serve: Serve) -> None:
    with Gallery(folder, write=True) as writer:
        service = serve(folder)
        xb = np.eye(32, dtype=np.float32)[:2]
        for number in range(2):
            assert ask(service, vector=xb[number], k=1).answer[0].id != f"new {number}"
            writer.add([Row(f"new {number}", "", "odd")], xb[number : number + 1])
            service.refresh()
            assert ask(service, vector=xb[number], k=1).answer[0].id == f"new {number}"
        # What is written is written by one: another writer is refused, not the service.
        with pytest.raises(MatMambaError):
            Gallery(folder, write=True)
        assert len(writer) == service.describe("pictures")["images"] == IMAGES + 2


def test_a_second_service_and_one_after_a_kill_find_all_in_order(folder: Path, serve: Serve) -> None:
    """Nothing is left behind by a service that would keep the next one from starting."""
    script = (
        "import os, sys, signal\n"
        "from matmamba_vision.serving.service import Service\n"
        "from matmamba_vision.serving.settings import Settings\n"
        "service = Service({'pictures': sys.argv[1]}, Settings(measure_s=0.1, writable=True))\n"
        "service.start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(folder)], timeout=120)
    assert ended.returncode == -signal.SIGKILL
    first, second = serve(folder, writable=True), serve(folder)
    first.add("pictures", [picture(900)], ["new"])
    second.refresh()
    for service in (first, second):
        assert ask(service, image=picture(900), width="full").answer[0].id == "new"


def test_a_folder_that_is_no_gallery_is_told_at_start(tmp_path: Path) -> None:
    service = Service({"nothing": tmp_path}, Settings())
    with pytest.raises(MatMambaError, match=str(tmp_path)):
        service.start()
    assert not service.ready


def test_versions_are_exchanged_while_requests_are_answered(folder: Path, serve: Serve) -> None:
    """Each answer is of one version, and as that version answers; nobody notices an exchange."""
    service, swapped = serve(folder, workers=2), list[Swapped]()
    service.on_event(lambda event: swapped.append(event) if isinstance(event, Swapped) else None)
    stop, replies, errors = threading.Event(), list[Reply](), list[BaseException]()

    def client() -> None:
        while not stop.is_set():
            try:
                replies.append(ask(service, image=picture(500), width="full", k=3))
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    first: dict[str, str] = {}
    with mv.open_gallery(folder, write=True) as writer:
        first[service.status()["galleries"]["pictures"]] = shown(writer.search(picture(500), 1))[0][0]
        for number in range(4):
            if number % 2 == 0:
                writer.add([picture(500)], ids=["the same"])
            else:
                writer.delete("the same")
            service.refresh()
            version = service.status()["galleries"]["pictures"]
            first[version] = shown(writer.search(picture(500), 1))[0][0]
            before = len(replies)
            while len(replies) < before + 8 and not errors:
                time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(swapped) == 4
    assert {reply.version for reply in replies} == {*first}
    for reply in replies:
        assert reply.answer[0].id == first[reply.version]


def test_an_index_or_plan_that_is_made_elsewhere_is_used(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    assert ask(service, image=picture(3), strategy="shortlist").answer.strategy.dims == (8,)
    with mv.open_gallery(folder, write=True) as gallery:
        found = gallery.plan(list(map(picture, range(100, 130))), target={"recall": 0.5}, widths=["1/4"])
    service.refresh("pictures")
    described = service.describe("pictures")
    assert "follows the plan" in described["plan"]
    reply = ask(service, image=picture(3), width=found.plan.strategy.query_width)
    assert reply.answer.strategy == found.plan.strategy


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another model, of two widths."""
    torch.manual_seed(1)
    model = MatMamba(**SIZES | {"img_size": 16}, trained_widths=("full", "1/4")).eval()
    return save_checkpoint(tmp_path / "other.safetensors", model)


@pytest.mark.parametrize("way", ["reindexed", "replaced"])
def test_a_gallery_of_another_model_takes_over(
    tmp_path: Path, serve: Serve, checkpoint: Path, other: Path, way: str
) -> None:
    """Reindexed in its place, or another folder put there; requests before are answered by the old one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(10):
        picture(number).save(photos / f"{number}.png")
    mv.index(photos, tmp_path / "gallery", model=checkpoint)
    service = serve(tmp_path / "gallery")
    before = service.submit(question(image=picture(3), k=1))
    if way == "reindexed":
        mv.reindex(tmp_path / "gallery", other)
    else:
        mv.index(photos, tmp_path / "new", model=other)
        shutil.rmtree(tmp_path / "gallery")
        (tmp_path / "new").rename(tmp_path / "gallery")
    service.refresh()
    assert service.status()["notices"] == []
    assert before.result(60).width in WIDTHS
    reply = ask(service, image=picture(3), width="1/4", strategy="shortlist")
    assert reply.answer.encoded_by.keys() <= {"full", "1/4"}
    assert ask(service, image=picture(3), width="full").answer[0].id == "3.png"
    assert [one["width"] for one in service.describe("pictures")["widths"]] == ["full", "1/4"]
    assert list(service.status()["recall"]) == ["full", "1/4"]


def test_a_damaged_newer_version_leaves_the_old_one(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    wanted = shown(ask(service, image=picture(3), width="full").answer)
    catalogue = folder / "catalog.sqlite"
    catalogue.rename(folder / "away")
    service.refresh()
    assert service.status()["notices"]
    assert shown(ask(service, image=picture(3), width="full").answer) == wanted
    (folder / "away").rename(catalogue)
    service.refresh()
    assert not service.status()["notices"]


def test_images_are_added_and_deleted_only_where_that_was_allowed(folder: Path, serve: Serve) -> None:
    only_read = serve(folder)
    for change in (
        lambda: only_read.add("pictures", [picture(900)], ["new"]),
        lambda: only_read.delete("pictures", ["picture 1"]),
    ):
        with pytest.raises(MatMambaError, match="only reads"):
            change()
    service = serve(folder, writable=True)
    service.add("pictures", [picture(900)], ["new"], ["odd"], [{"year": 2020}])
    hit = ask(service, image=picture(900), width="full", where="year = 2020").answer[0]
    assert (hit.id, hit.label, dict(hit.metadata)) == ("new", "odd", {"year": 2020})
    with pytest.raises(MatMambaError, match="'new'"):
        service.add("pictures", [picture(901)], ["new"])
    service.add("pictures", [picture(901)], ["new"], upsert=True)
    assert ask(service, image=picture(901), width="full").answer[0].id == "new"
    assert service.delete("pictures", ["new", "picture 1"]) == 2
    assert service.describe("pictures")["images"] == IMAGES - 1
    with pytest.raises(MatMambaError):
        service.delete("pictures", ["new"])


def test_it_says_how_it_is_doing(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    for number in range(10):
        ask(service, image=picture(number), width=WIDTHS[number % 2])
    status = service.status()
    assert (status["ready"], status["queue"], status["in_flight"], status["shed"]) == (True, 0, 0, 0)
    assert status["widths"] == {"full": 0.5, "1/2": 0.5}
    assert 0 < status["p50_ms"] <= status["p95_ms"] <= status["p99_ms"]
    assert status["in_time"] == 1
    assert list(status["table"]) == list(WIDTHS)
    for by_size in status["table"].values():
        times = list(by_size.values())
        assert list(by_size) == ["1", "2", "4", "8", "16"]
        assert times == sorted(times)
    described = service.describe("pictures")
    assert [one["width"] for one in described["widths"]] == list(WIDTHS)
    assert described["widths"][0]["gmacs"] > described["widths"][2]["gmacs"] > 0
    assert (described["images"], described["labels"], described["fields"]) == (IMAGES, True, [])
