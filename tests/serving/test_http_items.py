"""Galleries, their images and thumbnails over HTTP; adding and deleting where that is allowed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matmamba_datasets import Limits
from matmamba_retrieval import Plan
from matmamba_vision import open_gallery
from matmamba_vision.galleries.plan_trials import FILE
from matmamba_vision.serving.http.options import HttpOptions
from matmamba_vision.serving.http.schemas import PlanReport, StoredItems
from matmamba_vision.serving.http.thumbnails import Thumbnails
from PIL import Image
from served_http import DIM, HOSTILE, FakeService, client_of, jpeg, made_gallery, multipart
from small import unit_vectors
from starlette.testclient import TestClient

PHOTOS = "/v1/galleries/photos"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FakeService]:
    found = FakeService({"photos": made_gallery(tmp_path / "a"), "none": made_gallery(tmp_path / "b", 0)})
    yield found
    found.close()


def test_galleries_are_listed(client: TestClient) -> None:
    listed = client.get("/v1/galleries").json()["galleries"]
    assert [(one["name"], one["images"]) for one in listed] == [("photos", 12), ("none", 0)]
    assert client.get(PHOTOS).json() == listed[0]
    assert listed[0]["model"] == "RUN"
    assert client.get("/v1/galleries/other").status_code == 404


def test_images_are_listed_in_pages(client: TestClient) -> None:
    found, offset = list[str](), 0
    while offset is not None:
        page = client.get(f"{PHOTOS}/items", params={"offset": offset, "limit": 5}).json()
        StoredItems.model_validate(page)
        assert page["count"] == 12
        found += [item["id"] for item in page["items"]]
        offset = page["next_offset"]
    assert found == [*HOSTILE, *(f"id{number}" for number in range(6, 12))]
    # Where they lie is nobody's business.
    assert "path" not in page["items"][0]


def test_images_are_listed_by_a_condition(client: TestClient) -> None:
    page = client.get(f"{PHOTOS}/items", params={"where": "label = 'cat' AND year > 2020"}).json()
    assert [item["id"] for item in page["items"]] == ["id6", "id8", "id10"]
    said = client.get(f"{PHOTOS}/items", params={"where": "label = = 2"})
    assert said.status_code == 400
    assert client.get("/v1/galleries/none/items").json() == {"items": [], "next_offset": None, "count": 0}


@pytest.mark.parametrize("query", ["offset=-1", "limit=0", "limit=100000", "limit=x"])
def test_a_page_that_cannot_be_is_refused(client: TestClient, query: str) -> None:
    said = client.get(f"{PHOTOS}/items?{query}")
    assert said.status_code == 400
    assert query.partition("=")[0] in said.json()["error"]["message"]


def test_an_image_is_told_by_its_id(client: TestClient) -> None:
    item = client.get(f"{PHOTOS}/item", params={"id": "id7"}).json()
    assert item == {"id": "id7", "label": "dog", "metadata": {"year": 2022}}
    assert client.get(f"{PHOTOS}/item", params={"id": "id99"}).status_code == 404
    assert client.get(f"{PHOTOS}/item").status_code == 400


@pytest.mark.parametrize(("size", "wanted"), [(32, (32, 19)), (256, (67, 40))])
def test_a_thumbnail_is_never_larger_than_its_image(
    client: TestClient, size: int, wanted: tuple[int, int]
) -> None:
    said = client.get(f"{PHOTOS}/thumbnail", params={"id": "id7", "size": size})
    assert said.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(said.content)) as picture:
        assert picture.size == wanted
        red, green, blue = picture.convert("RGB").getpixel((5, 5))  # type: ignore[misc]
    assert abs(red - 140) < 6
    assert abs(green - 90) < 6
    assert abs(blue - 160) < 6


def test_a_thumbnail_is_sent_once(client: TestClient, tmp_path: Path) -> None:
    first = client.get(f"{PHOTOS}/thumbnail", params={"id": "id7"})
    known = {"if-none-match": first.headers["etag"]}
    again = client.get(f"{PHOTOS}/thumbnail", params={"id": "id7"}, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{PHOTOS}/thumbnail", params={"id": "id8"}, headers=known).status_code == 200
    Image.new("RGB", (50, 50), "green").save(tmp_path / "a" / "pictures" / "7.jpg")
    changed = client.get(f"{PHOTOS}/thumbnail", params={"id": "id7"}, headers=known)
    assert changed.status_code == 200
    assert changed.content != first.content


def test_a_thumbnail_of_a_file_that_is_gone_is_none(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "a" / "pictures" / "7.jpg").unlink()
    said = client.get(f"{PHOTOS}/thumbnail", params={"id": "id7"})
    assert (said.status_code, said.json()["error"]["code"]) == (404, "not_found")
    assert str(tmp_path) not in said.text
    (tmp_path / "a" / "pictures" / "8.jpg").write_bytes(b"broken")
    assert client.get(f"{PHOTOS}/thumbnail", params={"id": "id8"}).status_code == 404


def test_no_path_of_outside_is_read(client: TestClient, tmp_path: Path) -> None:
    """Ids are looked up: what is no id is nothing, even where it is a picture's file."""
    for name in (str(tmp_path / "a" / "pictures" / "7.jpg"), "/etc/passwd", "file:///etc/passwd", "id7\0"):
        assert client.get(f"{PHOTOS}/thumbnail", params={"id": name}).status_code == 404, name


def test_thumbnails_that_are_kept_are_bounded(tmp_path: Path) -> None:
    made_gallery(tmp_path)
    kept = Thumbnails(Limits(), most=2000)
    for number in range(12):
        found = kept.get(str(tmp_path / "pictures" / f"{number}.jpg"), 64)
        assert found is not None
        assert kept._held == sum(map(len, kept._kept.values())) <= 2000
    assert kept._kept
    assert kept.get("", 64) is None


def test_nothing_is_changed_unless_that_is_allowed(service: FakeService, client: TestClient) -> None:
    added = client.post(f"{PHOTOS}/items", **multipart(jpeg(), id="new"))
    deleted = client.delete(f"{PHOTOS}/items", params={"id": "id7"})
    for said in (added, deleted):
        assert (said.status_code, said.json()["error"]["code"]) == (403, "read_only")
    assert not service.changes


@pytest.fixture
def writer(service: FakeService) -> TestClient:
    return client_of(service, HttpOptions(writable=True))


def test_an_image_is_added(service: FakeService, writer: TestClient) -> None:
    said = writer.post(f"{PHOTOS}/items", **multipart(jpeg(), id="new", label="cat", metadata={"year": 2026}))
    assert (said.status_code, said.json()["changed"]) == (201, 1)
    ((kind, name, (image,), *rest),) = service.changes
    assert (kind, name) == ("add", "photos")
    assert image.size == (32, 32)
    assert rest == [["new"], ["cat"], [{"year": 2026}], False]


def test_several_images_are_added(service: FakeService, writer: TestClient) -> None:
    files: list[tuple[str, Any]] = [("image", (f"{n}.jpg", jpeg(seed=n))) for n in range(2)]
    about = {"items": [{"id": "id7"}, {"id": "new"}], "upsert": True}
    files.append(("request", (None, json.dumps(about).encode(), "application/json")))
    assert writer.post(f"{PHOTOS}/items", files=files).json()["changed"] == 2
    ((_, _, images, *rest),) = service.changes
    assert len(images) == 2
    assert rest == [["id7", "new"], [None, None], [{}, {}], True]


def test_what_cannot_be_added_changes_nothing(service: FakeService, writer: TestClient) -> None:
    wrong = [
        (multipart(jpeg(), id="id7"), 409, "upsert"),
        (multipart(jpeg()[:300], id="new"), 400, "truncated"),
        (multipart(jpeg()), 400, "id"),
        (multipart(id="new"), 400, "1 ids for 0 images"),
        (multipart(jpeg(), id="new", items=[{"id": "other"}]), 400, "either"),
        (multipart(jpeg(), id="new", path="/etc/passwd"), 400, "path"),
    ]
    for request, status, culprit in wrong:
        said = writer.post(f"{PHOTOS}/items", **request)
        assert said.status_code == status
        assert culprit in said.json()["error"]["message"].lower()
    assert not service.changes


def test_images_that_are_added_can_be_kept_as_files(service: FakeService, tmp_path: Path) -> None:
    writer = client_of(service, HttpOptions(writable=True, keep=tmp_path))
    content = jpeg()
    for _ in range(2):
        assert writer.post(f"{PHOTOS}/items", **multipart(content, id="new")).status_code == 201
    (path,) = service.changes[0][2]
    assert path == tmp_path / f"{hashlib.sha256(content).hexdigest()}.jpeg"
    assert path.read_bytes() == content
    assert not list(tmp_path.glob("*.part"))


def test_an_image_is_deleted(service: FakeService, writer: TestClient) -> None:
    assert writer.delete(f"{PHOTOS}/items", params={"id": "id7"}).json()["changed"] == 1
    assert service.changes == [("delete", "photos", ["id7"])]
    assert writer.delete(f"{PHOTOS}/items", params={"id": "id99"}).status_code == 404
    assert writer.delete(f"{PHOTOS}/items").status_code == 400


def test_without_a_plan_there_are_no_points(client: TestClient) -> None:
    assert client.get(f"{PHOTOS}/plan").json() == {"points": [], "chosen": ""}


def planned(service: FakeService, folder: Path) -> Plan:
    """A plan of the gallery, measured with vectors."""
    with open_gallery(folder, write=True) as gallery:
        found = gallery.plan(vectors=unit_vectors(20, DIM, seed=3), target={"recall": 0.5}, dims=(8,), k=2)
    service.gallery("photos").refresh()
    return found.plan


def test_what_was_tried_for_a_plan_is_told(service: FakeService, client: TestClient, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "gallery"
    plan = planned(service, folder)
    found = client.get(f"{PHOTOS}/plan").json()
    PlanReport.model_validate(found)
    (chosen,) = [point for point in found["points"] if point["chosen"]]
    assert chosen["name"] == found["chosen"]
    assert (chosen["ms"], chosen["recall"]) == (plan.measured["ms"], plan.measured["recall"])
    assert len(found["points"]) > 1
    front = [point for point in found["points"] if point["front"]]
    for one in front:
        assert not [
            point for point in found["points"] if point["ms"] < one["ms"] and point["recall"] > one["recall"]
        ]


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b'{"plan": 1}', b'{"plan": {}, "tried": []}', b"[" * 10**5]
)
def test_without_what_was_tried_the_choice_is_told(
    service: FakeService, client: TestClient, tmp_path: Path, content: bytes | None
) -> None:
    folder = tmp_path / "a" / "gallery"
    plan = planned(service, folder)
    (folder / FILE).unlink() if content is None else (folder / FILE).write_bytes(content)
    (point,) = client.get(f"{PHOTOS}/plan").json()["points"]
    assert (point["ms"], point["chosen"], point["front"]) == (plan.measured["ms"], True, True)
