"""Write benchmarks/README.md and its plots from the files in benchmarks/results and from notes.md.

    .venv/bin/python benchmarks/report.py

A row of the first table is data: where its value stands in which file, and what it should be. Results of
graphics processors are read from results/gpu.json, which has cases like those of the other files, with the
names given here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plots import draw_parts, draw_widths

FOLDER = Path(__file__).parent
RESULTS, NOTES, REPORT = FOLDER / "results", FOLDER / "notes.md", FOLDER / "README.md"
# In the order of `make bench`; `_1_thread` are those of --threads 1.
SCRIPTS = (
    "block_time",
    "transformers_mixer",
    "against_vit",
    "width_time",
    "training_step",
    "compiled_block",
    "peak_memory",
    "latency",
    "against_vit_1_thread",
    "width_time_1_thread",
    "gpu",
)
Results = Mapping[str, dict[str, Any]]
Spread = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A measured ratio and its target.

    Attributes:
        what: the comparison, in words.
        file: stem of the JSON file. case: name of the case there, or of several, up to a comma. ratio: its
            name; "" for the worst one.
        at_most, at_least: the target, one of them, or neither for what is told as information.
        aim: what would be better still.
    """

    what: str
    file: str
    case: str
    ratio: str = ""
    at_most: float | None = None
    at_least: float | None = None
    aim: float | None = None

    def read(self, results: Results) -> Spread | None:
        """Median and quartiles, or None if it was not measured."""
        ratios = {}
        for case in results.get(self.file, {}).get("cases", ()):
            if f"{case['name']},".startswith(f"{self.case},"):
                ratios |= {(case["name"], name): found for name, found in case["ratios"].items()}
        if self.ratio:
            return ratios.get((self.case, self.ratio))
        ranked = sorted(ratios.values(), key=lambda found: found["median"])
        return ranked[-1 if self.at_most else 0] if ranked else None

    def target(self) -> str:
        """Such as "at most 1.6, aim 1.35"."""
        if self.at_most is None and self.at_least is None:
            return "-"
        bound = f"at most {self.at_most}" if self.at_most else f"at least {self.at_least}"
        return bound + (f", aim {self.aim}" if self.aim else "")

    def verdict(self, found: Spread | None) -> str:
        """Reached, short by how much, or not run; by the median."""
        if found is None:
            return "not run"
        missing = 0.0
        if self.at_most is not None:
            missing = found["median"] / self.at_most - 1
        elif self.at_least is not None:
            missing = 1 - found["median"] / self.at_least
        else:
            return "information"
        return "reached" if missing <= 0 else f"**short by {max(0.1, 100 * missing):.1f} %**"


SMALL = "matmamba_small_patch16_224"
CPU_ROWS = (
    Row(
        "block, 197 tokens: time over that of its matrix products",
        "block_time",
        "width full",
        at_most=1.6,
        aim=1.35,
    ),
    *(
        Row(f"block at width {part}: the same", "block_time", f"width {part}")
        for part in ("1/2", "1/4", "1/8")
    ),
    Row("block: time over that of a ViT block", "block_time", "attention", "block / ViT block"),
    Row("block: time over that of attention alone", "block_time", "attention", "block / attention"),
    Row(
        "mixer: time of the transformers library over ours, their default chunk",
        "transformers_mixer",
        "mixer",
        "chunk 256 / ours",
        at_least=5,
    ),
    Row("mixer: the same, their best chunk", "transformers_mixer", "mixer", at_least=5),
    Row(
        "small, 224 px: images/s over a ViT of equal parameters",
        "against_vit",
        f"{SMALL}, 224 px",
        at_least=0.85,
        aim=1.0,
    ),
    Row("small, 1,024 px, 1 image: the same", "against_vit", f"{SMALL}, 1024 px", at_least=2.0),
    Row("tiny, 224 px: the same", "against_vit", "matmamba_tiny_patch16_224, 224 px"),
    Row("base, 224 px: the same", "against_vit", "matmamba_base_patch16_224, 224 px"),
    *(
        Row(
            f"width {part}: share of the time over share of the multiply-adds",
            "width_time",
            "nested",
            part,
            at_most=1.15,
        )
        for part in ("1/2", "1/4", "1/8")
    ),
    *(
        Row(f"width {part}, extracted: the same", "width_time", "extracted", part)
        for part in ("1/2", "1/4", "1/8")
    ),
    *(
        Row(
            f"on 1 thread: small, {pixels} px: images/s over a ViT",
            "against_vit_1_thread",
            f"{SMALL}, {pixels} px",
        )
        for pixels in (224, 1024)
    ),
    *(
        Row(f"on 1 thread: width {part}: time over multiply-adds", "width_time_1_thread", "nested", part)
        for part in ("1/2", "1/4", "1/8")
    ),
    Row(
        "training step of a block: time of the first version over the present",
        "training_step",
        "one process",
        at_least=2.5,
    ),
    Row("training step: the same, each with its own allocator", "training_step", "each in its own way"),
    *(
        Row(f"torch.compile: eager over compiled, {use}, worst width", "compiled_block", use)
        for use in ("inference", "training")
    ),
    Row("memory, inference: 16,385 tokens over 4,097", "peak_memory", "inference", at_most=4.4),
    Row("memory, training: the same, two blocks", "peak_memory", "training", at_most=4.4),
)
GPU_ROWS = (
    Row("width: share of the time over share of the multiply-adds, worst", "gpu", "widths", at_most=1.15),
    Row("memory, inference and training: 16,385 tokens over 4,097, worst", "gpu", "memory", at_most=4.4),
    *(
        Row(
            f"{name}, {use}: time of the published block on mamba-ssm over ours, worst width",
            "gpu",
            f"published, {name}, {use}",
            at_least=1.5,
        )
        for name in ("small", "base")
        for use in ("training", "inference")
    ),
    *(
        Row(
            f"small, {pixels:,} px: images/s over a ViT of equal parameters with flash attention, worst of "
            "inference and training",
            "gpu",
            f"{SMALL}, {pixels} px",
            at_least=bound,
        )
        for pixels, bound in ((224, 1.0), (1024, 2.0))
    ),
    Row("scan: share of the measured bandwidth or matrix rate that bounds it", "gpu", "scan", at_least=0.6),
)

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
| `results/small_gallery.json` | `.venv/bin/python benchmarks/small_gallery.py` | search time of one query, \
single-shot against shortlist, by gallery size |

`readme.py` writes the README's tables from these files (`make readme`); a test fails when they differ.
"""


def main() -> None:
    """Draw the plots, and write the page."""
    results = load_results(RESULTS)
    if "width_time" in results:
        draw_widths(results["width_time"]["cases"], RESULTS / "width_time.png")
    if "block_time" in results:
        draw_parts(results["block_time"]["cases"], RESULTS / "block_parts.png")
    REPORT.write_text(render(results, NOTES.read_text()))


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The recorded files of the scripts, as far as they are there."""
    files = {name: folder / f"{name}.json" for name in SCRIPTS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def render(results: Results, notes: str) -> str:
    """The page: targets, machines, notes, and all that was measured."""
    sections = [INTRODUCTION, "## Targets\n", targets_table(results), machines(results)]
    sections += [f"## Notes\n\n{notes.strip()}\n", *latency(results), *plots(results)]
    if results:
        sections += ["## All figures\n", *(figures(name, results[name]) for name in results)]
    return "\n".join([*sections, OTHERS])


def targets_table(results: Results) -> str:
    """Target beside what was reached."""
    rows = []
    for place, known in (("CPU", CPU_ROWS), ("GPU", GPU_ROWS)):
        for row in known:
            found = row.read(results)
            rows.append((row.what, place, row.target(), with_quartiles(found), row.verdict(found)))
    return markdown(("what", "where", "target", "reached", ""), rows) + "\n"


def machines(results: Results) -> str:
    """Which files were measured where, and with what: a line for each machine and set of versions."""
    lines: dict[str, list[str]] = {}
    for name, result in results.items():
        machine, versions = result["machine"], result["versions"]
        threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
        place = ", ".join(filter(None, (machine["gpu"], machine["processor"], threads)))
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


def digits(value: float) -> str:
    """At least three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def markdown(names: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    names = tuple(names)
    lines = [names, ("---",) * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
