"""Searches over HTTP: what is asked reaches the service as it was meant, and replies come back whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matmamba_vision.serving.http.options import HttpOptions
from matmamba_vision.serving.http.schemas import AnswerReport, AnswerReports
from matmamba_vision.serving.question import LiveRecall
from served_http import (
    DIM,
    HOSTILE,
    SEARCH,
    FakeService,
    client_of,
    jpeg,
    made_gallery,
    multipart,
    vector_of,
)
from small import unit_vectors
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two galleries, which nobody changes."""
    root = tmp_path_factory.mktemp("galleries")
    made_gallery(root / "a")
    made_gallery(root / "b", 8)
    return root


@pytest.fixture
def service(folder: Path) -> Iterator[FakeService]:
    found = FakeService({"photos": folder / "a" / "gallery", "other": folder / "b" / "gallery"})
    yield found
    found.close()


def test_an_uploaded_image_is_searched_for(service: FakeService, client: TestClient) -> None:
    said = client.post(SEARCH, **multipart(jpeg(), k=3, where="label = 'cat'", min_score=-1.0))
    assert said.status_code == 200, said.text
    AnswerReport.model_validate(answer := said.json())
    (question,) = service.asked
    assert question.image is not None
    assert (question.k, question.where, question.min_score) == (3, "label = 'cat'", -1.0)
    wanted = service.gallery("photos").search(vector_of(question.image), 3, where="label = 'cat'")
    assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == [(hit.id, hit.score) for hit in wanted]
    assert {hit["label"] for hit in answer["hits"]} == {"cat"}
    assert answer["hits"][0]["metadata"] == dict(wanted[0].metadata)
    assert answer["width"] == "1/2"
    assert answer["sent_on"] is True
    assert {"decode", "queue", "encode", "rerank", "total"} <= answer["ms"].keys()
    assert said.headers["X-Request-Id"] == answer["request_id"]


def test_all_that_can_be_asked_reaches_the_service(service: FakeService, client: TestClient) -> None:
    vector = unit_vectors(1, DIM)[0]
    asked: dict[str, Any] = {
        "vector": vector.tolist(),
        "text": "a cat",
        "like": ["id7"],
        "unlike": ["id8", "id9"],
        "offset": 2,
        "strategy": "single-shot",
        "width": "1/4",
        "min_width": "1/8",
    }
    before = time.monotonic()
    assert client.post(SEARCH, json=asked | {"deadline_ms": 5000}).status_code == 200
    (question,) = service.asked
    assert question.vector is not None
    assert np.array_equal(question.vector, vector)
    assert (question.text, question.like, question.unlike) == ("a cat", ("id7",), ("id8", "id9"))
    assert (question.offset, question.strategy, question.width, question.min_width) == (
        2, "single-shot", "1/4", "1/8",
    )  # fmt: skip
    assert before + 5 <= question.deadline <= time.monotonic() + 5


def test_what_says_nothing_has_the_time_of_the_service(service: FakeService) -> None:
    client = client_of(service, HttpOptions(slo_ms=300))
    before = time.monotonic()
    client.post(SEARCH, json={"id": "id7"})
    client.post(SEARCH, json={"id": "id7", "min_width": "1/2"})
    client.post(SEARCH, json={"id": "id7", "width": "1/8"})
    assert [one.min_width for one in service.asked] == ["", "1/2", ""]
    assert before + 0.3 <= service.asked[0].deadline <= time.monotonic() + 0.3


def test_pages_follow_each_other(client: TestClient) -> None:
    found, offset = list[str](), 0
    while offset is not None:
        page = client.post(SEARCH, json={"id": "id7", "k": 5, "offset": offset}).json()
        found += [hit["id"] for hit in page["hits"]]
        assert [hit["rank"] for hit in page["hits"]] == list(
            range(offset + 1, offset + 1 + len(page["hits"]))
        )
        offset = page["next_offset"]
    assert len(found) == len(set(found)) == 11


def test_names_that_look_like_something_else_are_data(service: FakeService, client: TestClient) -> None:
    answer = client.post(SEARCH, json={"id": "id7", "k": 11})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = {hit["id"]: hit["thumbnail"] for hit in answer.json()["hits"]}
    for name in HOSTILE:
        assert client.post(SEARCH, json={"id": name}).status_code == 200
        picture = client.get(f"/v1/galleries/photos/{found[name]}")
        assert picture.headers["content-type"] == "image/jpeg", name
        item = client.get("/v1/galleries/photos/item", params={"id": name}).json()
        assert item["id"] == name
        said = client.post(
            SEARCH, content=b'{"oops<script>": 1}', headers={"content-type": "application/json"}
        )
        assert said.headers["content-type"] == "application/json"


def test_galleries_are_kept_apart(service: FakeService, client: TestClient) -> None:
    for name in ("photos", "other"):
        answer = client.post(f"/v1/galleries/{name}/search", json={"id": "id7"}).json()
        assert answer["gallery"] == name
        assert len(answer["hits"]) == {"photos": 10, "other": 7}[name]
    assert [one.gallery for one in service.asked] == ["photos", "other"]
    said = client.post("/v1/galleries/none/search", json={"id": "id7"})
    assert (said.status_code, said.json()["error"]["code"]) == (404, "not_found")
    assert "'none'" in said.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "culprit"),
    [
        (b"{", "JSON"),
        (b"[1]", "object"),
        (b'{"querry": 1}', "querry"),
        (b'{"k": 0}', "k: "),
        (b'{"k": "5"}', "k: "),
        (b'{"k": 2.5}', "k: "),
        (b'{"offset": -1}', "offset"),
        (b'{"min_score": NaN}', "min_score"),
        (b'{"vector": [1, "2"]}', "vector.1"),
        (b'{"strategy": "magic"}', "strategy"),
        (b'{"deadline_ms": 0}', "deadline_ms"),
        (b'{"id": "\\ud800"}', "request"),
        (b'{"like": "id7"}', "like"),
        (b'{"where": "label ="}', "label ="),
        (b'{"id": "id7", "where": "nothing = 1 AND"}', "where"),
    ],
)
def test_what_cannot_be_is_named(client: TestClient, body: bytes, culprit: str) -> None:
    body = body if b'"id"' in body or body[:1] != b"{" else body.replace(b"{", b'{"id": "id7", ', 1)
    said = client.post(SEARCH, content=body, headers={"content-type": "application/json"})
    assert said.status_code == 400
    error = said.json()["error"]
    assert error["code"] == "bad_request"
    assert culprit in error["message"] or culprit in ("JSON", "label =", "where", "request"), error
    assert "\n" not in error["message"]
    assert error["request_id"] == said.headers["x-request-id"]


def test_messages_do_not_say_where_galleries_lie(client: TestClient, folder: Path) -> None:
    said = client.post(SEARCH, json={"id": "nobody"}).json()["error"]["message"]
    assert "'nobody'" in said
    assert str(folder) not in said


def test_several_images_are_asked_at_once(service: FakeService, client: TestClient) -> None:
    files: list[tuple[str, Any]] = [("image", (f"{n}.jpg", jpeg(seed=n))) for n in range(3)]
    files[1] = ("image", ("broken.jpg", jpeg()[:300], "image/jpeg"))
    files.append(("request", (None, json.dumps({"k": 2}).encode(), "application/json")))
    said = client.post(f"{SEARCH}/batch", files=files)
    AnswerReports.model_validate(said.json())
    first, broken, last = said.json()["answers"]
    assert "truncated" in broken["error"]["message"].lower()
    assert len(first["hits"]) == len(last["hits"]) == 2
    assert len(service.asked) == 2


def test_several_questions_are_asked_at_once(service: FakeService, client: TestClient) -> None:
    queries = [{"id": "id7", "k": 1}, {"id": "none"}, {"id": "id8", "k": 4}]
    answers = client.post(f"{SEARCH}/batch", json={"queries": queries}).json()["answers"]
    assert [len(one.get("hits", [])) for one in answers] == [1, 0, 4]
    assert answers[1]["error"]["code"] == "bad_request"
    # Together they may take as long as one by one.
    assert service.asked[0].deadline - time.monotonic() > 20


@pytest.mark.parametrize("body", [{}, {"queries": []}, {"queries": [{"id": "x"}] * 65}, {"id": "id7"}])
def test_a_batch_that_asks_nothing_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post(f"{SEARCH}/batch", json=body).status_code == 400


def test_a_batch_has_a_question_for_each_image(client: TestClient) -> None:
    said = client.post(f"{SEARCH}/batch", **multipart(jpeg(), queries=[{"k": 1}, {"k": 2}]))
    assert said.status_code == 400
    assert "2 queries for 1 images" in said.json()["error"]["message"]


def test_answers_say_how_good_they_were_lately(service: FakeService, client: TestClient) -> None:
    assert client.post(SEARCH, **multipart(jpeg())).json()["recall"] is None
    service.recall = LiveRecall(estimate=0.9, low=0.8, high=0.95, same_first=0.97, samples=40)
    assert client.post(SEARCH, **multipart(jpeg())).json()["recall"] == vars(service.recall)


def test_it_says_when_it_is_not_ready(service: FakeService, client: TestClient) -> None:
    service.ready = False
    said = client.post(SEARCH, json={"id": "id7"})
    assert (said.status_code, said.json()["error"]["code"]) == (503, "not_ready")
    assert said.headers["retry-after"] == "1"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").json() == {"alive": True}


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
FIELDS = st.sampled_from(
    ["id", "text", "vector", "like", "unlike", "where", "min_score", "k", "offset", "strategy", "width",
     "min_width", "deadline_ms", "queries", "other"]
)  # fmt: skip
BODIES = st.dictionaries(FIELDS, VALUES | st.lists(VALUES, max_size=4), max_size=5)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(body=BODIES)
def test_no_json_is_a_fault_of_the_service(client: TestClient, body: dict[str, Any]) -> None:
    for path in (SEARCH, f"{SEARCH}/batch"):
        said = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert said.status_code in (200, 400), said.text


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(content=st.binary(max_size=300), boundary=st.sampled_from(["b", "", 'x"', "a" * 300]))
def test_no_multipart_is_a_fault_of_the_service(client: TestClient, content: bytes, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    body = b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\n" + content
    for sent in (content, body, body + b"\r\n--b--\r\n"):
        assert client.post(SEARCH, content=sent, headers=headers).status_code in (400, 413, 415)
