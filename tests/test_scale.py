"""The model of scale: its laws, its command line, and that its runs measure what they say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import capacity
import pytest
import scale
import scale_runs
from capacity import Encoder, Indexing, Machines, Searching, Wanted, indexing_plan, line, search_plan, shared
from matmamba_retrieval.index.recipes import RECIPES

INDEXING = Indexing(
    start_seconds=2.0,
    alone_seconds=0.008,
    core_seconds=0.010,
    merge_start_seconds=0.5,
    merge_seconds=1e-5,
    second_core=0.9,
)
SEARCHING = Searching(
    call_ms=0.3,
    compared_ms=1e-6,
    exact_ms=3e-7,
    exact_far_ms=1e-7,
    cache_bytes=2.0**20,
    exact_call_ms=0.2,
    candidates=200,
    candidate_ms=1e-4,
    add_seconds=4e-5,
    build_row_seconds=3e-5,
    build_seconds=1e-10,
    start_seconds=0.2,
    first_answer_seconds=1.5,
    first_answer_row_seconds=1e-7,
    catalogue_bytes=90.0,
    base_bytes=3e8,
)
ENCODER = Encoder(core_ms=8.0, gpu_per_second=8000.0, decoded_ms=2.0)
MACHINES = Machines(number=4, cores=32, gpus=0, memory=64e9, read_bytes=1e9, random_reads=2e5)
WANTED = Wanted(
    images=1e8,
    image_bytes=1e5,
    dim=256,
    prefix=64,
    recipe="ivfpq",
    effort=16,
    candidates=200,
    queries=100.0,
    query_ms=4.0,
)
SIZES = (1e4, 1e5, 1e6, 1e7, 1e8, 1e9)


def test_jobs_share_what_there_is() -> None:
    """Alone a job has all that it wants; many have what there is; the longest ends alone."""
    assert shared([10.0], 2.0, 8.0) == 5.0
    assert shared([10.0] * 4, 2.0, 8.0) == 5.0
    assert shared([10.0] * 8, 2.0, 8.0) == 10.0
    assert shared([2.0, 10.0], 1.0, 1.0) == 4.0 + 8.0
    assert shared([], 1.0, 1.0) == 0.0


def test_more_workers_are_faster_until_the_cores_are_used_up() -> None:
    seconds = [INDEXING.seconds(100_000, workers, 2) for workers in (1, 2, 4, 8)]
    assert seconds[0] > seconds[1]
    # Alone a worker takes 1.25 cores: two of them take all that two cores give.
    steady = [INDEXING.seconds(100_000, workers, 2) - workers * 2 / 1.9 for workers in (2, 4, 8)]
    assert steady == pytest.approx([steady[0]] * 3, rel=1e-3)
    assert steady[0] == pytest.approx(100_000 * 0.010 / 1.9, rel=1e-3)


def test_indexing_is_monotone_and_additive() -> None:
    for workers in (1, 3, 4):
        found = [INDEXING.seconds(images, workers, 2) for images in (0, 1000, 2000, 5000)]
        assert found == sorted(found)
        start = found[0]
        assert found[3] - start == pytest.approx((found[1] - start) + 2 * (found[2] - start), rel=0.01)
    assert INDEXING.seconds(5000, 4, 4) < INDEXING.seconds(5000, 4, 2) < INDEXING.seconds(5000, 4, 1)
    assert INDEXING.merged(3000) - INDEXING.merged(2000) == pytest.approx(1000 * INDEXING.merge_seconds)


def test_a_core_adds_what_was_measured() -> None:
    assert INDEXING.speed(1) == 1
    assert INDEXING.speed(2) == pytest.approx(1.9)
    assert replace(INDEXING, second_core=1.0).speed(7) == 7


def test_a_larger_gallery_takes_no_less() -> None:
    measures: tuple[Callable[[float], float], ...] = (
        lambda rows: SEARCHING.exact(rows, 256),
        lambda rows: SEARCHING.shortlist(rows, 64, 16),
        lambda rows: SEARCHING.adding(rows, 64),
        SEARCHING.first_answer,
        lambda rows: SEARCHING.memory(rows, 64, "ivfpq"),
        lambda rows: SEARCHING.disk(rows, 256, 64, "ivfpq"),
    )
    for measure in measures:
        found = [measure(rows) for rows in SIZES]
        assert found == sorted(found)
        assert found[0] > 0


def test_what_a_row_takes_is_told_from_what_its_comparisons_take() -> None:
    """By the sizes of the runs, whose numbers of cells do not grow alike."""
    sizes = [float(size) for size in scale_runs.FITTED_ROWS]
    known = replace(SEARCHING, build_row_seconds=3e-5, build_seconds=2e-10)
    seconds = [1.5 + known.building(size, 64) for size in sizes]
    works = [[1.0] * 4, sizes, [capacity.building_work(size, 64) for size in sizes]]
    assert scale_runs.parts(works, seconds) == pytest.approx([1.5, 3e-5, 2e-10], rel=1e-6)
    # What no run did takes nothing.
    none = [*works, [0.0] * 4]
    assert scale_runs.parts(none, seconds) == pytest.approx([1.5, 3e-5, 2e-10, 0.0], rel=1e-6)
    # Noise makes nothing take less than no time.
    assert min(scale_runs.parts(works, [5.0, 5.0, 5.0, 4.0])) >= 0


def test_search_alone_leaves_the_rest_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, new = scale.read("scale"), {"what": "memory", "case": "5 rows"}
    monkeypatch.setattr(scale_runs, "searching_of", lambda *_: ({"call_ms": 7.0}, [new]))
    found = scale_runs.measured(True, kept)
    assert found["figures"] == {**kept["figures"], "search": {"call_ms": 7.0}}
    assert found["checks"] == [*(one for one in kept["checks"] if not one["case"].endswith("rows")), new]
    assert len(found["checks"]) > 5


def test_a_shortlist_grows_like_the_square_root_and_exact_search_with_the_rows() -> None:
    rows = 2**20
    assert capacity.compared(4 * rows, 64, 16) == 2 * capacity.compared(rows, 64, 16)
    free = replace(SEARCHING, exact_call_ms=0.0, cache_bytes=0.0)
    assert free.exact(2e6, 256) == pytest.approx(2 * free.exact(1e6, 256))
    # 2,048 rows of 512 bytes are in the cache of 1 MiB; of the next 2,048, each coordinate takes more.
    cached = replace(SEARCHING, exact_call_ms=0.0)
    assert cached.exact(2048, 256) == pytest.approx(2048 * 256 * 3e-7)
    assert cached.exact(4096, 256) == pytest.approx(2 * 2048 * 256 * 3e-7 + 2048 * 256 * 1e-7)
    assert SEARCHING.shortlist(1e6, 64, 16, 300) - SEARCHING.shortlist(1e6, 64, 16) == pytest.approx(1e-2)
    # All cells: no more than all rows.
    assert capacity.compared(1e4, 64, 10**9) == capacity.compared(1e4, 64, 64)


@pytest.mark.parametrize("recipe", sorted(scale.CELLS))
def test_memory_is_that_of_the_library(recipe: str) -> None:
    per_row = capacity.index_bytes(1e9, 64, recipe) / 1e9
    assert RECIPES[recipe].row_bytes(64) <= per_row < RECIPES[recipe].row_bytes(64) + 0.1


def test_cost_does_not_depend_on_how_many_work() -> None:
    """Core hours are of the images; machines divide the hours, and bring nothing to a merge."""
    plans = [
        indexing_plan(WANTED, ENCODER, replace(MACHINES, number=number), INDEXING) for number in (1, 2, 8)
    ]
    assert len({plan["core_hours"] for plan in plans}) == 1
    assert len({plan["merge_into_one_hours"] for plan in plans}) == 1
    assert [plan["hours"] * number for plan, number in zip(plans, (1, 2, 8), strict=True)] == pytest.approx(
        [plans[0]["hours"]] * 3
    )
    double = indexing_plan(replace(WANTED, images=2e8), ENCODER, MACHINES, INDEXING)
    single = indexing_plan(WANTED, ENCODER, MACHINES, INDEXING)
    for name in ("hours", "core_hours", "read_tb"):
        assert double[name] == pytest.approx(2 * single[name])
    # Units: 10 ms of a core an image, 1e8 images.
    assert single["core_hours"] == pytest.approx(1e8 * 0.010 / 3600)
    assert single["read_tb"] == pytest.approx(1e8 * 1e5 / 1e12)


def test_the_slowest_stage_is_the_bottleneck() -> None:
    plan = indexing_plan(WANTED, ENCODER, MACHINES, INDEXING)
    assert plan["bottleneck"] == "decoding and encoding on the cores"
    assert plan["gpu_hours"] == 0
    slow_disk = replace(MACHINES, read_bytes=1e6)
    assert indexing_plan(WANTED, ENCODER, slow_disk, INDEXING)["bottleneck"] == "reading"
    with_gpus = indexing_plan(WANTED, ENCODER, replace(MACHINES, gpus=1), INDEXING)
    assert with_gpus["bottleneck"] == "encoding on the GPUs"
    assert with_gpus["gpu_hours"] == pytest.approx(1e8 / 8000 / 3600)
    many = indexing_plan(WANTED, ENCODER, replace(MACHINES, gpus=8), INDEXING)
    assert many["bottleneck"] == "reading"
    for plan in (with_gpus, many):
        assert plan["images_per_second"] == min(plan["rates_of_a_machine"].values()) * MACHINES.number
    with pytest.raises(ValueError, match="not measured on a GPU"):
        indexing_plan(WANTED, replace(ENCODER, gpu_per_second=None), replace(MACHINES, gpus=1), INDEXING)
    with pytest.raises(ValueError, match="not measured on a core"):
        indexing_plan(WANTED, replace(ENCODER, core_ms=None), MACHINES, INDEXING)


def test_a_gallery_over_more_machines_is_found_in_faster_and_takes_no_more_disk() -> None:
    plans = [search_plan(WANTED, replace(MACHINES, number=number), SEARCHING) for number in (1, 4, 16)]
    assert [plan["rows_of_a_machine"] for plan in plans] == [1e8, 2.5e7, 6.25e6]
    for name in ("memory_gb", "search_ms", "build_core_hours"):
        assert [plan[name] for plan in plans] == sorted((plan[name] for plan in plans), reverse=True)
    assert [plan["disk_tb"] for plan in plans] == pytest.approx([plans[0]["disk_tb"]] * 3, rel=0.01)
    assert plans[0]["disk_tb"] == pytest.approx(1e8 * (2 * 256 + 90 + 40) / 1e12, rel=0.01)


def test_vectors_beyond_the_memory_are_read_from_the_disk() -> None:
    tight = replace(MACHINES, memory=8e9)
    plan = search_plan(WANTED, tight, SEARCHING)
    assert plan["index_fits"]
    assert not plan["vectors_fit"]
    assert search_plan(WANTED, MACHINES, SEARCHING)["vectors_fit"]
    slow = search_plan(WANTED, replace(tight, random_reads=1e4), SEARCHING)
    assert slow["bottleneck"] == "reading rows from the disk"
    assert slow["queries_per_second"] == pytest.approx(1e4 / 200)
    assert slow["copies_for_queries"] == math.ceil(100 / 50)


def test_a_line_is_found_and_never_takes_less_than_nothing() -> None:
    assert line([1.0, 2.0, 4.0], [5.0, 7.0, 11.0]) == pytest.approx((3.0, 2.0))
    assert line([1.0, 2.0], [1.0, 3.0])[0] == 0.0
    assert line([1.0, 2.0], [3.0, 1.0])[1] == 0.0


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    file = tmp_path / "scale.json"
    decoding = {"ms": 1.0, "ms_per_megapixel": 8.0, "bytes_per_pixel": 0.4}
    known = {"decoding": decoding, "indexing": vars(INDEXING), "search": vars(SEARCHING)}
    file.write_text(json.dumps({"figures": known}))
    return file


def test_predictions_are_said(figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for example in (text for text in scale.__doc__.splitlines() if "scale.py --predict" in text):
        words = example.split()[2:]
        assert scale.main([*words, "--figures", str(figures)]) == 0
        said = capsys.readouterr().out
        if "--json" in words:
            assert json.loads(said)["search"]["disk_tb"] > 0
        else:
            assert "core hours" in said
            assert "the bottleneck:" in said
            assert ("not measured here" in said) != ("--core-watts" in words)


def test_energy_is_hours_times_watts() -> None:
    """10 ms of a core of 6 W are 60 mJ an image; a GPU of 700 W that does 8,000 a second takes 87.5 mJ."""
    plan = indexing_plan(WANTED, ENCODER, MACHINES, INDEXING)
    found = capacity.energy(plan, 1e8, 6.0, None)
    assert found is not None
    assert found["joules_an_image"] == pytest.approx(0.060)
    assert found["kilowatt_hours"] == pytest.approx(1e8 * 0.060 / 3.6e6)
    assert capacity.energy(plan, 1e8, None, 700.0) is None
    with_gpus = indexing_plan(WANTED, ENCODER, replace(MACHINES, gpus=1), INDEXING)
    assert capacity.energy(with_gpus, 1e8, 6.0, None) is None
    found = capacity.energy(with_gpus, 1e8, 6.0, 700.0)
    assert found is not None
    assert found["joules_an_image"] == pytest.approx(0.002 * 6 + 700 / 8000)


def test_a_narrower_encoder_is_cheaper(figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = []
    for width in scale.WIDTHS:
        scale.main(["--predict", "--json", "--width", width, "--figures", str(figures)])
        hours.append(json.loads(capsys.readouterr().out)["indexing"]["core_hours"])
    assert hours == sorted(hours, reverse=True)
    assert hours[0] > hours[-1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--images", "0"], "--images 0.0 is not at least 1"),
        (["--images", "nan"], "--images nan is not at least 1"),
        (["--images", "inf"], "--images inf is not at least 1"),
        (["--read-mb", "0"], "--read-mb 0 is not above 0"),
        (["--random-reads", "nan"], "--random-reads nan is not above 0"),
        (["--memory-gb", "-1"], "--memory-gb -1 is not above 0"),
        (["--gpus", "-1"], "--gpus -1 is below 0"),
        (["--encoder", "nothing"], "--encoder nothing is none of"),
        (["--width", "1/3"], "was not measured at width 1/3"),
        (["--prefix", "512"], "--prefix 512 is longer than --dim 256"),
        (["--gpus", "1"], "was not measured on a GPU"),
        (["--core-watts", "-3"], "--core-watts -3 is not above 0"),
        (["--gpu-watts", "inf"], "--gpu-watts inf is not above 0"),
        (["--figures", "nowhere.json"], "nowhere.json"),
    ],
)
def test_numbers_that_cannot_be_are_named(
    figures: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scale.main(["--predict", "--figures", str(figures), *flags]) == 2
    assert said in capsys.readouterr().err


def test_numbers_without_a_prediction_do_not_begin_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    """Which takes minutes, and ends by writing over the recorded results."""
    for flags in (["--images", "1e9"], ["--images=1e9"], ["--json"]):
        with pytest.raises(SystemExit) as raised:
            scale.parse(flags)
        assert raised.value.code == 2
        assert f"{flags[0].partition('=')[0]} is for predictions: add --predict" in capsys.readouterr().err
    assert scale.parse(["--search-only", "--figures", "some.json"]).search_only
