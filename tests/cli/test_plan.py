"""`matmamba plan` as a user runs it: what it saves, says and refuses."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matmamba_retrieval import EmbeddingSpec, Gallery, Plan, Strategy
from matmamba_retrieval.strategies.forecast import Forecast
from matmamba_retrieval.strategies.gate import Gate
from matmamba_vision import save_checkpoint
from matmamba_vision.cli.main import main
from matmamba_vision.galleries.plan_plot import draw_plan
from matmamba_vision.galleries.strategies import plan_text, strategy_text
from matmamba_vision.studies.strategy_rows import first_stage
from matplotlib.figure import Figure
from PIL import Image
from small import SMALL, create, unit_vectors


@pytest.fixture
def indexed(photos: Path, tmp_path: Path) -> Path:
    """A gallery of the photos by an untrained model."""
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    # Of sizes that the kernels in C take: a plan keeps encoders, and an export of each width takes seconds.
    sizes = SMALL | {"num_classes": 2, "head_dim": 16, "d_state": 16}
    model = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **sizes)
    save_checkpoint(tmp_path / "run", model, ("bright", "dark"), {})
    flags = ["--checkpoint", str(tmp_path / "run"), "--images", str(photos), "--gallery", str(tmp_path / "G")]
    assert main(["index", *flags, "--threads", "1", "--dims", "8"]) == 0
    return tmp_path / "G"


def plan(gallery: Path, photos: Path, *flags: str) -> int:
    return main(["plan", "--gallery", str(gallery), "--queries", str(photos), "--threads", "1", *flags])


def test_a_plan_is_measured_saved_and_shown(
    indexed: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plan.png"
    capsys.readouterr()
    assert plan(indexed, photos, "--target", "recall=0.99", "--k", "3", "--plot", str(plot), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    Image.open(plot).verify()
    with Gallery(indexed) as gallery:
        assert gallery.plan == printed["plan"]
        saved = Plan.from_json(gallery.plan)
        saved.require(gallery)
        assert saved.spec == gallery.spec
    assert saved.measured["recall"] >= 0.99
    assert saved.goal == "recall >= 0.99"
    assert saved.measured["ms"] <= max(row["ms"] for row in printed["front"] if row["recall"] >= 0.99)
    assert [row["ms"] for row in printed["front"]] == sorted(row["ms"] for row in printed["front"])
    reference = printed["single_shot"]
    assert (reference["strategy"], reference["ms_over_single_shot"], reference["saves"]) == (
        "single-shot",
        1,
        [],
    )
    for row in printed["front"]:
        assert row["falls_back"] == ""
        assert row["macs_over_single_shot"] == pytest.approx(row["gmacs"] / reference["gmacs"])
        assert row["ms_over_single_shot"] == pytest.approx(row["ms"] / reference["ms"])


def test_labels_of_folders_are_a_target_too(
    indexed: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert plan(indexed, photos, "--target", "knn1=0.1", "--dims", "4", "--k", "900") == 0
    printed = capsys.readouterr().out
    assert "images: fewer than k = 900" in printed
    assert "over single-shot" in printed
    assert "knn1 >= 0.1" in printed
    assert "→" in printed
    with Gallery(indexed) as gallery:
        assert gallery.shortlist_dims() == [4, 8]


def test_indexes_are_tried_in_turn_and_the_chosen_one_stays(
    indexed: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    flags = ("--indexes", "HNSW4", "Flat", "--budget", "memory_mb=1", "--k", "3", "--json")
    assert plan(indexed, photos, *flags) == 0
    settings = json.loads(capsys.readouterr().out)["plan"]["settings"]
    with Gallery(indexed) as gallery:
        assert Plan.from_json(gallery.plan).strategy.to_json() == settings
        assert settings["index"] in ("", *(record.recipe for record in gallery.shortlists()))


def test_queries_that_cannot_be_read_are_said_and_too_many_keep_the_plan_that_was(
    indexed: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(indexed, photos, "--target", "recall=0.5", "--k", "2") == 0
    with Gallery(indexed) as gallery:
        before = gallery.plan
    (photos / "dark" / "torn.jpg").write_bytes(b"no image")
    capsys.readouterr()
    assert plan(indexed, photos, "--target", "recall=0.9", "--k", "2", "--max-broken", "0") == 2
    said = capsys.readouterr().err
    assert "1 of 25 files cannot be read" in said
    assert "torn.jpg" in said
    with Gallery(indexed) as gallery:
        assert gallery.plan == before
    assert plan(indexed, photos, "--target", "recall=0.9", "--k", "2") == 0
    said = capsys.readouterr().out
    assert "1 file left out" in said
    assert "torn.jpg" in said


def test_a_gate_of_a_plan_is_shown_in_words() -> None:
    """In the table of what was tried, and in the line that a search by the plan prints; not its numbers."""
    forecast = Forecast(("gap",), (0.0,), (1.0,), (0.5, 1.0, 0.25))
    gated = Strategy.gated(
        width="1/4", dim=4, length=8, gate=Gate("forecast", 0.123456, forecast), again=True
    )
    assert first_stage(gated.to_json()) == "8 by 4; forecast; asked again"
    words = strategy_text(gated)
    assert "gate forecast below 0.1235" in words
    assert "0.25" not in words


@pytest.mark.parametrize(("rerank", "ranked"), [("", "the full width"), ("1/4", "the query of width 1/4")])
def test_a_plan_says_which_query_ranks_the_shortlist(rerank: str, ranked: str) -> None:
    strategy = Strategy.shortlist(width="1/4", dim=4, length=8, rerank_width=rerank)
    kept = Plan(strategy=strategy, spec=EmbeddingSpec("0" * 64, "full", 8), k=3, goal="recall >= 0.9")
    assert plan_text(Plan.from_json(kept.to_json())).endswith(f"and ranks these by {ranked}")
    assert ("rerank width 1/4" in strategy_text(strategy)) == bool(rerank)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A gallery of labelled vectors made elsewhere, and 60 queries in a Parquet file of three groups."""
    rng, places = np.random.default_rng(0), unit_vectors(4, 16)

    def save(name: str, count: int) -> None:
        labels = rng.integers(4, size=count)
        vectors = places[labels] + 0.3 * unit_vectors(count, 16, seed=count)
        columns = {
            "id": [f"{name} {n}" for n in range(count)],
            "label": [f"class {label}" for label in labels],
        }
        table = pa.table(columns | {"vector": list(vectors.astype(np.float32))})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=25)

    save("base", 300)
    save("queries", 60)
    flags = ["--vectors", str(tmp_path / "base.parquet"), "--model-name", "clip", "--normalise"]
    assert main(["index", *flags, "--gallery", str(tmp_path / "V"), "--dims", "8"]) == 0
    return tmp_path


def test_a_gallery_of_vectors_made_elsewhere_is_planned_with_vectors(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the front costs no encoding; labels of the file are a target; search goes by the plan."""
    queries = ["--vectors", str(elsewhere / "queries.parquet"), "--model-name", "clip", "--normalise"]
    gallery = ["--gallery", str(elsewhere / "V")]
    goal = ["--target", "knn1=0.9", "--most", "50", "--json"]
    capsys.readouterr()
    assert main(["plan", *gallery, *queries, *goal]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert all(row["encoder_macs"] == row["one_encode_ms"] == 0 for row in printed["front"])
    assert {row["query_width"] for row in printed["front"]} == {"full"}
    assert printed["plan"]["measured"]["knn1"] >= 0.9
    assert main(["search", *gallery, *queries, "--k", "1", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    asked = pq.read_table(elsewhere / "queries.parquet")["label"].to_pylist()
    right = [answer["hits"][0]["label"] == label for answer, label in zip(answers, asked, strict=True)]
    assert np.mean(right) >= 0.8
    assert main(["search", *gallery, *queries, "--k", "1"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"this follows the plan of `matmamba plan` for .*0\.9: it encodes .* by width full", said
    )
    assert main(["search", *gallery, *queries, "--k", "1", "--strategy", "single-shot"]) == 0
    assert "the plan of" not in capsys.readouterr().out


@pytest.fixture
def drawn(really_drawn: None, monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The pictures that are written."""
    found: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *to: Any, **how: Any) -> None:
        found.append(figure)
        save(figure, *to, **how)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def is_readable(figure: Figure) -> bool:
    """Whether no label of a cost covers another."""
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        boxes = [label.get_window_extent() for place, label in ticks if low <= place <= high]
        if any(left.x1 >= right.x0 for left, right in pairwise(boxes)):
            return False
    return True


def test_costs_of_vectors_alone_can_be_read(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], drawn: list[Figure]
) -> None:
    """In the picture, and no multiply-adds of the table are rounded to nothing."""
    queries = ["--vectors", str(elsewhere / "queries.parquet"), "--model-name", "clip", "--normalise"]
    flags = ["--target", "recall=0.5", "--plot", str(elsewhere / "plan.png"), "--k", "3"]
    capsys.readouterr()
    assert main(["plan", "--gallery", str(elsewhere / "V"), *queries, *flags]) == 0
    assert not re.search(r"\s0\.0\s", capsys.readouterr().out)
    assert is_readable(drawn[0])


@pytest.mark.parametrize(
    ("costs", "single_shot"),
    [((1, 4), cost) for cost in (1.0, 3.0, 30.0, 900.0, 20_000.0)] + [((0.021, 0.039), 0.0345)],
)
def test_costs_can_be_read_whatever_single_shot_costs(
    costs: tuple[float, float], single_shot: float, drawn: list[Figure]
) -> None:
    tried = [
        {
            "strategy": "shortlist",
            "query_width": "full",
            "falls_back": False,
            "ms": ms,
            "gmacs": ms,
            "1-NN": 0.5,
        }
        for ms in costs
    ]
    draw_plan(tried, tried[0], tried[0] | {"ms": single_shot, "gmacs": single_shot}, "1-NN", "1-NN of 0.5")
    assert is_readable(drawn[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "recall=0.9"], "either --queries, images, or --vectors"),
        (
            ["--queries", "photos", "--vectors", "queries.parquet", "--target", "recall=0.9"],
            "either --queries",
        ),
        (["--queries", "photos", "--target", "recall=0.9"], "made elsewhere: no model is known"),
        (["--vectors", "queries.parquet", "--target", "recall=0.9"], "say which model made"),
        (
            [
                "--vectors",
                "queries.parquet",
                "--model-name",
                "clip",
                "--widths",
                "1/8",
                "--target",
                "recall=1",
            ],
            "widths: vectors have only the full one",
        ),
        (
            ["--vectors", "queries.parquet", "--model-name", "clip", "--target", "recall=1"],
            "normalise brings",
        ),
    ],
)
def test_vectors_that_cannot_plan_are_named(
    elsewhere: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(elsewhere)
    assert main(["plan", "--gallery", "V", *flags]) == 2
    assert message in capsys.readouterr().err
    with Gallery(elsewhere / "V") as gallery:
        assert gallery.plan is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "a plan needs a target"),
        (["--target", "speed=3"], "unknown target 'speed'"),
        (["--budget", "ms=0.000001"], "nothing that was tried reaches ms <= 1e-06"),
        (["--target", "recall=0.9", "--k", "0"], "k is 0"),
        (["--target", "recall=0.9", "--plot", "/no/such/folder/plan.png"], "no folder"),
        (["--target", "recall=0.9", "--widths", "1/3"], "1/3"),
    ],
)
def test_what_cannot_be_planned_is_named_and_nothing_saved(
    indexed: Path, photos: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(indexed, photos, *flags) == 2
    assert message in capsys.readouterr().err
    with Gallery(indexed) as gallery:
        assert gallery.plan is None
