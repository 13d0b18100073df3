"""Write benchmarks/README.md and its plots from the files in benchmarks/results and from notes.md.

    .venv/bin/python benchmarks/report.py

Rows of the first table stand in targets.py. Results of graphics processors are read from results/gpu.json
and nested_cost_gpu.json, which have cases like those of the other files, with the names given here. Where a
row of theirs was not run, what results/gpu_model.json predicts stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import without_a_gpu
from markdown_tables import digits, markdown
from plots import draw_parts, draw_widths
from targets import CPU_ROWS, GPU_ROWS, Results, Spread

FOLDER = Path(__file__).parent
RESULTS, NOTES, REPORT = FOLDER / "results", FOLDER / "notes.md", FOLDER / "README.md"
# The same scripts on a second kind of processor: `--output benchmarks/results/intel/NAME.json`.
INTEL = RESULTS / "intel"
# In the order of `make bench`; `_1_thread` are those of --threads 1.
SCRIPTS = (
    "block_time",
    "transformers_mixer",
    "against_vit",
    "width_time",
    "training_step",
    "compiled_block",
    "peak_memory",
    "nested_cost",
    "latency",
    "against_vit_1_thread",
    "width_time_1_thread",
    "latency_1_thread",
    "gpu",
    "nested_cost_gpu",
)
# What is computed or compiled without a GPU, not timed.
WITHOUT_A_GPU = ("gpu_model", "compiled_kernels")
INTRODUCTION = """# Benchmarks

`make bench` measures on this machine what follows and writes this page; `make bench BENCHMARKS=latency`
measures a part, and `make readme` writes the page alone. Each script in this folder says with `--help` what
it measures, and tries it out with `--quick`.

In each round every side is measured once, in turn, in one process, and a ratio is taken within a round.
Figures are medians over rounds, with quartiles in brackets. Other libraries are run here, never quoted. The
small model has blocks of D 512, 64 heads of 16 and state 128. Unless a row says otherwise, there are 8 images
of 224 px (197 tokens), numbers are float32, and it is inference.
"""
OTHERS = """## Other recorded results

| result | made by | what |
| --- | --- | --- |
| `results/demo` | `make demo record` | the demo on handwritten digits: widths, strategies, goals, machine |
| `results/demo/results-seed1.json`, `-seed2.json` | `matmamba demo --seed 1`, `--seed 2`, both at once | \
the same, other seeds |
| `results/ablation.json`, `.md` | `.venv/bin/python benchmarks/ablation.py --data CIFAR10` | scan orders \
and baselines, trained alike |
| `results/nested_quality.json`, `.md` | `.venv/bin/python benchmarks/nested_quality.py --data CIFAR10` | a \
nested model against models of its widths trained alone |
| `results/nested_quality_tinyimagenet.json`, `.md` | `.venv/bin/python benchmarks/nested_quality.py --data \
TINYIMAGENET --comparison tinyimagenet --device cuda --jobs 3` | the same on a GPU, 5 million parameters |
| `results/adaptive.json`, `.md` | `.venv/bin/python benchmarks/adaptive.py --data CIFAR10 --runs DIR` | \
every query width by every strategy, against single-shot |
| `results/adaptive_tinyimagenet.json`, `.md` | `.venv/bin/python benchmarks/adaptive.py --data TINYIMAGENET \
--runs DIR --checkpoint matmamba_mini_patch8_64 --queries 5000` | the same on Tiny-ImageNet |
| `results/photos.json` | `.venv/bin/python benchmarks/distilled.py --photos PHOTOS \
--tinyimagenet TINYIMAGENET --student RUN --teacher timm:local-dir:LITE2 --runs DIR`, and with \
`--only costs` on an idle machine | a student beside its teacher, on photos and on Tiny-ImageNet |
| `results/serving.json`, `.png` | `.venv/bin/python benchmarks/serving.py --photos PHOTOS --soak 600 \
--restart MILLION`, on an idle machine | the service under load: always full, always 1/8, by slack |
| `results/photos_unscaled.json` | the same with the student as it was before \
`benchmarks/even_coordinates.py` | what a more even size of coordinates brings |
| `results/photos_cpu.json` | the same of `configs/photos/mini_cpu.yaml`, with `--only photos --threads 2` | \
the student trained on without a GPU |
| `results/distill_ablation.json`, `.md` | `.venv/bin/python benchmarks/distill_ablation.py --photos PHOTOS \
--teacher timm:local-dir:LITE0 --runs DIR` | what each term of a student's objective brings |
| `results/nested_students.json` | `.venv/bin/python benchmarks/nested_students.py --photos PHOTOS \
--teacher timm:local-dir:LITE0 --runs DIR` | the 1/8 of a nested student beside a student of 1/8 alone |
| `results/other_networks.json` | `.venv/bin/python benchmarks/other_networks.py --threads 2` | \
networks of timm's by PyTorch and by ONNX Runtime |
| `results/index_other.json` | `.venv/bin/python benchmarks/index_other.py --threads 2` | \
a folder indexed by a network of timm's, by the public call, with ONNX Runtime and without |
| `results/second_encoding.json` | `.venv/bin/python benchmarks/second_encoding.py --photos PHOTOS \
--runs DIR` | \
what the second encoding of a rerank or a gate can reuse of the first |
| `results/listing.json` | `.venv/bin/python benchmarks/listing.py` | listing 100,000 files, beside `find` |
| `results/versions.json` | `.venv/bin/python benchmarks/versions.py --before ../before` | indexing, \
searching and training in two versions, in turn |
| `results/image_versions.json` | `.venv/bin/python benchmarks/image_versions.py --before ../before` | one \
image in two versions, in turn; `results/intel/image_versions.json` on another processor |
| `results/call_overhead.json` | `.venv/bin/python benchmarks/call_overhead.py --threads 1` | what \
the public search takes beside its parts |
| `results/ray_rate.json` | `.venv/bin/python benchmarks/ray_rate.py`, on an idle machine | indexing on Ray, \
beside the same without it |
| `results/qdrant_query.json` | `.venv/bin/python benchmarks/qdrant_query.py --threads 1` | what a pushed \
gallery's answer takes beyond the engine's own call, and its recall |
| `results/start.json` | `.venv/bin/python benchmarks/start.py --threads 1` | cold commands, beside \
`python -c pass` and `import torch` |
| `results/gpu_model.json` | `.venv/bin/python benchmarks/gpu_model.py` | what arithmetic predicts of a GPU |
| `results/compiled_kernels.json` | `make kernels` | every launch of the GPU's kernels, compiled without one |
| `results/arm.json` | `make arm` | the kernels in C on an emulated ARM machine, beside this one |
| `results/small_gallery.json` | `.venv/bin/python benchmarks/small_gallery.py` | search time of one query, \
single-shot against shortlist, by gallery size |

`readme.py` writes the tables of README and docs from these files (`make readme`); a test fails when they
differ.
"""


def main() -> None:
    """Draw the plots, and write the page."""
    results = load_results(RESULTS)
    if "width_time" in results:
        draw_widths(results["width_time"]["cases"], RESULTS / "width_time.png")
    if "block_time" in results:
        draw_parts(results["block_time"]["cases"], RESULTS / "block_parts.png")
    REPORT.write_text(page())


def page() -> str:
    """The page of what is recorded."""
    return render(load_results(RESULTS), NOTES.read_text(), load_results(INTEL))


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The recorded files of the scripts, as far as they are there."""
    files = {name: folder / f"{name}.json" for name in (*SCRIPTS, *WITHOUT_A_GPU)}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def render(results: Results, notes: str, intel: Results | None = None) -> str:
    """The page: targets, machines, notes, and all that was measured."""
    measured = {name: result for name, result in results.items() if name in SCRIPTS}
    measured |= {f"intel/{name}": result for name, result in (intel or {}).items()}
    sections = [INTRODUCTION, "## Targets\n", targets_table(results, intel or {}), machines(measured)]
    sections += [f"## Notes\n\n{notes.strip()}\n", *latency(results), *plots(results)]
    sections += without_a_gpu.sections(results)
    if measured:
        sections += ["## All figures\n", *(figures(name, result) for name, result in measured.items())]
    return "\n".join([*sections, OTHERS])


def targets_table(results: Results, intel: Results | None = None) -> str:
    """Target beside what was reached, on two kinds of processors where both were had; judged is the worse."""
    rows = []
    for place, known in (("CPU", CPU_ROWS), ("GPU", GPU_ROWS)):
        for row in known:
            found, there = row.read(results), row.elsewhere().read(intel or {})
            verdict = row.elsewhere().verdict(there) if row.is_worse(found, there) else row.verdict(found)
            if found is None and (expected := row.prediction(results)):
                verdict += f"; predicted {without_a_gpu.between(expected)}{row.forecast(expected)}"
            rows.append(
                (row.what, place, row.target(), with_quartiles(found), with_quartiles(there), verdict)
            )
    return markdown(("what", "where", "target", "reached", "on an Intel Xeon", ""), rows) + "\n"


def machines(results: Results) -> str:
    """Which files were measured where, and with what: a line for each machine and set of versions."""
    lines: dict[str, list[str]] = {}
    for name, result in results.items():
        machine, versions = result["machine"], result["versions"]
        threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
        place = ", ".join(
            filter(None, (machine["gpu"], machine["processor"], machine.get("instructions"), threads))
        )
        listed = ", ".join(f"{package} {version}" for package, version in versions.items())
        lines.setdefault(f"{place}; {machine['system']}; {listed}", []).append(f"`{name}`")
    if not lines:
        return "Nothing was measured yet.\n"
    return "\n".join(f"* {', '.join(names)}: {line}." for line, names in lines.items()) + "\n"


def latency(results: Results) -> list[str]:
    """Milliseconds of one image: a row for each model, a column for each width and for the transformer."""
    cases = results.get("latency", {}).get("cases", ())
    if not cases:
        return []
    rows = [(f"`{case['name']}`", *map(with_quartiles, case["sides"].values())) for case in cases]
    title = (
        "## One image\n\nMilliseconds at each width, and of a ViT of as many parameters as the full width.\n"
    )
    return [title, markdown(("model", *cases[0]["sides"]), rows) + "\n"]


def plots(results: Results) -> list[str]:
    """Links to the plots whose results are there."""
    known = (
        ("width_time", "Time against multiply-adds, by width", "width_time.png"),
        ("block_time", "The parts of a block", "block_parts.png"),
    )
    return [f"![{title}](results/{file})\n" for name, title, file in known if name in results]


def figures(name: str, result: Mapping[str, Any]) -> str:
    """Every side and every ratio of a file."""
    commit = f", commit {result['commit'][:8]}" if result["commit"] else ""
    lines = [f"### {name}\n", f"`{result['command']}`, {result['seconds']} s{commit}.\n"]
    rows = []
    for case in result["cases"]:
        rounds = f"{case['name']}, {case['repeats']} rounds"
        if reason := case["settings"].get("left_out"):
            rows.append((case["name"], "left out", reason))
        for side, found in case["sides"].items():
            rows.append((rounds, side, f"{with_quartiles(found)} {case['unit']}"))
        for ratio, found in case["ratios"].items():
            rows.append((rounds, f"ratio: {ratio}", with_quartiles(found)))
    return "\n".join((*lines, markdown(("case", "", "median (quartiles)"), rows), ""))


def with_quartiles(found: Spread | None) -> str:
    """Three digits of the median, and of the quartiles in brackets."""
    if found is None:
        return "-"
    return f"{digits(found['median'])} ({digits(found['low'])} to {digits(found['high'])})"


if __name__ == "__main__":
    main()
