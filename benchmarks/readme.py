"""Write what is generated: README.md's tables of models and results, and the benchmark report.

The demo's results are recorded by `make demo record`, those of the report by `make bench`, those of the
small models by benchmarks/ablation.py and benchmarks/nested_quality.py, those of retrieval by
benchmarks/adaptive.py, benchmarks/million.py and benchmarks/growth.py, those of a student by
benchmarks/distilled.py.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import ablation
import matmamba_vision
import nested_quality
import report
import retrieval_tables
import timm
from matmamba_vision.measures import count_macs, count_parameters
from matmamba_vision.studies.evaluation_plots import draw_query_encoder
from report import markdown

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
DEMO = RESULTS / "demo"
RECORDED = ("results.json", "widths.png", "retrieval.png", "examples.png")


def main() -> None:
    """Record a demo if asked, and bring the README up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--record", type=Path, metavar="DEMO", help="folder of a demo whose results are to be kept"
    )
    source = parser.parse_args().record
    if source:
        DEMO.mkdir(parents=True, exist_ok=True)
        for name in RECORDED:
            shutil.copyfile(source / name, DEMO / name)
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))
    picture = draw_query_encoder(read("adaptive") | {"settings": {"k": 10}})
    (RESULTS / "adaptive.png").write_bytes(picture)
    report.main()


def render(text: str) -> str:
    """The README with each block between `<!-- begin NAME -->` and `<!-- end NAME -->` made anew."""
    results = json.loads((DEMO / "results.json").read_text())
    blocks = {
        "models": models_table(),
        "nested": nested_quality.table(read("nested_quality")),
        "nested_tinyimagenet": nested_quality.table(read("nested_quality_tinyimagenet")),
        "ablation": ablation.table(read("ablation")),
        "demo": demo_tables(results),
        "adaptive": retrieval_tables.adaptive_table(read("adaptive")),
        "adaptive_tinyimagenet": retrieval_tables.adaptive_table(read("adaptive_tinyimagenet")),
        "million": retrieval_tables.million_table(read("million")),
        "photos": retrieval_tables.photos_table(read("photos")),
        "growth": retrieval_tables.growth_table(read("growth")),
    }
    for name, block in blocks.items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, rf"\g<1>{block}\n\g<2>", text, flags=re.DOTALL)
    return text


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
    strategies = [
        (
            row["strategy"],
            row["query_width"],
            row["dim"],
            row["shortlist"] or "-",
            *quality(row, "top1", "map10", "ann_recall10"),
            f"{row['encode_ms']:.2f}",
            f"{row['search_ms']:.2f}",
        )
        for row in results["retrieval"]
    ]
    machine, seconds = results["machine"], sum(results["seconds"].values())
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return "\n".join(
        (
            markdown(("width", "parameters", "MMACs", "top-1", "1-NN", "mAP@10"), widths),
            "",
            markdown(
                ("strategy", "query", "dim", "K", "top-1", "mAP@10", "of exact 10", "encode ms", "search ms"),
                strategies,
            ),
            "",
            f"{seconds:.0f} s and {results['peak_memory_mib']} MiB on {machine['processor']},"
            f" {threads}, torch {results['versions']['torch']}, seed {results['seed']}.",
        )
    )


def quality(row: dict[str, Any], *names: str) -> tuple[str, ...]:
    """Shares with three digits."""
    return tuple(f"{row[name]:.3f}" for name in names)


if __name__ == "__main__":
    main()
