"""The service over HTTP answers as the library does: to many clients, while images are added, when empty."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import matmamba_vision as mv
import numpy as np
import pytest
from matmamba_vision.serving.http.options import HttpOptions
from matmamba_vision.serving.http.schemas import (
    ANSWER,
    AliveReport,
    AnswerReport,
    AnswerReports,
    ErrorReport,
    GalleryReport,
    GalleryReports,
    PlanReport,
    ReadyReport,
    StatusReport,
    StoredItem,
    StoredItems,
)
from matmamba_vision.serving.http.server import ServedHttp
from matmamba_vision.serving.service import Service
from matmamba_vision.serving.settings import Settings
from PIL import Image
from pydantic import BaseModel
from served_http import listening

WIDTHS = ("full", "1/2", "1/4", "1/8")
# Of scores: a batch is computed together where the library asks one by one.
SCORE_TOLERANCE = 1e-5
CLIENTS = 50
MODEL = "matmamba_nano_patch4_32"


def save_pictures(folder: Path, names: list[str], seed: int) -> list[Path]:
    """Pictures of coarse noise, which differ."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, files = np.random.default_rng(seed), [folder / name for name in names]
    for file in files:
        pixels = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 40), Image.Resampling.NEAREST).save(file)
    return files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of pictures, and others to ask with."""
    root = tmp_path_factory.mktemp("library")
    save_pictures(root / "photos", [f"{n}.png" for n in range(40)], 0)
    save_pictures(root / "queries", [f"{n}.png" for n in range(10)], 1)
    mv.index(root / "photos", root / "gallery", model=MODEL)
    return root


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[ServedHttp]:
    settings = Settings(slo_ms=60_000, quality_share=0, poll_s=0, measure_s=0.3, writable=True)
    service = Service({"photos": folder / "gallery"}, settings)
    with listening(service, HttpOptions(slo_ms=60_000, writable=True)) as found:
        yield found


def test_many_clients_are_answered_as_the_library_answers(folder: Path, served: ServedHttp) -> None:
    """At widths that they name, mixed, so that batches of all of them are under way."""
    files = sorted((folder / "queries").iterdir())
    asked = [(files[n % len(files)], WIDTHS[n % len(WIDTHS)]) for n in range(4 * CLIENTS)]
    with mv.open_gallery(folder / "gallery") as gallery:
        wanted = {
            pair: gallery.search(pair[0], 5, strategy="single-shot", query_width=pair[1])
            for pair in dict.fromkeys(asked)
        }

    def ask(pair: tuple[Path, str]) -> dict[str, Any]:
        request = json.dumps({"k": 5, "width": pair[1], "strategy": "single-shot"})
        parts: dict[str, Any] = {"image": pair[0].read_bytes(), "request": (None, request)}
        # A client for each, as they are strangers to each other; reading certificates would take longer.
        said = httpx.post(f"{served.url}v1/galleries/photos/search", files=parts, timeout=60, verify=False)
        assert said.status_code == 200, said.text
        found: dict[str, Any] = said.json()
        return found

    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = list(threads.map(ask, asked))
    for pair, answer in zip(asked, answers, strict=True):
        hits = wanted[pair].hits
        assert answer["width"] == pair[1]
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in hits]
        scores = [hit["score"] for hit in answer["hits"]]
        assert scores == pytest.approx([hit.score for hit in hits], abs=SCORE_TOLERANCE)


def test_what_is_answered_is_as_documented(served: ServedHttp) -> None:
    """No key more or less, at any depth."""
    with httpx.Client(base_url=served.url, timeout=60) as client:
        one = {"id": client.get("v1/galleries/photos/items").json()["items"][0]["id"]}
        at = "v1/galleries/photos"
        told: list[tuple[type[BaseModel], httpx.Response]] = [
            (AnswerReport, client.post(f"{at}/search", json=one)),
            (AnswerReports, client.post(f"{at}/search/batch", json={"queries": [one, {"id": "none"}]})),
            (ErrorReport, client.post(f"{at}/search", json={"id": "none"})),
            (GalleryReports, client.get("v1/galleries")),
            (GalleryReport, client.get(at)),
            (PlanReport, client.get(f"{at}/plan")),
            (StoredItems, client.get(f"{at}/items")),
            (StoredItem, client.get(f"{at}/item", params=one)),
            (StatusReport, client.get("v1/status")),
            (AliveReport, client.get("healthz")),
            (ReadyReport, client.get("readyz")),
        ]
    for model, response in told:
        said = response.json()
        assert model.model_validate(said, strict=True).model_dump() == said
    assert AnswerReport.model_validate(ANSWER, strict=True).model_dump() == ANSWER


def test_images_are_added_and_deleted_while_it_answers(folder: Path, served: ServedHttp) -> None:
    (file,) = save_pictures(folder / "new", ["new.png"], 2)
    failed, ended = list[int](), threading.Event()
    with httpx.Client(base_url=f"{served.url}v1/galleries/photos/", timeout=60) as client:

        def ask() -> None:
            while not ended.is_set():
                status = client.post("search", json={"id": "0.png"}).status_code
                failed.extend([status] if status != 200 else [])

        thread = threading.Thread(target=ask)
        thread.start()
        about = json.dumps({"id": "<b>new</b>", "label": "x", "metadata": {"year": 2026}})
        parts: dict[str, Any] = {"image": file.read_bytes(), "request": (None, about)}
        added = client.post("items", files=parts)
        assert added.status_code == 201, added.text
        again = client.post("items", files=parts)
        found = client.post("search", files={"image": file.read_bytes()}).json()
        deleted = client.delete("items", params={"id": "<b>new</b>"})
        gone = client.post("search", files={"image": file.read_bytes()}).json()
        ended.set()
        thread.join()
    assert again.status_code == 409
    assert found["version"] == added.json()["version"]
    first = found["hits"][0]
    assert (first["id"], first["label"], first["metadata"]) == ("<b>new</b>", "x", {"year": 2026})
    assert deleted.json()["version"] != added.json()["version"]
    assert "<b>new</b>" not in [hit["id"] for hit in gone["hits"]]
    assert not failed


def test_it_starts_while_images_are_indexed_and_sees_them(folder: Path, tmp_path: Path) -> None:
    files = save_pictures(tmp_path / "more", [f"{n}.png" for n in range(60)], 3)
    mv.index(files[:1], tmp_path / "gallery", model=MODEL)
    ended = threading.Event()

    def add() -> None:
        for start in range(1, 60, 10):
            mv.index(files[start : start + 10], tmp_path / "gallery", model=MODEL)
        ended.set()

    thread = threading.Thread(target=add)
    thread.start()
    service = Service({"more": tmp_path / "gallery"}, Settings(poll_s=0.05, measure_s=0.3, quality_share=0))
    with listening(service) as served, httpx.Client(base_url=served.url, timeout=60) as client:
        counts = list[int]()
        while not (ended.is_set() and counts and counts[-1] == 60):
            about = client.get("v1/galleries/more").json()
            counts.append(about["images"])
            assert client.post("v1/galleries/more/search", json={"id": str(files[0])}).status_code == 200
            assert len(counts) < 10_000
    thread.join()
    assert counts == sorted(counts)


def test_an_empty_gallery_says_so(folder: Path, tmp_path: Path) -> None:
    files = save_pictures(tmp_path / "one", ["one.png"], 4)
    mv.index(files, tmp_path / "gallery", model=MODEL)
    with mv.open_gallery(tmp_path / "gallery", write=True) as gallery:
        gallery.delete(str(files[0]))
    galleries = {"empty": tmp_path / "gallery", "photos": folder / "gallery"}
    service = Service(galleries, Settings(measure_s=0.3, quality_share=0))
    with listening(service) as served, httpx.Client(base_url=served.url, timeout=60) as client:
        assert client.get("readyz").status_code == 200
        parts = {"image": files[0].read_bytes()}
        answer = client.post("v1/galleries/empty/search", files=parts)
        assert answer.status_code == 200, answer.text
        assert answer.json()["hits"] == []
        assert "no images" in answer.json()["reason"]
        other = client.post("v1/galleries/photos/search", files=parts)
        assert len(other.json()["hits"]) == 10
        assert client.get("v1/galleries/empty/items").json()["count"] == 0
