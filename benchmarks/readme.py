"""Write what is generated: the tables of results in README.md and docs/, and the benchmark report.

The demo's results are recorded by `make demo record`, those of the report by `make bench`, those of the
small models by benchmarks/ablation.py and benchmarks/nested_quality.py, those of retrieval by
benchmarks/adaptive.py, benchmarks/million.py, benchmarks/growth.py and benchmarks/second_encoding.py, those
of a watched stream by benchmarks/watch.py, those of a student by benchmarks/distilled.py and
benchmarks/distill_ablation.py, those of fine-tuning by benchmarks/fine_tuning.py, those of carried state by
benchmarks/streaming.py, those of indexing on Ray by benchmarks/ray_rate.py, those of scale by
benchmarks/scale.py.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import ablation
import arm
import distill_ablation
import fine_tuning
import matmamba_vision
import nested_quality
import nested_students
import qdrant_push
import ray_rate
import report
import retrieval_tables
import scale_tables
import second_encoding
import serving
import streaming
import timm
import video
import watch
from markdown_tables import markdown
from matmamba_vision.measures import count_macs, count_parameters
from matmamba_vision.studies.evaluation_plots import draw_query_encoder

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
DEMO = RESULTS / "demo"
# Pages with generated tables, each between `<!-- begin NAME -->` and `<!-- end NAME -->`.
PAGES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("models", "results", "training", "distilling", "scale", "streaming")),
)
RECORDED = ("results.json", "widths.png", "retrieval.png", "examples.png")


def main() -> None:
    """Record a demo if asked, and bring README and docs up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--record", type=Path, metavar="DEMO", help="folder of a demo whose results are to be kept"
    )
    source = parser.parse_args().record
    if source:
        DEMO.mkdir(parents=True, exist_ok=True)
        for name in RECORDED:
            shutil.copyfile(source / name, DEMO / name)
    for page in PAGES:
        file = ROOT / page
        file.write_text(render(file.read_text()))
    picture = draw_query_encoder(read("adaptive") | {"settings": {"k": 10}})
    (RESULTS / "adaptive.png").write_bytes(picture)
    report.main()


def render(text: str) -> str:
    """A page with each of its blocks between `<!-- begin NAME -->` and `<!-- end NAME -->` made anew.

    Raises:
        KeyError: it has a block that nothing makes.
    """

    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return f"{begin}{BLOCKS[name]()}\n{end}"

    return re.sub(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", block, text, flags=re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """A file of benchmarks/results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def models_table() -> str:
    """Parameters and multiply-adds of every registered model at its trained widths."""
    rows = []
    for name in timm.list_models(module="registry"):
        model = timm.create_model(name, device="meta")
        assert isinstance(model, matmamba_vision.MatMamba)
        widths = model.trained_widths
        size = f"{model.embed_dim} / {len(model.heads)}, {blocks_in_words(model)}"
        parameters = " / ".join(f"{count_parameters(model, width) / 1e6:.2f}" for width in widths)
        gmacs = " / ".join(f"{count_macs(model, width) / 1e9:.2g}" for width in widths)
        rows.append((f"`{name}`", size, parameters, gmacs))
    names = ("model", "dim / blocks", "parameters, M, at full / 1/2 / 1/4 / 1/8", "GMACs")
    return markdown(names, rows)


def blocks_in_words(model: matmamba_vision.MatMamba) -> str:
    """What is nested in the blocks, such as "24 heads x 16, 3 with 8 attention heads x 24"."""
    known, words = model.architecture, []
    mamba = [heads for block, heads in enumerate(model.heads) if block not in known.attention_blocks]
    if mamba:
        words.append(f"{mamba[0]} heads x {known.head_dim}")
    if known.attention_blocks:
        heads = model.stack[known.attention_blocks[0]].mixer.heads
        some = f"{len(known.attention_blocks)} with " if mamba else ""
        words.append(f"{some}{heads} attention heads x {known.attn_head_dim}")
    if known.hidden(0):
        words.append(f"MLP of {known.hidden(0)} in {model.heads[0]} parts")
    return ", ".join(words)


def demo_tables(results: dict[str, Any]) -> str:
    """Widths and strategies of a demo, and what it ran on."""
    widths = [
        (
            row["width"],
            f"{row['params']:,}",
            f"{1e3 * row['gmacs']:.1f}",
            *quality(row, "top1", "knn1", "map10"),
        )
        for row in results["widths"]
    ]
    full = results["retrieval"][0]
    strategies = [
        (
            row["strategy"],
            row["query_width"],
            row["dim"],
            row["shortlist"] or "-",
            *quality(row, "top1", "map10", "ann_recall10"),
            f"{row['encode_ms']:.2f}",
            f"{row['search_ms']:.2f}",
            f"{(row['encode_ms'] + row['search_ms']) / (full['encode_ms'] + full['search_ms']):.2f}",
            f"{row['encoder_gmacs'] / full['encoder_gmacs']:.2f}",
        )
        for row in results["retrieval"]
    ]
    names = ("strategy", "query", "dim", "K", "top-1", "mAP@10", "of exact 10", "encode ms", "search ms")
    over = ("ms over single-shot", "encoder over single-shot")
    machine, seconds = results["machine"], sum(results["seconds"].values())
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return "\n".join(
        (
            markdown(("width", "parameters", "MMACs", "top-1", "1-NN", "mAP@10"), widths),
            "",
            markdown((*names, *over), strategies),
            "",
            f"{seconds:.0f} s and {results['peak_memory_mib']} MiB on {machine['processor']},"
            f" {threads}, torch {results['versions']['torch']}, seed {results['seed']}.",
        )
    )


def quality(row: dict[str, Any], *names: str) -> tuple[str, ...]:
    """Shares with three digits."""
    return tuple(f"{row[name]:.3f}" for name in names)


def summary_table() -> str:
    """The main results, a row each; their whole tables stand in docs/results.md."""
    slower = max(on_both("latency_1_thread"), key=lambda result: smallest_over_full(result)["median"])
    rows = [image_row(slower), *photos_rows(read("photos"))]
    rows.append(nested_row(read("nested_quality")))
    names = ("what", "measured", "compared with", "encoding over full width: multiply-adds, ms")
    return markdown(names, [*rows, demo_row(read("demo/results"))])


Row = tuple[str, str, str, str]


def on_both(name: str) -> list[dict[str, Any]]:
    """A result on each of the two processors that it was measured on, or on the one."""
    return [read(file) for file in (name, f"intel/{name}") if (RESULTS / f"{file}.json").is_file()]


def smallest_over_full(result: dict[str, Any]) -> dict[str, float]:
    """Time of one image at 1/8 over full width, of the first model that was timed."""
    ratio: dict[str, float] = result["cases"][0]["ratios"]["1/8 / full"]
    return ratio


def image_row(result: dict[str, Any]) -> Row:
    """One image by the first model that was timed: its smallest width, the full one, a transformer."""
    case = result["cases"][0]
    ms = {name: f"{side['median']:.1f} ms" for name, side in case["sides"].items()}
    macs, known = case["settings"]["multiply_adds"], case["settings"]
    name = case["name"].removeprefix("matmamba_")
    return (
        f"encoding one image with `{name}`, width 1/8, 1 thread of an {result['machine']['processor']}",
        ms["1/8"],
        f"{ms['full']} by the full width, {ms[known['fastest_vit']]} by a ViT of as many parameters",
        f"{macs['1/8'] / macs['full']:.2f}, {smallest_over_full(result)['median']:.2f}",
    )


def one_image_table() -> str:
    """For each model and number of threads, milliseconds of widths, of the model itself, of a transformer."""
    rows = []
    for result in (*on_both("latency_1_thread"), *on_both("latency")):
        machine = result["machine"]
        processor = f"{machine['processor'].split()[0].removesuffix('(R)')}, {machine['threads']}"
        for case in result["cases"]:
            best = case["settings"]["fastest_vit"]
            sides = [f"{case['sides'][name]['median']:.2f}" for name in _IMAGE_SIDES]
            ratios = [_with_quartiles(case["ratios"][name], 2) for name in _IMAGE_RATIOS]
            vit = f"{case['sides'][best]['median']:.2f} ({best.removeprefix('ViT, ')})"
            model = case["settings"]["model"].removeprefix("matmamba_")
            asked = "behind a rest" if case["settings"].get("in_a_row", 1) == 1 else "in a row"
            rows.append((f"`{model}`", processor, asked, *sides, vit, *ratios))
    widths = [name.replace("full, eager", "full, by the model") for name in _IMAGE_SIDES]
    names = ("model", "processor, threads", "images", *widths, "ViT, the fastest", *_IMAGE_RATIOS)
    return markdown(names, rows)


_IMAGE_SIDES = ("full, eager", "full", "1/2", "1/4", "1/8")
_IMAGE_RATIOS = ("1/8 / full", "full / ViT", "1/8 / ViT")


def light_table() -> str:
    """A row for each width and kind of encoder."""
    rows = []
    for row in read("light_encoders")["rows"]:
        size = "-" if row["bytes"] is None else f"{row['bytes'] / 2**20:.1f}"
        name = "the model, frozen in this process" if row["kind"] == "model" else f"`{row['kind']}`"
        hits = f"{row['recall@10']:.3f}"
        rows.append((row["width"], name, _with_quartiles(row["ms"], 2), size, hits))
    return markdown(("width", "encoder", "ms, one photo", "MiB", "of the model's 10 hits"), rows)


def networks_table(result: dict[str, Any]) -> str:
    """A row for each network of timm's and number of images."""
    rows = []
    for case in result["cases"]:
        known, ratio = case["settings"], case["ratios"]["ONNX Runtime / PyTorch"]
        ms = (f"{case['sides'][side]['median']:.1f}" for side in ("PyTorch", "ONNX Runtime"))
        recording = f"{known['recording_s']:.1f}"
        rows.append((f"`{known['network']}`", known["images"], *ms, _with_quartiles(ratio, 2), recording))
    heads = ("network", "images", "PyTorch, ms", "ONNX Runtime, ms", "ratio", "recorded in, s")
    return markdown(heads, rows)


def photos_rows(result: dict[str, Any]) -> Iterator[Row]:
    """1-NN of the student that comes with the package: its smallest width, alone and reranked."""
    rows = {(row["query"], row["in"], row["dim"]): row["knn1"] for row in result["data"]["photos"]["rows"]}
    costs = {row["encoder"]: row for row in result["costs"]}
    macs = {name: f"{row['macs'] / 1e6:.0f} MMACs" for name, row in costs.items()}
    small = ("student 1/8",)
    full = f"{rows['student full', 'student full', 256]:.1%} by the full width, {macs['student full']}"
    alone = f"{rows['student 1/8', 'student full', 256]:.1%}, {macs['student 1/8']}"
    over = retrieval_tables.over_full(costs, small)
    yield "1-NN of held-out photos, queries by width 1/8 alone", spaced(alone), spaced(full), over
    both = sum(costs[name]["macs"] for name in (*small, "student full"))
    reached = f"{rows['student 1/8, reranked', 'student full', 64]:.1%}, {both / 1e6:.0f} MMACs"
    over = retrieval_tables.over_full(costs, (*small, "student full"))
    what = "the same, a shortlist by 1/8 and 64 dims, reranked by full: encoded twice"
    yield what, spaced(reached), spaced(full), over


def nested_row(result: dict[str, Any]) -> Row:
    """Top-1 of the smallest of the widths that were trained together."""
    row = next(row for row in result["compared"] if row["width"] == "1/8")
    nested, alone = (f"{mean(row[f'{side}_top1']):.1%}" for side in ("nested", "alone"))
    return (
        "top-1 at width 1/8, CIFAR-10, four widths trained as one",
        spaced(nested),
        spaced(f"{alone} alone"),
        "-",
    )


def demo_row(result: dict[str, Any]) -> Row:
    """The demo as a whole."""
    full, *_, least = result["widths"]
    return (
        f"1-NN of handwritten digits, width {least['width']}; `make demo` takes"
        f" {sum(result['seconds'].values()):.0f} s on {result['machine']['threads']} thread",
        spaced(f"{least['knn1']:.1%}"),
        spaced(f"{full['knn1']:.1%} by the full width"),
        ", ".join(f"{least[cost] / full[cost]:.2f}" for cost in ("gmacs", "encode_ms")),
    )


def spaced(text: str) -> str:
    """Per cent as these pages write them."""
    return text.replace("%", " %")


def ratio_table(name: str, names: tuple[str, str, str, str], digits: int) -> str:
    """A row for each case of two sides measured in turn: medians, and the ratio with its quartiles."""
    rows = []
    for case in read(name)["cases"]:
        first, second = (f"{side['median']:,.{digits}f}" for side in case["sides"].values())
        (ratio,) = case["ratios"].values()
        spread = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        rows.append((case["name"], first, second, spread))
    return markdown(names, rows)


def start_table() -> str:
    """A row for each cold process: wall and processor time, medians with quartiles."""
    cases = {case["name"]: case for case in read("start")["cases"]}
    wall, processor = cases["wall time"], cases["processor time"]
    rows = [
        (f"`{name}`", *(_with_quartiles(case["sides"][name], 0) for case in (wall, processor)))
        for name in wall["sides"]
    ]
    rows += [
        (
            f"ratio: `{name.replace(' / ', '` to `')}`",
            *(_with_quartiles(case["ratios"][name], 2) for case in (wall, processor)),
        )
        for name in wall["ratios"]
    ]
    return markdown(("process", "wall time, ms", "processor time, ms"), rows)


def _with_quartiles(found: dict[str, float], digits: int) -> str:
    median, low, high = (f"{found[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def once_measured(name: str, table: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """A table of results, or that they are not there yet."""

    def made() -> str:
        if (RESULTS / f"{name}.json").exists():
            return table(read(name))
        return f"Not measured yet: `benchmarks/{name}.py` does.\n"

    return made


IMAGE_VERSIONS = ("one image", "before, ms", "now, ms", "before / now")
BLOCKS: dict[str, Callable[[], str]] = {
    "versions": lambda: ratio_table("versions", ("command", "0.1.0, ms", "0.2.0, ms", "ratio"), 0),
    "call_overhead": lambda: ratio_table(
        "call_overhead", ("one query", "parts, µs", "public call, µs", "ratio"), 0
    ),
    "image_versions": lambda: ratio_table("image_versions", IMAGE_VERSIONS, 2),
    "image_versions_intel": lambda: ratio_table("intel/image_versions", IMAGE_VERSIONS, 2),
    "start": start_table,
    "one_image": one_image_table,
    "light_encoders": light_table,
    "other_networks": once_measured("other_networks", networks_table),
    "index_other": lambda: ratio_table(
        "index_other", ("indexing", "PyTorch, ms", "ONNX Runtime, ms", "ratio"), 0
    ),
    "summary": summary_table,
    "models": models_table,
    "nested": lambda: nested_quality.table(read("nested_quality")),
    "nested_tinyimagenet": lambda: nested_quality.table(read("nested_quality_tinyimagenet")),
    "ablation": lambda: ablation.table(read("ablation")),
    "distill_ablation": lambda: distill_ablation.table(read("distill_ablation")),
    "nested_students": once_measured("nested_students", nested_students.table),
    "demo": lambda: demo_tables(read("demo/results")),
    "adaptive": lambda: retrieval_tables.adaptive_table(read("adaptive")),
    "adaptive_tinyimagenet": lambda: retrieval_tables.adaptive_table(read("adaptive_tinyimagenet")),
    "million": lambda: retrieval_tables.million_table(read("million")),
    "fine_tuning": lambda: fine_tuning.page(read("fine_tuning")),
    "photos": lambda: retrieval_tables.photos_table(read("photos")),
    "photos_tinyimagenet": lambda: retrieval_tables.photos_table(read("photos"), "tinyimagenet"),
    "scaling": lambda: retrieval_tables.scaling_table(read("photos_unscaled"), read("photos")),
    "encoders": lambda: retrieval_tables.encoders_table(read("photos")),
    "ray_rate": once_measured("ray_rate", ray_rate.table),
    "arm": once_measured("arm", arm.table),
    "growth": lambda: retrieval_tables.growth_table(read("growth")),
    "scale_plans": once_measured("scale", scale_tables.plans_table),
    "scale_encoders": scale_tables.encoders_table,
    "scale_bytes": scale_tables.bytes_table,
    "scale_figures": once_measured("scale", scale_tables.figures_table),
    "scale_checks": once_measured("scale", scale_tables.checks_table),
    "serving": lambda: serving.page(read("serving")),
    "streaming": lambda: streaming.page(read("streaming")),
    "watch": once_measured("watch", watch.page),
    "qdrant_push": once_measured("qdrant_push", qdrant_push.table),
    "qdrant_query": once_measured("qdrant_query", retrieval_tables.qdrant_table),
    "second_encoding": lambda: second_encoding.table(read("second_encoding")),
    "video": once_measured("video", video.page),
}

if __name__ == "__main__":
    main()
