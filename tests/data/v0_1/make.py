"""Makes the data of version 0.1 that lies beside this file: pictures, a run, galleries, plans, answers.

It was run once, by the code of version 0.1.0, with

    OMP_NUM_THREADS=1 python tests/data/v0_1/make.py

and refuses any other version: what it made is kept as it was, and `tests/test_version_0_1.py` reads it with
the code of today. Everything is made in the folder `PLACE`, whose name therefore stands in galleries and
answers.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from matmamba_retrieval import Gallery
from matmamba_retrieval.search.gate import Gate
from matmamba_retrieval.search.settings import Plan, Settings
from matmamba_vision import __version__, save_checkpoint
from matmamba_vision.cli.main import main
from PIL import Image

HERE = Path(__file__).parent
PLACE = Path("/srv/matmamba-0.1")
ARCHITECTURE = {
    "img_size": 16,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 8,
    "head_dim": 4,
    "d_state": 8,
    "num_classes": 3,
}
TRAIN = (
    "train --model.init start --data.name folder --data.root images --data.batch-size 8 --optim.epochs 4"
    " --optim.lr 0.003 --seed 1 --threads 1"
)
INDEX = "index --checkpoint run --images images --threads 1"
SELECT = "select --checkpoint run --budget gmacs=0.00007 --evaluations 20 --threads 1"
VALIDATE = "validate --threads 1 --json"
# The run is named, because galleries know it where it was made.
SEARCH = "search --threads 1 --json --checkpoint run --gallery"
QUERY = "queries/rings/00.png"
QUERIES = f"{QUERY} queries/checks/01.png queries/stripes/02.png"
VECTORS = "search --threads 1 --json --gallery vectors --vectors asked.npy --model-name elsewhere --k 3"
SHORTLIST = "--strategy shortlist --query-width 1/4 --dim 8 --shortlist 12 --k 4"
# What was asked, by name: one or more commands, of which the last one's answer is kept.
ASKED = {
    "search_single_shot": [f"{SEARCH} gallery {QUERIES} --strategy single-shot --k 5"],
    "search_shortlist": [f"{SEARCH} gallery {QUERIES} {SHORTLIST}"],
    "search_funnel": [f"{SEARCH} gallery {QUERIES} --strategy funnel --dim 4 --k 3"],
    "search_by_plan": [f"{SEARCH} gallery queries --k 3"],
    "search_planned_single_shot": [f"{SEARCH} planned/single-shot queries --k 3"],
    "search_planned_shortlist": [f"{SEARCH} planned/shortlist queries --k 3"],
    "search_planned_funnel": [f"{SEARCH} planned/funnel queries --k 3"],
    "search_planned_gated": [f"{SEARCH} planned/gated queries --k 3"],
    "search_planned_gated_again": [f"{SEARCH} planned/gated-again queries --k 3"],
    "search_by_id": [f"{SEARCH} gallery --like rings/01.png --like checks/03.png --k 4"],
    "search_by_id_shortlist": [f"{SEARCH} gallery --like rings/01.png --strategy shortlist --k 4"],
    "search_unlike": [f"{SEARCH} gallery {QUERY} --not rings/02.png --not queries/checks/01.png --k 4"],
    "search_where": [f"{SEARCH} gallery {QUERY} --where \"label = 'rings' AND year >= 2021\" {SHORTLIST}"],
    "search_min_score": [f"{SEARCH} gallery {QUERY} --min-score 0.97 --k 8"],
    "search_more_than_there_are": [f"{SEARCH} gallery {QUERY} --k 500"],
    "search_a_missing_file": [f"{SEARCH} gallery {QUERY} queries/none.png --k 1"],
    "search_an_unknown_id": [f"{SEARCH} gallery --like none"],
    "search_vectors": [VECTORS],
    "search_vectors_shortlist": [f"{VECTORS} --strategy shortlist"],
    "gallery_info": ["gallery info gallery --json"],
    "gallery_info_gated": ["gallery info planned/gated --json"],
    "gallery_info_vectors": ["gallery info vectors --json"],
    "gallery_list": ["gallery list gallery --json"],
    "gallery_list_where": ["gallery list gallery --where 'year = 2022 AND label IS NOT NULL' --json"],
    "gallery_verify": ["gallery verify gallery"],
    "gallery_verify_vectors": ["gallery verify vectors"],
    "gallery_after_delete": [
        "gallery delete gallery --ids rings/00.png --yes",
        "gallery list gallery --json",
    ],
    "gallery_after_compact": ["gallery compact gallery", f"{SEARCH} gallery {QUERY} {SHORTLIST}"],
    "gallery_after_import": [
        "gallery import exported.parquet imported",
        f"{SEARCH} imported {QUERY} --k 6",
    ],
    "gallery_after_more": [
        "index --checkpoint run --images queries --prefix more/ --gallery gallery --threads 1",
        f"{SEARCH} gallery {QUERY} --k 5",
    ],
    "gallery_made_again": [
        f"{INDEX} --gallery again --dims 4 8 --widths 1/4",
        f"{SEARCH} again queries {SHORTLIST}",
    ],
    "gallery_after_relocate": [
        f"gallery relocate gallery {PLACE}/images images",
        "gallery list gallery --json",
    ],
    "merged": [
        f"{INDEX} --gallery shard1 --shard 1/2",
        f"{INDEX} --gallery shard2 --shard 2/2",
        "merge shard1 shard2 --into both",
        f"{SEARCH} both {QUERY} --k 5",
    ],
    "validate": [f"{VALIDATE} --checkpoint run"],
    "validate_a_slice": [f"{VALIDATE} --checkpoint run --widths full run/select/slice.yaml"],
    "validate_extracted": [f"{VALIDATE} --checkpoint extracted"],
    "validate_extracted_now": [
        "extract --checkpoint run --width 1/2 --output now",
        f"{VALIDATE} --checkpoint now",
    ],
    "select": [f"{SELECT} --output chosen --json"],
    "evaluate": ["evaluate --checkpoint run --grid grid.yaml --threads 1 --json"],
    "duplicates": ["duplicates --gallery gallery --threshold 0.95 --threads 1 --json"],
    "duplicates_where": [
        "duplicates --gallery gallery --threshold 0.95 --where \"label = 'rings'\" --threads 1 --json"
    ],
    "knn_label": ["knn-label --gallery gallery --k 5 --threads 1 --json"],
    "data_verify": ["data verify --data.name folder --data.root images"],
}
# Plans that `matmamba plan` may choose, whatever is fastest on a machine.
PLANNED = {
    "single-shot": Settings("single-shot", "1/2"),
    "shortlist": Settings("shortlist", "1/4", (8,), (12,)),
    "funnel": Settings("funnel", "1/8", (4, 8), (20, 10), ("1/8", "1/4")),
    "gated": Settings("gated", "1/4", (8,), (12,), gate=Gate("gap", 0.01), expand=3),
    "gated-again": Settings(
        "gated", "1/4", (8,), (12,), gallery_width="1/4", gate=Gate("vote", 0.45), again=True
    ),
}
GRID = """\
k: 5
query_widths: [full, 1/4]
gallery_widths: [full]
dims: [8]
shortlists: [12]
strategies: [single-shot, shortlist, funnel, gated]
funnels:
  - {dims: [4, 8], lengths: [20, 10]}
indexes:
  - {index: Flat}
gate_dims: [8]
gate_shortlists: [12]
gate_losses: [5]
gate_qualities: [knn1]
gate_sure: false
gate_expands: [0]
folds: 2
"""


def run(command: str) -> None:
    """A command that has to succeed, without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(shlex.split(command)) == 0, command


def draw() -> None:
    """Three patterns in many colours, 16 x 16 pixels: images, and queries of the same classes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    patterns = {"checks": x // 3 + y // 3, "rings": np.hypot(x - 8, y - 8) // 3, "stripes": (x + y) // 3}
    for name, pattern in patterns.items():
        for folder, count in (("images", 14), ("queries", 4)):
            for number in range(count):
                colour, noise = rng.integers(80, 196, 3), rng.integers(0, 60, (16, 16, 3))
                pixels = np.roll(pattern, number, axis=1)[..., None] % 2 * colour + noise
                file = Path(folder) / name / f"{number:02d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    with Path("known.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "year", "camera"))
        for name in patterns:
            rows.writerows(
                (f"{name}/{n:02d}.png", 2019 + n % 5, "old" if n % 2 else "new") for n in range(12)
            )


def train() -> None:
    """A run of four epochs; its checkpoint in the third stays, to be continued from."""
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    model = timm.create_model("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **ARCHITECTURE)
    save_checkpoint(Path("start"), model, ("checks", "rings", "stripes"), {})
    run(f"{TRAIN} --output run")
    run(SELECT)
    run("extract --checkpoint run --width 1/2 --output extracted")
    shutil.rmtree(max(Path("run/checkpoints").iterdir()))
    shutil.rmtree("run/tensorboard")
    for picture in list(Path("run").rglob("*.png")):
        picture.unlink()


def fill() -> None:
    """The galleries: of the images, with one deleted; with each plan; of vectors made elsewhere."""
    run(f"{INDEX} --gallery gallery --dims 4 8 --widths 1/4 --metadata known.csv")
    run("gallery delete gallery --ids stripes/07.png --yes")
    with Gallery(Path("gallery")) as gallery:
        spec = gallery.spec
    for name, settings in PLANNED.items():
        shutil.copytree("gallery", f"planned/{name}")
        with Gallery(Path("planned") / name, write=True) as gallery:
            gallery.save_plan(Plan(settings, spec, 3, "recall >= 0.9", {"recall": 0.95, "ms": 1.5}).to_json())
    run("plan --gallery gallery --queries queries --target recall=0.9 --k 3 --threads 1")
    run("gallery export gallery exported.parquet")
    vectors = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save("given.npy", vectors[:60])
    np.save("asked.npy", vectors[58:])
    run("index --vectors given.npy --model-name elsewhere --gallery vectors --factory HNSW8")
    Path("grid.yaml").write_text(GRID)


def ask(name: str, commands: list[str]) -> dict[str, Any]:
    """Keeps what the last of some commands prints, all of them run in a copy of what there is."""
    copy = PLACE.with_name("copy")
    shutil.copytree(PLACE, copy)
    os.chdir(copy)
    for command in commands[:-1]:
        run(command)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(shlex.split(commands[-1]))
    os.chdir(PLACE)
    shutil.rmtree(copy)
    if "--json" in commands[-1]:
        Path("answers", f"{name}.json").write_text(said.getvalue().replace(str(copy), str(PLACE)))
    return {"commands": commands, "status": status}


def machine() -> dict[str, str]:
    """What the last bit of a sum depends on."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    cpu = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    packages = {name: version(name) for name in ("torch", "numpy", "faiss-cpu", "pillow", "timm")}
    capability = torch.backends.cpu.get_cpu_capability()
    kind = f"{cpu['cpu family']} {cpu['model']}"
    return {"processor": cpu["model name"], "capability": capability, "kind": kind, **packages}


def make() -> None:
    """All of it, in `PLACE`; then it comes here."""
    assert __version__ == "0.1.0", f"this is version {__version__}"
    PLACE.mkdir()
    os.chdir(PLACE)
    draw()
    train()
    fill()
    Path("answers").mkdir()
    asked = {name: ask(name, commands) for name, commands in ASKED.items()}
    about = {
        "version": __version__,
        "place": str(PLACE),
        "machine": machine(),
        "train": TRAIN,
        "asked": asked,
    }
    Path("about.json").write_text(json.dumps(about, indent=1))
    shutil.copytree(PLACE, HERE, dirs_exist_ok=True)
    shutil.rmtree(PLACE)


if __name__ == "__main__":
    make()
