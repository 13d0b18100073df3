"""Galleries that were pushed, through the door and the commands: asked like those in folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matmamba_common.errors import MatMambaError
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_retrieval.backends import pushed_gallery
from matmamba_retrieval.backends.server import ServerStore
from matmamba_vision import Checkpoint, load_checkpoint, save_checkpoint
from matmamba_vision.api import ImageGallery, index, open_gallery
from matmamba_vision.cli.main import main
from matmamba_vision.galleries.answers import Answer
from matmamba_vision.serving.served_gallery import ServedGallery
from matmamba_vision.serving.settings import Settings
from matmamba_vision.serving.trial import Crew
from matmamba_vision.upkeep import push as pushes
from PIL import Image
from small import create, unit_vectors

COUNT, DIM = 30, 16
SCORE_TOLERANCE = 1e-6
PLACE = "qdrant://here:1/photos"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of vectors made elsewhere, with an index over 4 dims."""
    with Gallery.create(tmp_path / "G", EmbeddingSpec("vectors:toy", "full", DIM)) as gallery:
        rows = [Row(f"id{n}", f"/p/{n}", "ab"[n % 2], {"year": 2000 + n}) for n in range(COUNT)]
        gallery.add(rows, unit_vectors(COUNT, DIM))
        gallery.build_shortlist(4, "flat")
    return tmp_path / "G"


@pytest.fixture
def place(folder: Path) -> str:
    """Where it was pushed to."""
    address = f"edge:{folder.parent / 'P'}"
    with open_gallery(folder) as gallery:
        gallery.push(address)
    return address


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Qdrant's local mode in the place of every server."""
    from qdrant_client import QdrantClient

    local = QdrantClient(":memory:")
    close = local.close
    monkeypatch.setattr(local, "close", lambda: None)
    for module in (pushed_gallery, pushes):
        monkeypatch.setattr(module, "open_store", lambda address, **_: ServerStore(local, "photos", address))
    yield local
    close()


def told(answer: Answer) -> list[tuple[str, str, str | None, dict[str, Any]]]:
    return [(hit.id, hit.path, hit.label, dict(hit.metadata)) for hit in answer]


def require_same(found: list[Answer], wanted: list[Answer]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert told(one) == told(other)
        scores = [[hit.score for hit in answer] for answer in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=SCORE_TOLERANCE)
        assert (one.query, one.reason, one.by_full_width) == (other.query, other.reason, other.by_full_width)


def test_images_ids_and_vectors_find_the_same(folder: Path, place: str) -> None:
    xq = unit_vectors(3, DIM, seed=1)
    asked: list[dict[str, Any]] = [
        {"vectors": xq, "k": 4},
        {"vectors": xq, "k": 100},
        {"vectors": xq, "strategy": "shortlist", "dim": 4, "shortlist": 20},
        {"vectors": xq, "strategy": "funnel", "dim": 4, "shortlist": 20, "k": 2},
        {"vectors": xq, "where": "label = 'a' AND year > 2010", "min_score": 0.1},
        {"vectors": xq, "where": "label = 'never'"},
        {"like": ["id3", "id4"], "unlike": ["id5"], "where": "year BETWEEN 2002 AND 2020"},
        {"like": ["id3"], "k": COUNT},
    ]
    with open_gallery(folder) as here, open_gallery(place) as there:
        assert len(there) == len(here)
        for one in asked:
            require_same(there.search(**one), here.search(**one))
        assert there.rows(where="year < 2003") == here.rows(where="year < 2003")
        with pytest.raises(MatMambaError, match=r"edge:.*/P has no image of id 'never'"):
            there.search(like="never")


def test_its_model_encodes_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        file = tmp_path / "photos" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(file)
    models = [tmp_path / name for name in ("model", "other")]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        overlay = {"input_size": (3, 16, 16)}
        made = create("matmamba_nano_patch4_32", img_size=16, num_classes=2, pretrained_cfg_overlay=overlay)
        save_checkpoint(model, made.eval(), ("a", "b"))
    loaded: Checkpoint = load_checkpoint(models[0])
    index(tmp_path / "photos", tmp_path / "g", model=loaded, dims=[16], threads=1)
    address, photo = f"edge:{tmp_path / 'P'}", tmp_path / "photos" / "3.png"
    with open_gallery(tmp_path / "g", model=loaded) as here:
        here.push(address)
        wanted = [here.search(photo, k=3, strategy=one) for one in ("single-shot", "shortlist")]
    # From where the checkpoint was, and by one that is named.
    for named in (None, loaded):
        with open_gallery(address, model=named) as there:
            require_same(
                [there.search(photo, k=3, strategy=one) for one in ("single-shot", "shortlist")], wanted
            )
    with pytest.raises(MatMambaError, match=rf"{address}, made with .* was made by another checkpoint"):
        open_gallery(address, model=models[1])


def test_a_plan_is_made_and_kept_there(folder: Path, place: str) -> None:
    xq = unit_vectors(20, DIM, seed=2)
    with open_gallery(place, write=True) as there:
        found = there.plan(vectors=xq, target={"recall": 0.9}, k=3)
        assert found.chosen["recall"] >= 0.9
        assert {row["strategy"] for row in found.tried} >= {"single-shot", "shortlist"}
        answer = there.search(vectors=xq, k=3)[0]
        assert answer.plan == found.plan
    with open_gallery(place) as again:
        assert again.search(vectors=xq, k=3)[0].plan == found.plan


@pytest.mark.parametrize(
    "call",
    [
        lambda gallery: gallery.compact(),
        lambda gallery: gallery.repair(),
        lambda gallery: gallery.verify(),
        lambda gallery: gallery.freeze(),
        lambda gallery: gallery.delete("id1"),
        lambda gallery: gallery.add([]),
        lambda gallery: gallery.duplicates(),
        lambda gallery: gallery.suggest_labels(),
        lambda gallery: gallery.export("x.parquet"),
        lambda gallery: gallery.push("edge:Q"),
    ],
)
def test_what_only_a_folder_can_is_refused_in_one_line(place: str, call: Any) -> None:
    with open_gallery(place, write=True) as there, pytest.raises(MatMambaError) as raised:
        call(there)
    assert str(raised.value) == (
        f"{place} is a place for pushed galleries, which can be searched: do this with the gallery in its"
        " folder, and push it again"
    )


def test_the_commands_take_it_for_a_folder(
    folder: Path, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["search", "--gallery", place, "--like", "id3", "--k", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["search", "--gallery", str(folder), "--like", "id3", "--k", "2", "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)
    hits = [[hit["id"] for hit in each["answers"][0]["hits"]] for each in (found, wanted)]
    assert hits[0] == hits[1]
    assert main(["gallery", "list", place, "--where", "year < 2003", "--format", "ids"]) == 0
    assert capsys.readouterr().out.split() == ["id0", "id1", "id2"]
    assert main(["gallery", "info", place, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["folder"], about["images"], about["pushed_from"]) == (place, COUNT, str(folder))
    assert [each["name"] for each in about["vectors"]] == ["full", "dim4"]
    elsewhere = "qdrant://127.0.0.1:9/photos"
    of_folders = (["compact"], ["verify"], ["repair"], ["delete", "--ids", "id1", "--yes"])
    for name, *flags in of_folders:
        for where in (place, elsewhere):
            assert main(["gallery", name, where, *flags]) == 2
            said = capsys.readouterr().err
            assert said.startswith(f"matmamba: error: {where} is a place for pushed galleries"), said
            assert said.count("\n") == 1
    monkeypatch.chdir(folder.parent)
    assert main(["gallery", "info", "edge:nowhere"]) == 2
    assert capsys.readouterr().err == "matmamba: error: edge:nowhere holds no gallery: push one there\n"
    assert main(["search", "--gallery", "qdrant://127.0.0.1:9/photos", "--like", "id3"]) == 2
    said = capsys.readouterr().err
    assert "qdrant://127.0.0.1:9/photos: the server cannot be reached" in said
    assert said.count("\n") == 1


def test_a_server_that_goes_away_is_one_line(
    folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gallery(folder) as gallery:
        gallery.push(PLACE)
    # As a path it has lost a slash.
    with open_gallery(Path(PLACE)) as there:
        assert len(there.search(like="id3", k=2)[0].hits) == 2
        with monkeypatch.context() as patched:
            from qdrant_client.http.exceptions import ResponseHandlingException

            def down(*_: Any, **__: Any) -> None:
                raise ResponseHandlingException(ConnectionRefusedError("[Errno 111] Connection refused"))

            patched.setattr(client, "query_batch_points", down)
            with pytest.raises(MatMambaError) as raised:
                there.search(like="id3")
            assert str(raised.value).startswith(f"{PLACE}: the server cannot be reached, or went away")
            assert "\n" not in str(raised.value)
        for each in client.get_collections().collections:
            client.delete_collection(each.name)
        with pytest.raises(MatMambaError) as raised:
            there.search(vectors=unit_vectors(1, DIM))
        assert str(raised.value).startswith(PLACE)
        assert "\n" not in str(raised.value)
        with pytest.raises(MatMambaError, match="holds no gallery"):
            there.refresh()


def test_what_is_pushed_later_is_seen_by_those_who_poll(folder: Path, client: Any) -> None:
    with open_gallery(folder) as gallery:
        gallery.push(PLACE)
    crew = Crew(workers=1, threads=1)
    served = ServedGallery("photos", Path(PLACE), Settings(), None, "cpu")
    try:
        assert served.measure([crew], 0.05) is not None
        assert not served.refresh(crew)
        with Gallery(folder, write=True) as writer:
            writer.delete(["id0"])
        with open_gallery(folder) as gallery:
            gallery.push(PLACE)
        assert served.refresh(crew), served.notice
        assert len(served.present) == COUNT - 1
        client.delete_collection(client.get_collections().collections[0].name)
        assert not served.refresh(crew)
        assert "holds no gallery" in served.notice
    finally:
        served.close()


def test_galleries_are_pushed_galleries(place: str) -> None:
    with open_gallery(place) as there:
        assert isinstance(there, ImageGallery)
        assert there.folder == place
