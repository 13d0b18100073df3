"""What the second encoding of a rerank or a gate can reuse of the first: three ways, on photos.

    .venv/bin/python benchmarks/second_encoding.py --photos PHOTOS --runs DIR

1. Once: the small query's own full-length vector ranks its shortlist, against full-width stored vectors.
2. Later blocks: a query runs the first blocks at the small width, and if it is doubtful the others at full
   width: a Mix'n'Match width. It is decided there, by how sure the classifier is of the unfinished features;
   or at the end of the small width, by its neighbours; or by an oracle, which knows what each query gains.
   Gates take the best threshold for the very queries that they are measured on: what does not pay like that
   does not pay.
3. Side by side: both widths at once. Multiply-adds that are the same, and the time of the projections of
   both, apart and with the weights that both have in common read once.

Every second training image is the gallery, the held-out ones are asked, same class relevant. Vectors are kept
in --runs, and a run that was stopped goes on. Writes results/second_encoding.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import torch
from adaptive import shown_gates, tell
from distilled import by_width, kept, split
from markdown_tables import markdown
from matmamba_datasets import Images, Splits, eval_transform, make_loader
from matmamba_retrieval import Encoded, EncodedQueries, Strategy
from matmamba_retrieval.planning.grid import Grid, strategies_of
from matmamba_retrieval.planning.planner import EXPAND
from matmamba_retrieval.planning.savings import is_reference
from matmamba_retrieval.planning.trials import Bench
from matmamba_retrieval.strategies.gate import RULES, gates
from matmamba_retrieval.strategies.gated import margins_of, small_hits
from matmamba_vision import MatMamba, keep_freed_memory
from matmamba_vision.checkpoint import Checkpoint, load_checkpoint
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.layers import Block
from matmamba_vision.measures import count_macs, measure_latency
from matmamba_vision.measures.environment import environment
from matmamba_vision.progress import Reporter
from matmamba_vision.studies.experiment import Experiment, Workshop
from matmamba_vision.studies.strategy_rows import StrategyRows
from matmamba_vision.widths.held_out import BatchReader
from measuring import QUICK, RESULTS, Plan, Ratio, compare, write_json
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

Row = dict[str, Any]
Values = NDArray[np.float64]
STUDENT = "matmamba_mini_patch16_128"
K, SHORT, SHORTLIST, GATED, BATCH = 10, 64, 200, 1000, 64
# Points that a gate may lose, of both.
LOSS, QUALITIES = 0.1, ("knn1", "map")
# Blocks between the places where a query may be sent on.
STEP = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Encode, try the three ways, print and write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    keep_freed_memory()
    student = load_checkpoint(options.student)
    images, runs = split(options.photos, options.step), options.runs
    small = [student.model.label(width) for width in student.model.trained_widths][1:]
    with opened(student, images, options) as experiment:
        # Rows of strategies hold times: they are measured anew in each run.
        with TemporaryDirectory() as scratch:
            once = strategies(experiment, Path(scratch))
        blocks = [row for width in small for row in later_blocks(student, experiment, images[1], width, runs)]
    result = {
        "command": "benchmarks/second_encoding.py --photos PHOTOS --runs DIR",
        "checkpoint": Path(options.student).name,
        "digest": student.digest,
        **environment(),
        "images": {"gallery": len(images[0]), "queries": len(images[1])},
        "loss": LOSS,
        "once": once,
        "blocks": blocks,
        "together": [together(student.model, width, QUICK if options.quick else Plan()) for width in small],
    }
    print(table(result))
    write_json(options.output, result)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--student", default=STUDENT, help="run, file or shipped model")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what is kept")
    parser.add_argument("--step", type=int, default=2, help="each so many training images one is stored")
    parser.add_argument("--output", type=Path, default=RESULTS / "second_encoding.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few rounds of timings")
    return parser.parse_args(arguments)


def opened(student: Checkpoint, images: tuple[Images, Images], options: argparse.Namespace) -> Experiment:
    """Images encoded at every trained width, and their gallery."""
    reader = BatchReader(embedder=Embedder(student), report=Reporter(tell), batch_size=BATCH)
    widths = [student.model.label(width) for width in student.model.trained_widths]
    about = {"name": "parquet", "root": options.photos.name, "step": options.step}
    return Workshop(options.runs, reader).open(Splits(*images), about, widths, ["full"])


def strategies(experiment: Experiment, folder: Path) -> list[Row]:
    """Each width alone, its shortlist reranked by the full width and by itself, and gates, by `evaluate`."""
    dim = experiment.gallery.spec.dim
    rows, widths = len(experiment.gallery), list(experiment.queries.by_width)
    grid = Grid(
        k=K,
        dims=[min(SHORT, dim)],
        shortlists=[SHORTLIST],
        strategies=["single-shot", "shortlist", "gated"],
        rerank_widths=["full", "same"],
        gate_shortlists=[GATED],
        gate_losses=[LOSS],
        gate_expands=[0, EXPAND],
    )
    tried = StrategyRows(experiment, grid, 0, folder, Reporter(tell))
    return tried.rows(strategies_of(grid, widths, dim, rows))


def later_blocks(
    student: Checkpoint, experiment: Experiment, queries: Images, small: str, runs: Path
) -> list[Row]:
    """A row for each number of blocks that run at the small width before the others run at full width."""
    model, asked = student.model, dict(experiment.queries.by_width)
    ends = [*range(STEP, len(model.heads), STEP)]
    for end in ends:
        # Which checkpoint made it is in the name: another one's vectors are not taken for its own.
        name = f"photos queries {student.digest} {small} for {end} blocks"
        xq = kept(runs, name, queries, by_width(student, mixed(model, small, end)))  # type: ignore[arg-type]
        asked[f"{small} for {end}"] = Encoded(xq, float(count_macs(model, mixed(model, small, end))), 0.0)
    bench = Bench(experiment.gallery, EncodedQueries(asked), K, experiment.labels)
    length = min(GATED, len(bench.gallery))
    strategy = Strategy.gated(width=small, dim=min(SHORT, model.embedding_dim), length=length)
    by_rule = margins_of(bench.gallery, RULES, small_hits(bench.gallery, strategy, bench.queries, K), K)
    sure = confidences(student, queries, small, ends)
    return [row_of(model, bench, small, end, by_rule, sure.get(end)) for end in (0, *ends)]


def mixed(model: MatMamba, small: str, end: int) -> list[int]:
    """Heads of a width that is small in the blocks before `end`, and full in those from there on."""
    return [*model.width(small).heads[:end], *model.heads[end:]]


def row_of(
    model: MatMamba, bench: Bench, small: str, end: int, by_rule: Mapping[str, Values], sure: Values | None
) -> Row:
    """What queries reach that run the first blocks at the small width, and what gates with these spend."""
    label = f"{small} for {end}" if end else "full"
    found = {name: bench.trial(Strategy.single_shot(width=name)).values for name in (small, label)}
    cheap, rest = (losses(bench, found[name]) for name in (small, label))
    encoded = bench.queries
    cosines = (encoded.encode(label).xq * encoded.encode("full").xq).sum(1)
    spent = costs(model, small, end)
    deciders = {"neighbours": [*gates(by_rule, cheap, rest).values()], "oracle": [-(cheap - rest).max(1)]}
    if sure is not None:
        deciders["early"] = [sure]
    quality = {name: float(values.mean()) for name, values in found[label].items()}
    row: Row = {"query_width": small, "blocks": end, "cosine": float(cosines.mean()), **quality, **spent}
    for decider, margins in deciders.items():
        # A gate that decides early runs the small width's later blocks for those alone that it keeps.
        stays, goes = spent["small"], spent["mixed" if decider == "early" else "small_and_rest"]
        row[decider] = gated(fewest(margins, cheap, rest), stays, goes, spent["full"])
    return row


def losses(bench: Bench, values: Mapping[str, NDArray[Any]]) -> Values:
    """(nq, M) what each query loses of the qualities against single-shot."""
    return np.stack([bench.reference[name].astype(float) - values[name] for name in QUALITIES], axis=1)


def fewest(by_rule: Sequence[Values], cheap: Values, rest: Values) -> float | None:
    """The least share of queries that are sent on while no loss exceeds the target; None if all do.

    Args:
        by_rule: (nq,) margins, for each rule that can be taken: those with the least are sent first.
        cheap: (nq, M) losses of queries that the small width answers.
        rest: (nq, M) of those that are sent on.
    """
    found = []
    for margins in by_rule:
        order, none = np.argsort(margins, kind="stable"), np.zeros((1, cheap.shape[1]))
        sent = np.vstack([none, rest[order].cumsum(0)])
        kept_back = np.vstack([cheap[order][::-1].cumsum(0)[::-1], none])
        # Equal margins share their fate; sums in another order may differ in the last bits.
        possible = np.r_[True, np.diff(margins[order]) > 0, True]
        fits = (sent + kept_back).max(1) <= len(order) * (LOSS / 100 + 1e-12)
        found += (np.flatnonzero(fits & possible)[:1] / len(order)).tolist()
    return min(found, default=None)


def gated(share: float | None, stays: float, goes: float, full: float) -> Row | None:
    """What a gate sends on, and its multiply-adds over those of full; None if it misses the target."""
    if share is None:
        return None
    return {"share": share, "macs_over_full": ((1 - share) * stays + share * goes) / full}


def costs(model: MatMamba, small: str, end: int) -> dict[str, float]:
    """Multiply-adds of the widths, the mixed one, and the small one with what it lacks for the mixed one."""
    before = sum(block_macs(model, small)[:end]) + patch_macs(model)
    known = {"full": "full", "small": small, "mixed": mixed(model, small, end)}
    found = {name: float(count_macs(model, width)) for name, width in known.items()}  # type: ignore[arg-type]
    # Of the mixed width, patches and first blocks are there already.
    return found | {"small_and_rest": found["small"] + found["mixed"] - before}


def block_macs(model: MatMamba, width: str) -> list[int]:
    """Multiply-adds of each block."""
    tokens = model.num_prefix_tokens + model.patch_embed.num_patches + 1
    return [
        block.macs(tokens, *active) for block, active in zip(model.stack, model.active(width), strict=True)
    ]


def patch_macs(model: MatMamba) -> int:
    """Multiply-adds of the patch embedding, which all widths share."""
    return model.patch_embed.num_patches * model.patch_embed.proj.weight.numel()


@torch.inference_mode()
def confidences(student: Checkpoint, queries: Images, small: str, ends: Sequence[int]) -> dict[int, Values]:
    """(nq,) by block: the largest probability by the classifier of the features behind so many blocks."""
    model, found = student.model, {end: list[Tensor]() for end in ends}
    for batch in make_loader(queries, eval_transform(model.input), BATCH):
        for end in ends:
            skipping = [*model.width(small).heads[:end], *[0] * (len(model.heads) - end)]
            found[end].append(model(batch.images, width=skipping).softmax(-1).amax(-1))
    return {end: torch.cat(parts).double().numpy() for end, parts in found.items()}


def together(model: MatMamba, small: str, plan: Plan) -> Row:
    """What both widths have in common of one image, and the projections' time apart and side by side."""
    per_block, full = block_macs(model, small), count_macs(model, "full")
    # The first block has the same input at both widths; behind it all inputs differ.
    same = patch_macs(model) + per_block[0]
    both = full + count_macs(model, small)
    sides = {name: partial(project, model, small, name == "together") for name in ("apart", "together")}
    ratios = [Ratio("together / apart", "together", "apart")]
    times = dict(zip(("full", "small"), measure_latency(model, ["full", small]), strict=True))
    case = compare(f"projections of both, {small}", sides, ratios, plan, {"width": small})
    return {
        "query_width": small,
        "same_macs": same,
        "patch_macs": patch_macs(model),
        "both_macs": both,
        "same_share": same / both,
        "projections": case,
        "encode_ms": {name: time.median for name, time in times.items()},
    }


def project(model: MatMamba, small: str, at_once: bool) -> None:
    """Projections into all blocks, one image at both widths; at once: what both have is multiplied once."""
    tokens = model.num_prefix_tokens + model.patch_embed.num_patches + 1
    x_LD = model.pos_embed.new_ones(tokens, model.embed_dim)
    both_LD = torch.cat([x_LD, x_LD])
    for block, heads in zip(model.stack, model.width(small).heads, strict=True):
        for weight_ID, rows in projections(block, heads):
            linear(both_LD if at_once else x_LD, weight_ID[:rows])
            if not at_once or rows < len(weight_ID):
                linear(x_LD, weight_ID[rows:] if at_once else weight_ID)


def projections(block: Block, heads: int) -> list[tuple[Tensor, int]]:
    """Weights (rows, D) at full width, each with the rows that so many heads have: of B and C, all."""
    weights = block.mixer.leading(block.heads, block.state_dim)
    of_heads = [weights[name].reshape(-1, weights[name].shape[-1]) for name in ("in_x", "in_z", "in_dt")]
    return [(weight, len(weight) * heads // block.heads) for weight in of_heads] + [
        (weights["in_BC"], len(weights["in_BC"]))
    ]


def table(result: Mapping[str, Any]) -> str:
    """The three ways, a table each."""
    images = result["images"]
    about = (
        f"{images['queries']:,} held-out photos asked in {images['gallery']:,} training photos with"
        f" `{result['checkpoint']}`, {result['machine']['threads']} thread of an"
        f" {result['machine']['processor']}; per cent, 1-NN with 95 % bootstrap intervals; times beside"
        " other work."
    )
    parts = [once_table(result["once"]), blocks_table(result["blocks"]), together_table(result["together"])]
    return "\n\n".join([about, *parts]) + "\n"


def once_table(rows: Sequence[Row]) -> str:
    """Small queries that rank their own shortlists, beside reranks by the full width, and gates."""
    full = next(row for row in rows if is_reference(row))
    shown = []
    for width in dict.fromkeys(row["query_width"] for row in rows):
        mine = [row for row in rows if row["query_width"] == width]
        shown += [(_title(row), row) for row in mine if row["strategy"] != "gated"]
        shown += shown_gates(mine, full | {"query_width": width})
    lines = []
    for title, row in shown:
        low, high = (100 * end for end in row["knn1_interval"])
        quality = (f"{100 * row['knn1']:.1f} ({low:.1f} to {high:.1f})", f"{100 * row['map']:.1f}")
        over = (f"{row[f'{cost}_over_single_shot']:.2f}" for cost in ("macs", "ms"))
        encoder = f"{row['encoder_macs'] / 1e6:,.0f}"
        title += ", expanded" * bool(row["expand"])
        lines.append((row["query_width"], title, *quality, f"{row['recall']:.3f}", encoder, *over))
    costs_over = (f"{cost} over single-shot" for cost in ("multiply-adds", "ms"))
    return markdown(("query", "strategy", "1-NN", "mAP@10", "recall", "encoder MMACs", *costs_over), lines)


def _title(row: Row) -> str:
    if row["strategy"] == "single-shot":
        return "single-shot" if row["query_width"] == "full" else "small width alone"
    by = "by itself" if row["widths"] or row["query_width"] == "full" else "by the full width"
    return f"{row['lengths'][0]} by {row['dims'][0]} dims, reranked {by}"


def blocks_table(rows: Sequence[Row]) -> str:
    """Queries that run their first blocks at the small width, and what gates behind these would spend."""
    lines = []
    for row in rows:
        reached = (f"{100 * row['knn1']:.1f}", f"{100 * row['map']:.1f}", f"{row['recall']:.3f}")
        mixed_macs = f"{row['mixed'] / row['full']:.2f}"
        gates_ = (_gate(row[name]) if name in row else "-" for name in ("early", "neighbours", "oracle"))
        first = (row["query_width"], row["blocks"], f"{row['cosine']:.3f}")
        lines.append((*first, *reached, mixed_macs, *gates_))
    deciders = ("gate in between", "gate by neighbours", "oracle")
    names = ("small", "its blocks", "cosine with full", "1-NN", "mAP@10", "recall", "MACs over full")
    return markdown((*names, *deciders), lines)


def _gate(found: Row | None) -> str:
    if found is None:
        return "not reached"
    return f"{found['macs_over_full']:.2f} ({100 * found['share']:.0f} %)"


def together_table(rows: Sequence[Row]) -> str:
    """What both widths have in common, and what it saves."""
    lines = []
    for row in rows:
        ratio = row["projections"]["ratios"]["together / apart"]
        spread = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        macs = (f"{row[name] / 1e6:,.1f}" for name in ("both_macs", "same_macs"))
        times = (f"{row['encode_ms'][name]:.1f}" for name in ("full", "small"))
        lines.append((row["query_width"], *macs, f"{100 * row['same_share']:.1f} %", spread, *times))
    names = ("small", "MMACs of both", "the same in both", "share", "projections, together / apart")
    return markdown((*names, "ms, full", "ms, small"), lines)


if __name__ == "__main__":
    main()
