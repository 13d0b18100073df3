"""What state that is carried from frame to frame does to embeddings, against frames by themselves.

    python benchmarks/streaming.py --photos PHOTOS --runs DIR
    python benchmarks/streaming.py --photos PHOTOS --runs LONG --steps 4000 3000 --every 2 --queries 600

Clips are made of photos: a view that pans and zooms, a cut, a view of another photo. None of the weights that
are shipped reads in raster order: in every second block they read a frame backwards. Such a network carries
its state within the order of each block (`within_frames`). In raster order it takes the same weights, trained
for --steps[0] steps on single frames of as many photos. Both then are trained for --steps[1] steps, on the
same frames, either by themselves or with state carried through each clip; to the same targets: for each frame
the shipped embedding of the whole photo that it shows, and the photo's class. Some frames are spoilt by noise
or blur.

Held-out photos of sources with several classes are asked, a clip of 4 frames of each, in one gallery of whole
photos by the shipped full width, which is the same for all. Frames are asked alone; by the mean of their own
embedding and those of up to three frames before it, which needs no state; or with carried state, which is
reset at each cut, or not. Spoilt is every second frame, and only those are counted. Training goes on where it
was stopped, and --runs keeps what is encoded; --train only trains, so that --orders
can be trained at once, by two processes. --costs measures times and multiply-adds alone, into what is
written. Writes results/streaming.json.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from carried_training import Course, Targets, frame_size, normalised, train
from clips import SPOILT, clip, spoil
from markdown_tables import digits, markdown
from matmamba_datasets import Images, Subset, eval_transform, make_loader
from matmamba_datasets.parquet import Parquet, parquet_files
from matmamba_datasets.sample import read_sample
from matmamba_retrieval.metrics import average_precision
from matmamba_vision import MatMamba, freeze, keep_freed_memory, load_checkpoint
from matmamba_vision.checkpoint import Checkpoint
from matmamba_vision.measures import count_macs
from matmamba_vision.measures.environment import environment
from matmamba_vision.measures.significance import with_intervals
from measuring import QUICK, RESULTS, Plan, Ratio, measure_case, write_json
from numpy.typing import NDArray
from PIL import Image

Row = dict[str, Any]
Vectors = NDArray[np.float32]
STUDENT = "matmamba_mini_patch16_128"
WIDTHS = ("full", "1/4", "1/8")
# Frames of a held-out photo; photos that are asked side by side, as one batch of streams.
CLIP, STREAMS, TOP, BATCH = 4, 20, 10, 64
ALONE, MEAN, RESET, ON = "alone", "mean of the last 4", "carried, reset at cuts", "carried through cuts"
CLEAN = "clean"
# What each network reads in.
ORDERS = {"within frames": "flip", "raster": "raster"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, encode, compare, print and write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    options.runs.mkdir(parents=True, exist_ok=True)
    student = load_checkpoint(STUDENT)
    if options.costs:
        known = json.loads(options.output.read_text())
        write_json(options.output, known | costs(student, Plan() if not options.quick else QUICK))
        return
    train_photos, queries = photos_of(options)
    stored = kept(
        options.runs / f"gallery{len(train_photos)}.npy", lambda: whole_photos(student, train_photos)
    )
    networks = trained(student, Targets(train_photos, torch.from_numpy(stored)), options)
    if options.train:
        return
    whole = kept(options.runs / f"whole{len(queries)}.npy", lambda: whole_photos(student, queries))
    rows = compared(networks, (train_photos, stored), (queries, whole), options.runs)
    result = {
        "command": command(options),
        "note": options.note,
        **environment(),
        "settings": {
            "gallery": len(train_photos), "queries": len(queries), "frames": CLIP, "steps": options.steps,
            "student": student.digest,
        },
        "rows": rows,
        **costs(student, QUICK if options.quick else Plan()),
    }  # fmt: skip
    write_json(options.output, result)
    print(page(result))


def command(options: argparse.Namespace) -> str:
    """As a reader would call it."""
    first, second = options.steps
    known = f"--every {options.every} --queries {options.queries} --orders {' '.join(options.orders)}"
    return f"benchmarks/streaming.py --photos PHOTOS --runs DIR --steps {first} {second} {known}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what is kept")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=[60, 16], help="of raster order, and of each on clips"
    )
    parser.add_argument("--every", type=int, default=8, help="training photos: every so many-th of all")
    parser.add_argument("--queries", type=int, default=60, help="held-out photos, at most")
    scans = tuple(ORDERS.values())
    parser.add_argument(
        "--orders", nargs="*", choices=scans, default=scans, help="to train networks in, or none"
    )
    parser.add_argument("--train", action="store_true", help="only train")
    parser.add_argument("--costs", action="store_true", help="measure costs alone, into what is written")
    parser.add_argument("--quick", action="store_true", help="measure costs in few rounds")
    parser.add_argument("--note", default="", help="what has to be said of the figures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "streaming.json")
    return parser.parse_args(arguments)


def photos_of(options: argparse.Namespace) -> tuple[Images, Images]:
    """Training photos, which are the gallery too, and held-out ones of sources with several classes."""
    files, _ = parquet_files(options.photos)
    parts = [[file for file in files if file.name.startswith("train") is train] for train in (True, False)]
    train_photos, held_out = map(Parquet, parts)
    sources = [name.partition("/")[0] for name in held_out.classes]
    several = [sources.count(source) > 1 for source in sources]
    asked = np.flatnonzero(np.array(several)[held_out.labels])
    chosen = np.sort(np.random.default_rng(0).permutation(asked)[: options.queries])
    return Subset(train_photos, np.arange(0, len(train_photos), options.every)), Subset(held_out, chosen)


def whole_photos(student: Checkpoint, photos: Images) -> Vectors:
    """(n, E): what the shipped full width says of photos, the targets and the gallery."""
    loader, frozen = make_loader(photos, eval_transform(student.model.input), BATCH), freeze(student.model)
    return np.concatenate([np.asarray(frozen.embed(batch.images)) for batch in loader])


def kept(file: Path, make: Callable[[], Any]) -> Vectors:
    """Vectors as they were made before, or made now."""
    if not file.is_file():
        partial = file.with_suffix(".partial.npy")
        np.save(partial, make())
        partial.replace(file)
        print(file, flush=True)
    found: Vectors = np.load(file)
    return found


def trained(
    student: Checkpoint, targets: Targets, options: argparse.Namespace
) -> dict[tuple[str, str], MatMamba]:
    """Networks by order and training: the shipped one, and what became of it."""
    assert student.classes == tuple(targets.photos.classes)
    first, second = options.steps
    found = {("within frames", "as shipped"): student.model}
    for order, scan in ORDERS.items():
        if scan not in options.orders:
            continue
        within = order == "within frames"

        def start(scan: str = scan, within: bool = within) -> MatMamba:
            model = reading(student.model, scan)
            if within:
                return model
            course = Course(
                name="raster", carried=False, within_frames=False, single=True, steps=first, rate=5e-4
            )
            return train(lambda: model, targets, course, options.runs)

        for carried in (False, True):
            how = "on clips, carried" if carried else "on clips, frames alone"
            name = f"{scan}-{'carried' if carried else 'alone'}"
            course = Course(name=name, carried=carried, within_frames=within, steps=second)
            found[order, how] = train(start, targets, course, options.runs)
    return found


def reading(model: MatMamba, scan: str) -> MatMamba:
    """The same weights, read in another order."""
    other = MatMamba(**model.arguments | {"scan": scan}, trained_widths=model.trained_widths)
    other.load_state_dict(model.state_dict())
    other.pretrained_cfg = model.pretrained_cfg
    return other.eval()


def clips_of(photos: Images, condition: str) -> Iterator[list[Image.Image]]:
    """A clip of each photo: its frames, every second one of them spoilt unless the condition is clean."""
    size = frame_size(photos)
    for number in range(len(photos)):
        chance = np.random.default_rng(number)
        frames = clip(read_sample(photos, number).image, CLIP, size, chance)
        for place in range(1, CLIP, 2):
            if condition in SPOILT:
                frames[place] = spoil(frames[place], condition, chance)
        yield frames


def encoded(model: MatMamba, width: str, photos: Images, condition: str, how: str, within: bool) -> Vectors:
    """(n, CLIP, E): embeddings of all frames; STREAMS videos, each of several photos with cuts between."""
    transform = eval_transform(model.input)
    clips = [torch.stack([transform(frame) for frame in frames]) for frames in clips_of(photos, condition)]
    found = torch.empty(len(photos), CLIP, model.embedding_dim)
    frozen = freeze(model, width) if how == ALONE else None
    stream = model.stream(width, within_frames=within)
    videos = min(STREAMS, len(photos))
    with torch.inference_mode():
        for first in range(0, len(photos), videos):
            shown = torch.stack(clips[first : first + videos])
            if how == RESET or len(shown) < videos:
                stream.reset()
            for place in range(CLIP):
                step = stream.step if frozen is None else frozen.embed
                found[first : first + len(shown), place] = step(shown[:, place])
    return found.numpy()


def mean_of_last(alone: Vectors) -> Vectors:
    """(n, CLIP, E): the mean of each frame's own embedding and of those before it in its clip."""
    frames = torch.from_numpy(alone)
    means = [normalised([*frames[:, : place + 1].unbind(1)]) for place in range(CLIP)]
    return torch.stack(means, dim=1).numpy()


def compared(
    networks: Mapping[tuple[str, str], MatMamba],
    gallery: tuple[Images, Vectors],
    queries: tuple[Images, Vectors],
    runs: Path,
) -> list[Row]:
    """A row for each network, width, condition and way of asking."""
    titles, groups = list[Row](), list[dict[str, NDArray[Any]]]()
    for (order, training), width in product(networks, WIDTHS):
        model = networks[order, training]
        for condition in (CLEAN, *(SPOILT if width in (WIDTHS[0], WIDTHS[-1]) else ())):
            ways = (ALONE, RESET, ON) if condition == CLEAN else (ALONE, RESET)
            for way in ways:
                name = f"{order} {training} {width} {condition} {way} {len(queries[0])}"
                file = runs / f"{name.replace('/', '-').replace(' ', '_').replace(',', '')}.npy"
                within = order == "within frames"
                given = (model, width, queries[0], condition, way, within)
                found = kept(file, partial(encoded, *given))
                title = {"order": order, "training": training, "width": width, "condition": condition}
                both = {way: found} | ({MEAN: mean_of_last(found)} if way == ALONE else {})
                for asked, vectors in both.items():
                    titles.append(title | {"asked": asked})
                    groups.append(quality(vectors, gallery, queries, condition))
    by_place = [{"knn1_by_frame": [round(float(v), 4) for v in one.pop("places")]} for one in groups]
    return [
        title | found | more
        for title, found, more in zip(titles, with_intervals(groups), by_place, strict=True)
    ]


def quality(
    vectors: Vectors, gallery: tuple[Images, Vectors], queries: tuple[Images, Vectors], condition: str
) -> dict[str, NDArray[Any]]:
    """By photo, of its frames that count: class of the nearest photo, mAP@10, whether it is found itself."""
    counted = slice(None) if condition == CLEAN else slice(1, None, 2)
    scores = vectors @ gallery[1].T
    best = np.argsort(-scores, axis=-1)[..., :TOP]
    relevant = gallery[0].labels[best] == queries[0].labels[:, None, None]
    own = np.einsum("nfe,ne->nf", vectors, queries[1]) > scores.max(-1)
    own &= (vectors @ queries[1].T).argmax(-1) == np.arange(len(vectors))[:, None]
    precision = average_precision(relevant.reshape(-1, relevant.shape[-1])).reshape(relevant.shape[:2])
    return {
        "knn1": relevant[:, counted, 0].mean(1),
        "map10": precision[:, counted].mean(1),
        "own_photo": own[:, counted].mean(1),
        "places": relevant[..., 0].mean(0),
    }


def costs(student: Checkpoint, plan: Plan) -> Row:
    """Milliseconds, multiply-adds and memory of a frame alone and streamed, in raster order."""
    model, rows = reading(student.model, "raster"), list[Row]()
    frame = model.random_images(1)
    for width in map(model.label, model.trained_widths):
        stream, frozen = model.stream(width), freeze(student.model, width)
        sides: dict[str, Callable[[], object]] = {
            "alone, by the model": partial(model.embed, frame, width),
            "streamed": partial(stream.step, frame),
            "alone, frozen": partial(frozen.embed, frame),
        }
        timers = {name: partial(processor_ms, work) for name, work in sides.items()}
        ratio = Ratio("streamed / alone", "streamed", "alone, by the model")
        with torch.inference_mode():
            case = measure_case(width, timers, [ratio], plan, {})
        macs = count_macs(model, width) - model.embedding_dim * model.num_classes
        known = {
            "macs": macs,
            "macs_streamed": macs + stream.carrying_macs,
            "state_bytes": stream.state_bytes,
        }
        rows.append({"width": width, **known, "sides": case["sides"], "ratios": case["ratios"]})
    return {"costs": rows, "costs_machine": environment()["machine"]}


def processor_ms(work: Callable[[], object]) -> float:
    """Milliseconds that the processor works for it: those of the clock where nothing else runs."""
    begun = time.process_time()
    work()
    return 1e3 * (time.process_time() - begun)


def quality_table(found: Mapping[str, Any]) -> str:
    """A row for each network and way of asking: 1-NN in per cent, clean by width, and of spoilt frames."""
    cells = {
        (row["order"], row["training"], row["asked"], row["condition"], row["width"]): row
        for row in found["rows"]
    }
    columns = [(CLEAN, width) for width in WIDTHS]
    columns += [(condition, width) for condition in SPOILT for width in (WIDTHS[0], WIDTHS[-1])]
    lines = []
    for row in dict.fromkeys(key[:3] for key in cells):
        values = [cells.get((*row, *column)) for column in columns]
        shares = ["-" if value is None else f"{100 * value['knn1']:.1f}" for value in values]
        clean = [cells[(*row, CLEAN, WIDTHS[0])][name] for name in ("map10", "own_photo")]
        lines.append((*row, *shares, *(f"{100 * value:.1f}" for value in clean)))
    names = [f"{condition}, {width}" for condition, width in columns]
    return markdown(("order", "trained", "frames asked", *names, "mAP@10, full", "own photo, full"), lines)


def cost_table(found: Mapping[str, Any]) -> str:
    """A row for each width."""
    lines = []
    for row in found["costs"]:
        ms = [f"{row['sides'][name]['median']:.2f}" for name in row["sides"]]
        macs = [f"{row[name] / 1e6:.1f}" for name in ("macs", "macs_streamed")]
        ratio = f"{row['ratios']['streamed / alone']['median']:.2f}"
        lines.append((row["width"], *macs, *ms, ratio, digits(row["state_bytes"] / 1024)))
    sides = [f"ms {name}" for name in found["costs"][0]["sides"]]
    names = ("width", "MMACs alone", "MMACs streamed", *sides, "ms streamed / alone", "state, KiB")
    return markdown(names, lines)


def largest_interval(found: Mapping[str, Any]) -> float:
    """Half of the widest 95 % interval of a 1-NN, in points."""
    return max(50 * (row["knn1_interval"][1] - row["knn1_interval"][0]) for row in found["rows"])


def page(found: Mapping[str, Any]) -> str:
    """Both tables, and what was done."""
    known = found["settings"]
    first, second = known["steps"]
    about = (
        f"1-NN in per cent, by the class of the nearest of {known['gallery']:,} photos; clips of"
        f" {known['frames']} frames of {known['queries']} held-out photos; 95 % intervals are up to"
        f" ±{largest_interval(found):.1f} points, of the same photos in all rows. Raster order:"
        f" {first} steps of 32 frames before; on clips: {second} steps. Milliseconds of"
        f" the processor, one thread of an {found['costs_machine']['processor']}. "
    )
    lines = textwrap.wrap(about + found["note"], 110, break_on_hyphens=False, break_long_words=False)
    return "\n".join([quality_table(found), "", cost_table(found), "", *lines, ""])


if __name__ == "__main__":
    main()
