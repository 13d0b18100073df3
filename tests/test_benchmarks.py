"""The benchmarks measure fairly, run, and their report shows what was measured."""

from __future__ import annotations

import importlib
import itertools
import json
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import adaptive
import against_vit
import block_time
import fine_tuning
import gallery_safety
import gpu
import image_versions
import index_other
import indexing
import latency
import listing
import measuring
import nested_cost
import nested_cost_gpu
import nested_quality
import numpy as np
import other_networks
import peak_memory
import peers
import plots
import pytest
import report
import rows as training_rows
import small_gallery
import start
import targets
import torch
import training_step
import transformers_mixer
import width_time
from matmamba_vision import MatMamba
from matmamba_vision.measures import count_parameters
from measuring import Plan, Ratio, alternate, in_fresh_process, measure_case
from PIL import Image
from timm import create_model

NANO = "matmamba_nano_patch4_32"
SHAPE = peers.BlockShape(dim=64, heads=8, head_dim=16, state_dim=8, tokens=9, batch=2)
FOLDER = Path(report.__file__).parent
TINY: tuple[tuple[ModuleType, dict[str, Any]], ...] = (
    (against_vit, {"settings": [against_vit.Setting(NANO, 32, 2), against_vit.Setting(NANO, 64, 1)]}),
    (block_time, {"shape": SHAPE}),
    (index_other, {"network": "test_efficientnet", "count": 4}),
    (latency, {"models": [NANO]}),
    (listing, {"files": 200}),
    (nested_cost, {"setting": nested_cost.Setting(NANO, 2, 32)}),
    (other_networks, {"networks": ["test_efficientnet"]}),
    (small_gallery, {"counts": [50]}),
    (start, {"pictures": 3}),
    (width_time, {"name": NANO, "batch": 2}),
)
# They start many processes, or compile.
LONG = (against_vit, latency, nested_cost, start)


def row(**target: float) -> targets.Row:
    return targets.Row("what", "file", "case", **target)  # type: ignore[arg-type]


def results(**medians: float) -> targets.Results:
    ratios = {name: {"median": value, "low": value, "high": value} for name, value in medians.items()}
    return {"file": {"cases": [{"name": "case", "ratios": ratios}]}}


def test_sides_take_turns_and_warm_up_does_not_count() -> None:
    order: list[str] = []
    count = itertools.count()

    def side(name: str) -> float:
        order.append(name)
        return float(next(count))

    values = alternate({"a": lambda: side("a"), "b": lambda: side("b")}, Plan(warm_up=1, repeats=2))
    assert order == ["a", "b"] * 3
    assert values == {"a": [2.0, 4.0], "b": [3.0, 5.0]}


def test_ratios_are_taken_within_each_round() -> None:
    a, b = iter([2.0, 8.0, 3.0]), iter([1.0, 2.0, 1.0])
    ratio = Ratio("a / b", over="a", under="b", expected=2.0)
    sides = {"a": lambda: next(a), "b": lambda: next(b)}
    case = measure_case("name", sides, [ratio], Plan(0, 3), {"dim": 4}, unit="MiB")
    assert case["ratios"] == {"a / b": {"median": 1.5, "low": 1.25, "high": 1.75}}
    assert case["sides"]["a"] == {"median": 3.0, "low": 2.5, "high": 5.5}
    assert (case["name"], case["settings"], case["unit"]) == ("name", {"dim": 4}, "MiB")
    assert (case["warm_up"], case["repeats"]) == (0, 3)


def test_a_plan_is_only_ever_cut() -> None:
    assert Plan(3, 30).at_most(5) == Plan(1, 5)
    assert Plan(1, 3).at_most(5) == Plan(1, 3)


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.json"
    measuring.write_json(file, {"cases": []})
    with pytest.raises(TypeError):
        measuring.write_json(file, {"cases": object()})
    assert json.loads(file.read_text()) == {"cases": []}


@pytest.mark.parametrize(
    ("script", "tiny"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (one[0] in LONG), id=one[0].__name__) for one in TINY],
)
def test_each_script_runs(script: ModuleType, tiny: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    script.main(["--quick", "--threads", "1", "--output", str(file)], **tiny)
    result = json.loads(file.read_text())
    assert result["machine"]["threads"] == 1
    assert {"torch", "timm"} <= set(result["versions"])
    if script is small_gallery:
        assert {row["images"] for row in result["rows"]} == {50}
        return
    in_turn = [case for case in result["cases"] if case["name"] != "peak memory"]
    assert all(case["warm_up"] == 1 and case["repeats"] == 3 for case in in_turn)
    assert all(found["median"] > 0 for case in result["cases"] for found in case["sides"].values())
    assert all(found["low"] <= found["high"] for case in result["cases"] for found in case["ratios"].values())


@pytest.mark.slow
def test_two_versions_encode_an_image_in_turn(tmp_path: Path) -> None:
    tree, output = str(FOLDER.parent), tmp_path / "result.json"
    image_versions.main(["--quick", "--before", tree, "--output", str(output)], models=["mini_patch8_64"])
    cases = json.loads(output.read_text())["cases"]
    assert len(cases) == len(image_versions.WIDTHS) * len(image_versions.THREADS)
    assert all(side["median"] > 0 for case in cases for side in case["sides"].values())


@pytest.mark.slow
def test_the_script_about_safety_counts_what_it_did(tmp_path: Path) -> None:
    gallery_safety.main(["--quick", "--output", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert sum(result["killed_writers"]["counts"].values()) == result["killed_writers"]["times"] == 20
    damaged = result["damaged_files"]["counts"]
    assert damaged["flip"] + damaged["truncation"] == 20
    assert damaged["undetected"] == damaged["silently another answer"] == 0
    assert result["opening"]["deleted"] == 20


def test_a_quick_run_writes_nothing_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    latency.main(["--quick"], models=[])
    assert not [*tmp_path.iterdir()]
    latency.main([], models=[])
    assert [file.name for file in tmp_path.iterdir()] == ["latency.json"]


def test_the_first_version_of_the_block_has_the_present_gradients() -> None:
    assert 0 < training_step.largest_difference(SHAPE) <= training_step.TOLERANCE
    case = next(training_step.cases(Plan(0, 1), SHAPE))
    assert set(case["sides"]) == {"first version", "present"}


def test_the_mixer_of_transformers_computes_ours() -> None:
    pytest.importorskip("transformers")
    if find_spec("mamba_ssm") or find_spec("causal_conv1d"):
        pytest.skip("transformers would use kernels")
    case = next(transformers_mixer.cases(Plan(0, 1), SHAPE))
    assert case["settings"]["largest_difference"] <= transformers_mixer.TOLERANCE
    assert "chunk 256 / ours" in case["ratios"]


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    """What this process has used is not counted: here 400 MB at the least."""
    used = torch.ones(100_000_000)
    found = in_fresh_process(peak_memory.growth_mib, NANO, 1, True, 1, 256)
    assert 0 < found < used.nbytes / 2**20 / 2


@pytest.mark.parametrize(
    "name", ["nano_patch4_32", "tiny_patch16_224", "small_patch16_224", "base_patch16_224"]
)
def test_the_vision_transformer_has_as_many_parameters(name: str) -> None:
    model = create_model(f"matmamba_{name}", device="meta")
    assert isinstance(model, MatMamba)
    vit = peers.vit_of_equal_parameters(model)
    assert vit.embed_dim == model.embed_dim
    assert abs(peers.parameters(vit) / peers.parameters(model) - 1) <= 0.02
    if name == "small_patch16_224":
        assert (len(vit.blocks), peers.parameters(vit)) == (11, 35_685_352)


def test_a_target_is_reached_or_short_by_so_much_or_was_not_run() -> None:
    low, high = row(at_most=1.6, aim=1.35), row(at_least=2)
    assert low.target() == "at most 1.6, aim 1.35"
    assert low.verdict(low.read(results(a=1.0, b=1.6))) == "reached"
    assert low.verdict(low.read(results(a=1.0, b=2.0))) == "**short by 25.0 %**"
    assert high.verdict(high.read(results(a=1.0, b=2.0))) == "**short by 50.0 %**"
    assert high.verdict(high.read({})) == "not run"
    assert row().verdict(row().read(results(a=1.0))) == "information"


def test_rows_name_cases_that_the_scripts_have() -> None:
    """Those of the block and of the widths are found in a real result below."""
    models = {f"{setting.model}, {setting.pixels} px" for setting in against_vit.SETTINGS}
    for known in targets.CPU_ROWS:
        script = known.file.removesuffix("_1_thread")
        source = (FOLDER / f"{script}.py").read_text()
        if script == "against_vit":
            assert known.case in models
        elif script == "latency":
            assert known.case in {name + ending for name in latency.MODELS for ending in latency.CALLS}
        elif script not in ("block_time", "width_time"):
            assert f'"{known.case}"' in source
    assert {known.file for known in targets.GPU_ROWS} == {"gpu", "nested_cost_gpu"}


@pytest.mark.usefixtures("really_drawn")
def test_the_report_shows_what_was_measured(tmp_path: Path) -> None:
    # How the others are shown, recorded results say below.
    scripts = {"width_time": width_time, "block_time": block_time}
    for name, script in scripts.items():
        tiny = dict(TINY)[script]
        script.main(["--quick", "--threads", "1", "--output", str(tmp_path / f"{name}.json")], **tiny)
    found = report.load_results(tmp_path)
    page = report.render(found, "Reasons.")
    assert "Reasons." in page
    assert "1 thread" in page
    assert "not run" in page
    measured = [known for known in targets.CPU_ROWS if known.file in ("width_time", "block_time")]
    assert all(known.read(found) for known in measured)
    plots.draw_widths(found["width_time"]["cases"], tmp_path / "widths.png")
    plots.draw_parts(found["block_time"]["cases"], tmp_path / "parts.png")


def test_the_report_is_that_of_the_recorded_results() -> None:
    assert report.REPORT.read_text() == report.page(), "run `make readme`"


def test_help_says_how_to_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        latency.main(["--help"])
    assert "example: .venv/bin/python benchmarks/latency.py --quick" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        latency.main(["--threads", "0"])
    assert "--threads 0 is not at least 1" in capsys.readouterr().err


def test_every_measuring_script_is_in_the_makefile() -> None:
    makefile = (FOLDER.parent / "Makefile").read_text()
    line = next(line for line in makefile.splitlines() if line.startswith("BENCHMARKS ?="))
    scripts = [name for name in report.SCRIPTS if "gpu" not in name and not name.endswith("_1_thread")]
    assert line.split()[2:] == scripts
    assert all(importlib.import_module(name).main for name in line.split()[2:])


def test_the_script_of_nested_cost_on_a_gpu_measures_all_it_names() -> None:
    setting = nested_cost.Setting(NANO, 2, 32)
    cases = {case["name"]: case for case in nested_cost_gpu.cases(Plan(0, 1), [setting])}
    assert set(cases) == {"nano, nested training", "nano, CUDA graphs"}
    assert all(found["median"] > 0 for case in cases.values() for found in case["ratios"].values())


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for script in (gpu, nested_cost_gpu):
        with pytest.raises(SystemExit, match="no GPU"):
            script.main([])


def searched(width: str, strategy: str, **values: Any) -> dict[str, Any]:
    """A row as benchmarks/adaptive.py has it."""
    dims = [] if strategy == "single-shot" else [32]
    known: dict[str, Any] = {
        "query_width": width,
        "strategy": strategy,
        "dims": dims,
        "lengths": [200] * len(dims),
    }
    known |= {"widths": [], "gallery_width": "full", "index": "", "effort": None, "gate": None, "expand": 0}
    known |= {"knn1": 0.6, "map": 0.5, "knn1_loss": 0.0, "map_loss": 0.0, "by_full": 1.0, "again": False}
    known |= {"encoder_macs": 1e6, "search_macs": 1e6, "knn1_loss_interval": [0, 0]}
    known |= {"encode_ms": 1.0, "one_search_ms": 1.0}
    return known | {"map_loss_interval": [0, 0]} | values


def test_the_table_of_strategies_shows_the_cheapest_that_are_good_enough() -> None:
    def gated(macs: float, met: bool = True, lost: float = 0.0) -> dict[str, Any]:
        calibrated = {"met": met, "qualities": ["knn1", "map"], "sure": False}
        known = {"gate": {"rule": "vote", "threshold": 0.5}, "gate_loss": 0.1, "calibrated": calibrated}
        return searched("1/8", "gated", encoder_macs=macs, map_loss=lost, by_full=0.3, **known)

    rows = [
        searched("full", "single-shot"),
        searched("1/8", "single-shot", knn1_loss=0.08),
        searched("1/8", "shortlist", map_loss=0.02),
        searched("1/8", "shortlist", lengths=[2000], search_macs=3e6),
        searched("1/8", "shortlist", lengths=[1000], search_macs=2e6, map_loss=0.004),
        searched("1/8", "shortlist", lengths=[500], search_macs=1.5e6, map_loss=0.006),
        gated(5e5),
        gated(4e5),
        gated(3e5, met=False),
        gated(2e5, lost=0.0011),
    ]
    found = [(title, row["lengths"], row["encoder_macs"]) for title, row in adaptive.chosen(rows)]
    assert found == [
        ("single-shot", [], 1e6),
        ("small width alone", [], 1e6),
        ("shortlist of 200", [200], 1e6),
        ("cheapest within 0.5", [1000], 1e6),
        ("gated", [200], 4e5),
    ]
    costly = [row | {"by_full": 1.0} if row["strategy"] == "gated" else row for row in rows]
    title, instead = adaptive.chosen(costly)[-1]
    assert (title, instead["strategy"]) == ("gated: no saving, single-shot instead", "single-shot")
    assert (instead["query_width"], instead["ms_over_single_shot"]) == ("1/8", 1)
    images = {"gallery": 9, "queries": 5}
    text = adaptive.table({"data": "photos", "images": images, "rows": rows})
    assert "| 1/8 | gated | 200 by 32; vote for 0.1 | 0.00 (0.00 to 0.00) |" in text
    assert "| 40 % | 1.0 | 1.00, 0.70 |" in text


def test_indexing_is_measured_in_slices_and_in_its_own_memory(tmp_path: Path) -> None:
    """A rate that halves shows; what the command takes is counted; both ways of indexing photos run."""
    passed = [(rows, rows / 100 if rows <= 500 else 5 + (rows - 500) / 50) for rows in range(0, 1001, 10)]
    assert indexing.slices(passed, 1000) == [100] * 5 + [50] * 5
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32))
    found = indexing.index_once(tmp_path / "x.npy", tmp_path / "gallery", 2000, "IVF4,PQ8x4fs")
    assert found["kept"]
    assert 0 < found["mib_before"]["own"] <= found["peak_mib"]["own"] <= found["peak_mib"]["all"]
    case = indexing.overlap(4, Plan(warm_up=0, repeats=1))
    assert case["ratios"]["gain by overlap"]["median"] > 0


def test_images_of_a_row_are_shuffled_mirrored_and_shifted_alike_for_a_seed() -> None:
    pixels = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8)
    setting = training_rows.Setting(batch=4, shift=2)

    def first(seed: int | None, epoch: int = 0) -> torch.Tensor:
        loader = training_rows.Batches(pixels, torch.arange(10), setting, seed)
        batches = [*loader.batches(epoch)]
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(torch.cat([batch.labels for batch in batches]).tolist()) == [*range(10)]
        return torch.cat([batch.images for batch in batches])

    assert torch.equal(first(None), pixels / 127.5 - 1)
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert not torch.equal(first(1), first(1, epoch=1))


def test_models_alone_have_the_heads_of_the_nested_widths() -> None:
    for comparison in nested_quality.COMPARISONS.values():
        nested, *alone = comparison.rows.values()
        model = MatMamba(**nested.model, trained_widths=nested.widths)
        for row, width in zip(alone, model.trained_widths, strict=True):
            own = MatMamba(**row.model, trained_widths=row.widths)
            assert count_parameters(own, "full") == count_parameters(model, width)


def test_the_model_compared_on_tiny_imagenet_is_the_one_that_is_registered() -> None:
    compared = MatMamba(**nested_quality.COMPARISONS["tinyimagenet"].model, device="meta")
    model = create_model("matmamba_mini_patch8_64", num_classes=200, device="meta")
    assert isinstance(model, MatMamba)
    assert compared.architecture == model.architecture


@pytest.mark.slow
def test_fine_tuning_is_measured_beside_training_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cats", "dogs")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 56, (16, 16, 3)) + 200 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    words = ["--data", f"own={tmp_path / 'photos'}", "--runs", str(tmp_path / "runs"), "--seeds", "0", "1"]
    words += ["--images", "2", "--held-out", "1", "--epochs", "1", "--note", "Tiny."]
    fine_tuning.main([*words, "--output", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    rows = result["data"]["own"]["rows"]
    assert result["data"]["own"]["classes"] == 2
    assert [(row["what"], row["seed"]) for row in rows] == [
        (what, seed)
        for seed in (0, 1)
        for what in (fine_tuning.AS_THEY_COME, fine_tuning.FINE_TUNED, fine_tuning.SAME, fine_tuning.SMALL)
    ]
    for row in rows:
        assert row["images"] == 4
        assert set(row["widths"]) == {"full", "1/8"}
        assert row["epochs"] == (0 if row["what"] == fine_tuning.AS_THEY_COME else 1)
    starts = [json.loads(file.read_text()) for file in sorted(tmp_path.rglob("run*/config.json"))]
    assert {start["architecture"] for start in starts} == {"matmamba_mini_patch16_128", NANO}
    seeds = [{file.name for file in (tmp_path / f"runs/own/{seed}/photos").rglob("*.png")} for seed in (0, 1)]
    assert seeds[0] != seeds[1]
    text = fine_tuning.page(result)
    assert text.count("| own |") == 4
    assert "Tiny." in text
    # What is there is not trained again, and what is not is left out if that is asked for.
    monkeypatch.setattr(fine_tuning, "row", lambda *_: pytest.fail("trained again"))
    fine_tuning.main([*words, "--only", "own"])
    (tmp_path / "runs" / "own" / "1" / "2.json").unlink()
    fine_tuning.main([*words, "--finished", "--output", str(tmp_path / "less.json")])
    assert json.loads((tmp_path / "less.json").read_text())["data"]["own"]["rows"] == rows[:-1]
