"""Galleries asked by texts, where their encoder has a text tower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from encoders_made import INPUT, MeanColour, colour_texts, coloured
from matmamba_vision.cli.main import main
from torch.nn import functional as F


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("photos"))


def towers(texts: Any = colour_texts) -> mv.Encoder:
    return mv.encoder_from(
        MeanColour(), "two towers", size=48, mean=INPUT["mean"], std=INPUT["std"], texts=texts
    )


@pytest.fixture(scope="module")
def gallery(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("galleries") / "g"
    mv.index(photos, folder, model=towers())
    return folder


def labels(answer: mv.Answer) -> list[str | None]:
    return [hit.label for hit in answer.hits]


def test_a_text_finds_what_it_names(gallery: Path) -> None:
    with mv.open_gallery(gallery, model=towers()) as opened:
        answer = opened.search(text="a red bicycle", k=6)
        assert labels(answer) == ["red"] * 6
        assert (answer.query, answer.text, answer.source) == ("a red bicycle", "a red bicycle", "")
        assert answer.encoded_by == {"full": "pytorch"}
        assert answer.cost.ms["encode"] > 0
        wanted = F.normalize(colour_texts(["red"]))[0].numpy()
        with opened.reading() as below:
            keys = below.keys_of([hit.id for hit in answer])
            stored = below.vectors(np.array([*keys.values()])).astype(np.float32)
        assert [hit.score for hit in answer] == pytest.approx((stored @ wanted).tolist(), abs=2e-3)


def test_several_texts_are_queries_of_their_own(gallery: Path) -> None:
    with mv.open_gallery(gallery, model=towers()) as opened:
        answers = opened.search(text=["blue sky", "green grass"], k=3)
        assert [set(labels(answer)) for answer in answers] == [{"blue"}, {"green"}]
        assert [answer.query for answer in answers] == ["blue sky", "green grass"]
        (alone,) = opened.search(text=["blue sky"], k=3)
        assert alone.hits == answers[0].hits


def test_a_text_is_joined_with_every_query(gallery: Path, photos: Path) -> None:
    red = photos / "red" / "0.png"
    with mv.open_gallery(gallery, model=towers()) as opened:
        vector = opened.require_model().embed_texts(["blue"])[0]
        with opened.reading() as below:
            key = below.keys_of(["red/0.png"])["red/0.png"]
            stored = below.vectors(np.array([key])).astype(np.float32)[0]
        mean = (stored + vector) / np.linalg.norm(stored + vector)
        wanted = opened.search(mean, k=18)
        answer = opened.search(red, text="blue", k=18)
        assert [hit.id for hit in answer] == [hit.id for hit in wanted]
        assert [hit.score for hit in answer] == pytest.approx([hit.score for hit in wanted], abs=2e-3)
        assert (answer.query, answer.text) == (str(red), "blue")
        assert opened.search(red, k=18)[0].score > answer[0].score
        listed = opened.search([red, "red/0.png", stored], text="blue", like="red/1.png", k=5)
        assert [answer.text for answer in listed] == ["blue"] * 4
        assert [hit.id for hit in listed[0]] == [hit.id for hit in listed[2]]
        assert "red/1.png" not in [hit.id for hit in listed[3]]


def test_negatives_conditions_and_strategies_hold_for_texts(gallery: Path, photos: Path) -> None:
    red, blue = str(photos / "red" / "0.png"), photos / "blue" / "0.png"
    with mv.open_gallery(gallery, model=towers()) as opened:
        assert labels(opened.search(text="red", where="label != 'red'", k=4)).count("red") == 0
        near = opened.search(text="red", k=18, min_score=0.9)
        assert 0 < len(near) < 18
        assert "have a score of 0.9 or more" in near.reason
        away = opened.search(text="red", unlike=[red, "red/0.png"], unlike_weight=0.9, k=18)
        assert "red/0.png" not in [hit.id for hit in away]
        assert away[0].score < opened.search(text="red", k=1)[0].score
        listed = opened.search(text="blue", strategy="shortlist", dim=3, shortlist=12, k=3)
        assert labels(listed) == ["blue"] * 3
        joined = opened.search(blue, text="blue", unlike="red/0.png", strategy="single-shot", k=6)
        assert labels(joined) == ["blue"] * 6


def test_what_cannot_be_asked_is_one_line(gallery: Path, photos: Path, tmp_path: Path) -> None:
    with mv.open_gallery(gallery, model=towers()) as opened:
        with pytest.raises(mv.ConfigError, match="text is empty"):
            opened.search(text=" ")
        with pytest.raises(mv.ConfigError, match="2 texts stand beside other queries"):
            opened.search(photos / "red" / "0.png", text=["red", "blue"])  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="text"):
            opened.search(text=3)  # type: ignore[call-overload]
        opposite = -opened.require_model().embed_texts(["red"])[0]
        with pytest.raises(mv.MatMambaError, match="opposite of what it is joined with"):
            opened.search(opposite, text="red")


@pytest.mark.parametrize(
    ("texts", "error", "said"),
    [
        (None, mv.EncoderError, "two towers has no text tower"),
        (lambda texts: torch.zeros(len(texts), 4), mv.EncoderError, r"\(1, 4\) for 1 texts, not 3"),
        (lambda texts: torch.full((len(texts), 3), torch.nan), mv.NotFiniteError, "the text tower of two"),
    ],
)
def test_a_text_tower_that_gives_no_vectors_is_one_line(
    gallery: Path, texts: Any, error: type[Exception], said: str
) -> None:
    with mv.open_gallery(gallery, model=towers(texts)) as opened, pytest.raises(error, match=said):
        opened.search(text="red")


def test_a_gallery_says_whether_it_can_be_asked_by_texts(
    gallery: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mv.open_gallery(gallery) as opened:
        assert opened.info()["takes_text"] is None
    with mv.open_gallery(gallery, model=towers()) as opened:
        assert opened.info()["takes_text"] is True
    with mv.open_gallery(gallery, model=towers(None)) as opened:
        assert opened.info()["takes_text"] is False
    nested = tmp_path / "nested"
    mv.index(photos, nested, model="matmamba_nano_patch4_32")
    with mv.open_gallery(nested) as opened:
        assert opened.info()["takes_text"] is False
    assert main(["gallery", "info", str(nested)]) == 0
    assert "takes text      no" in capsys.readouterr().out
    assert main(["search", "--gallery", str(nested), "--text", "red"]) == 2
    said = capsys.readouterr().err
    assert "has no text tower" in said
    assert said.count("\n") == 1


def test_the_command_asks_by_text_and_its_page_shows_it(
    gallery: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    opened = mv.open_gallery(gallery, model=towers())
    monkeypatch.setattr("matmamba_vision.cli.search_command.open_gallery", lambda *_, **__: opened)
    page, red = tmp_path / "hits.html", str(photos / "red" / "0.png")
    command = ["search", "--gallery", str(gallery), "--k", "3"]
    assert main([*command, "--text", "a <green> field", "--json", "--html", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["encoded_by"] == {"full": "pytorch"}
    (answer,) = found["answers"]
    assert (answer["query"], answer["text"]) == ("a <green> field", "a <green> field")
    assert {hit["label"] for hit in answer["hits"]} == {"green"}
    written = page.read_text()
    assert "<q class=words>a &lt;green&gt; field</q>" in written
    assert "not found" not in written
    opened = mv.open_gallery(gallery, model=towers())
    assert main([*command, red, "--text", "in snow", "--html", str(page)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{red} + 'in snow'" in said
    lead = page.read_text().split("<div class=lead>")[1].split("</div></section>")[0]
    assert "<img" in lead.split("<ol")[0]
    assert "in snow" in lead.split("<ol")[0]


def test_a_query_that_cannot_be_read_says_its_text_too(gallery: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with mv.open_gallery(gallery, model=towers()) as opened:
        broken, whole = opened.search([tmp_path / "broken.png", photos / "red" / "1.png"], text="red", k=2)
        assert broken.error
        assert broken.to_dict()["text"] == whole.to_dict()["text"] == "red"
        assert labels(whole) == ["red", "red"]
