"""Plan past one machine: what 1e8 or 1e9 images take, by a model (capacity.py) that is checked against runs.

With --predict, answers for numbers of one's own, from the figures in results/scale.json. Without it,
measures: small runs give the figures (one worker on a few images; galleries of 50,000, 150,000 and 200,000
vectors; decoding at two sizes), then the same public calls are made at 1, 2 and 4 workers, and with 10,000,
100,000 and 1,000,000 vectors, and each is written beside what the model said. Writes results/scale.json;
takes about 8 minutes and 3 GB of disk, in the folder for temporary files (TMPDIR).

Rates of encoders are those that other benchmarks measured (latency_1_thread.json, photos.json, gpu.json).
Nothing here measures watts: figures are core hours and GPU hours. With the watts of your own machines,
--core-watts and --gpu-watts, joules of an image and kilowatt hours follow from them.

examples:
  python benchmarks/scale.py --predict --images 1e9
  python benchmarks/scale.py --predict --images 1e9 --width 1/8 --machines 20 --cores 64
  python benchmarks/scale.py --predict --images 1e8 --encoder matmamba_small_patch16_224 --gpus 8 --cores 96
  python benchmarks/scale.py --predict --images 1e9 --width 1/8 --core-watts 6.5
  python benchmarks/scale.py --predict --images 1e8 --prefix 32 --dim 256 --queries 2000 --json
  python benchmarks/scale.py --quick --output small.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from capacity import Encoder, Indexing, Machines, Searching, Wanted, energy, indexing_plan, search_plan, taken

RESULTS = Path(__file__).parent / "results"
# By encoder: the file with what one image takes on one core, and how its rows are named.
SHIPPED = "matmamba_mini_patch16_128"
WIDTHS = ("full", "1/2", "1/4", "1/8")
CELLS = ("ivf", "ivfpq", "rabitq")


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict, or measure and check; 0, or 2 for numbers that cannot be."""
    options = parse(arguments)
    if options.predict:
        try:
            said = predicted(options)
        except (ValueError, OSError) as error:
            print(f"scale.py: error: {error}", file=sys.stderr)
            return 2
        print(json.dumps(said, indent=1) if options.json else in_words(said))
        return 0
    # Here, because it loads torch.
    import scale_runs

    start = time.perf_counter()
    kept = json.loads(options.figures.read_text()) if options.search_only else None
    result = scale_runs.measured(options.quick, kept)
    result = {"seconds": round(time.perf_counter() - start), **result}
    print(json.dumps(result["checks"], indent=1))
    if options.output:
        scale_runs.write_json(options.output, result)
        print(f"{result['seconds']} s, written to {options.output}")
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/scale.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny runs; writes only to a given --output")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/scale.json")
    parser.add_argument(
        "--search-only", action="store_true", help="measure search alone; the rest stays as --figures has it"
    )
    asked = parser.add_argument_group("predictions")
    asked.add_argument("--predict", action="store_true", help="say what the numbers below take")
    asked.add_argument("--figures", type=Path, default=RESULTS / "scale.json", help="that were measured")
    asked.add_argument("--json", action="store_true", help="all of it, for programs")
    asked.add_argument("--images", type=float, default=1e9, help="such as 1e9")
    asked.add_argument("--encoder", default=SHIPPED, help=f"one of {', '.join(encoders())}")
    asked.add_argument("--width", default="full", help="of the encoder that indexes: a model extracted at it")
    asked.add_argument("--query-width", default="1/8", help="that encodes queries")
    asked.add_argument("--edge", type=int, default=512, help="of an image's file, in pixels")
    asked.add_argument("--dim", type=int, default=256, help="of the stored vectors")
    asked.add_argument("--prefix", type=int, default=64, help="dims of the shortlist")
    asked.add_argument("--recipe", default="ivfpq", choices=CELLS, help="of its index")
    asked.add_argument("--effort", type=int, default=16, help="cells that a query looks into")
    asked.add_argument("--shortlist", type=int, default=200, help="rows that are reranked")
    asked.add_argument("--queries", type=float, default=100, help="a second")
    asked.add_argument("--machines", type=int, default=10)
    asked.add_argument("--cores", type=int, default=32, help="of a machine")
    asked.add_argument("--gpus", type=int, default=0, help="of a machine; H200, as measured")
    asked.add_argument("--memory-gb", type=float, default=256, help="of a machine")
    asked.add_argument("--read-mb", type=float, default=1000, help="MB a machine reads in a second")
    asked.add_argument("--random-reads", type=float, default=200_000, help="rows a disk finds in a second")
    asked.add_argument("--core-watts", type=float, help="of a busy core of yours, with its share of the rest")
    asked.add_argument("--gpu-watts", type=float, help="of a busy GPU of yours")
    options = parser.parse_args(arguments)
    words = {word.partition("=")[0] for word in (sys.argv[1:] if arguments is None else arguments)}
    known = {name for action in asked._group_actions for name in action.option_strings} - {"--figures"}
    if not options.predict and (lone := words & known):
        # It would measure for minutes, and write its results over those that are there.
        parser.error(f"{min(lone)} is for predictions: add --predict")
    if options.output is None and not options.quick:
        options.output = RESULTS / "scale.json"
    return options


def predicted(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers of a command line take.

    Raises:
        ValueError: a number or a name that cannot be.
        OSError: there are no figures.
    """
    for name in ("images", "edge", "dim", "prefix", "effort", "shortlist", "queries", "machines", "cores"):
        if not 1 <= getattr(options, name) < math.inf:
            raise ValueError(f"--{name} {getattr(options, name)} is not at least 1")
    if options.gpus < 0:
        raise ValueError(f"--gpus {options.gpus} is below 0")
    for name in ("memory_gb", "read_mb", "random_reads", "core_watts", "gpu_watts"):
        if (value := getattr(options, name)) is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} {value:g} is not above 0")
    if options.prefix > options.dim:
        raise ValueError(f"--prefix {options.prefix} is longer than --dim {options.dim}")
    figures = json.loads(options.figures.read_text())["figures"]
    encoder, query = (
        encoder_of(options.encoder, width, figures, options.edge)
        for width in (options.width, options.query_width)
    )
    if query.core_ms is None:
        raise ValueError(f"{options.encoder} was not measured on a core: no query's time is known")
    machines = Machines(
        number=options.machines,
        cores=options.cores,
        gpus=options.gpus,
        memory=options.memory_gb * 1e9,
        read_bytes=options.read_mb * 1e6,
        random_reads=options.random_reads,
    )
    wanted = Wanted(
        images=options.images,
        image_bytes=file_bytes(figures, options.edge),
        dim=options.dim,
        prefix=options.prefix,
        recipe=options.recipe,
        effort=options.effort,
        candidates=options.shortlist,
        queries=options.queries,
        query_ms=query.decoded_ms + query.core_ms,
    )
    made = indexing_plan(wanted, encoder, machines, taken(Indexing, figures["indexing"]))
    return {
        "asked": {**asdict(wanted), **asdict(machines), "encoder": options.encoder, "width": options.width},
        "indexing": made,
        "energy": energy(made, wanted.images, options.core_watts, options.gpu_watts),
        "search": search_plan(wanted, machines, taken(Searching, figures["search"])),
    }


def read(name: str) -> dict[str, Any]:
    """A file of results."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def encoders() -> dict[str, dict[str, dict[str, float]]]:
    """What was measured of each encoder by width: ms of an image on one core, images a second on one GPU."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case in read("latency_1_thread")["cases"]:
        # A core that indexes does not rest.
        if case["settings"]["in_a_row"] > 1:
            times = {width: {"core_ms": case["sides"][width]["median"]} for width in WIDTHS}
            found[case["settings"]["model"]] = times
    for row in read("photos")["costs"]:
        who, _, width = row["encoder"].partition(" ")
        if who == "student":
            found.setdefault(SHIPPED, {})[width] = {"core_ms": row["ms"]}
    for case in read("gpu")["cases"]:
        if case["name"] == "widths":
            known = case["settings"]
            for width in WIDTHS:
                ms = case["sides"][f"inference {width}"]["median"]
                found[known["model"]][width]["gpu_per_second"] = 1e3 * known["batch"] / ms
    return found


def encoder_of(name: str, width: str, figures: dict[str, Any], edge: int) -> Encoder:
    """An encoder for images of an edge.

    Raises:
        ValueError: none of that name, or not at that width.
    """
    known = encoders()
    if name not in known:
        raise ValueError(f"--encoder {name} is none of {', '.join(known)}")
    if width not in known[name]:
        raise ValueError(f"{name} was not measured at width {width}: {', '.join(known[name])} were")
    of_width = known[name][width]
    decoding = figures["decoding"]
    return Encoder(
        core_ms=of_width.get("core_ms"),
        gpu_per_second=of_width.get("gpu_per_second"),
        decoded_ms=decoding["ms"] + decoding["ms_per_megapixel"] * edge * edge / 1e6,
    )


def file_bytes(figures: dict[str, Any], edge: int) -> float:
    """Bytes of an image's file of an edge."""
    return float(figures["decoding"]["bytes_per_pixel"]) * edge * edge


def energy_in_words(energy: dict[str, float] | None) -> str:
    """What indexing takes of a socket."""
    if energy is None:
        return "watts: not measured here; give those of your own: --core-watts, and --gpu-watts with GPUs"
    return (
        f"by the watts that you gave: {energy['joules_an_image']:.3g} J an image,"
        f" {energy['kilowatt_hours']:,.1f} kWh of indexing"
    )


def in_words(said: dict[str, Any]) -> str:
    """A prediction as people read it."""
    asked, made, search = said["asked"], said["indexing"], said["search"]
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in made["rates_of_a_machine"].items())
    fits = (
        "fit into memory" if search["vectors_fit"] else "do not fit into memory, and are read from the disk"
    )
    index = "" if search["index_fits"] else "; the index does not: take more machines or a shorter prefix"
    return "\n".join(
        (
            f"{asked['images']:.3g} images of {asked['image_bytes'] / 1e3:.0f} kB, {asked['encoder']} at"
            f" width {asked['width']}, {asked['number']} machines of {asked['cores']} cores and"
            f" {asked['gpus']} GPUs",
            "",
            f"indexing: {made['hours']:,.1f} hours at {made['images_per_second']:,.0f} images/s",
            f"  {made['core_hours']:,.0f} core hours, {made['gpu_hours']:,.0f} GPU hours,"
            f" {made['read_tb']:,.1f} TB read",
            f"  images/s of one machine by stage: {rates}; the bottleneck: {made['bottleneck']}",
            f"  merging all into one gallery: {made['merge_into_one_hours']:,.1f} hours of one process",
            f"  building the shortlists: {search['build_core_hours']:,.0f} core hours, adding rows:"
            f" {search['add_core_hours']:,.0f}",
            f"gallery: {search['disk_tb']:,.2f} TB of disk, {search['memory_gb']:,.1f} GB of memory on each"
            f" machine for {search['rows_of_a_machine']:,.0f} rows; the vectors {fits}{index}",
            f"search: {search['query_ms']:,.1f} ms a query, {search['search_ms']:,.1f} of them search,"
            " on one core of each machine",
            f"  {search['queries_per_second']:,.0f} queries/s, {search['per_core']:,.2f} a core; the"
            f" bottleneck: {search['bottleneck']}; for {asked['queries']:,.0f} queries/s:"
            f" {search['copies_for_queries']} copies of all machines",
            "",
            energy_in_words(said["energy"]),
            f"assumed: {asked['read_bytes'] / 1e6:,.0f} MB/s read by a machine,"
            f" {asked['random_reads']:,.0f} rows/s found on a disk; see docs/scale.md",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
