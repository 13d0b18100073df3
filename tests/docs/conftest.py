"""A folder with everything that the examples name, tiny: PHOTOS, query.jpg, a run, galleries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path

import documents
import matmamba_vision as mv
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
from encoders_made import clip_folder
from made_videos import at_rate, cuts, write_video
from matmamba_retrieval import Gallery
from matmamba_vision.cli import main
from matmamba_vision.serving.settings import Settings
from matmamba_vision.video import frame_search
from PIL import Image
from timm.models._hub import save_for_hf

# What makes a training end within seconds.
SMALL = ["--model.name", "matmamba_nano_patch4_32", "--model.img-size", "16", "--data.workers", "0"]
SMALL += ["--data.batch-size", "64", "--optim.warmup-epochs", "0", "--threads", "1"]
IMAGES = 14


def photo(seed: int, level: int) -> Image.Image:
    """A small picture of noise, dark or bright."""
    pixels = np.random.default_rng(seed).integers(0, 55, (24, 20, 3)) + level
    return Image.fromarray(pixels.astype(np.uint8))


def save_photos(root: Path, names: tuple[str, str] = ("cats", "dogs"), seed: int = 0) -> None:
    """Two folders of images: PHOTOS/cats/0.jpg and so on, which is also called 0000.jpg."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(IMAGES):
            stem = f"{number:04d}" if number < IMAGES // 2 else str(number - IMAGES // 2)
            photo(seed + 2 * number + label, 200 * label).save(root / name / f"{stem}.jpg")


def save_parquet(file: Path) -> None:
    """Images in the Hugging Face image schema."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in (0, 1):
        for number in range(IMAGES):
            path = file.with_suffix(f".{label}-{number}.png")
            photo(number, 200 * label).save(path)
            rows.append({"image": {"bytes": path.read_bytes(), "path": path.name}, "label": label})
            path.unlink()
    pq.write_table(pa.Table.from_pylist(rows), file)


def save_vectors(folder: Path) -> None:
    """Embeddings made elsewhere, and queries to them."""
    x = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.save(folder / "queries.npy", x[:20])
    table = {"id": [f"image {number}" for number in range(len(x))], "vector": list(x)}
    pq.write_table(pa.table(table), folder / "clip.parquet")


def save_videos(folder: Path) -> None:
    """A talk, and a folder with two videos."""
    (folder / "VIDEOS").mkdir()
    for name, seeds in (("talk.mp4", [1, 2]), ("VIDEOS/lecture.mp4", [1, 2]), ("VIDEOS/walk.mkv", [2, 3])):
        write_video(folder / name, at_rate(cuts(seeds, [2, 2])))


def save_data(folder: Path) -> None:
    """All that the commands read."""
    for number, name in enumerate(("PHOTOS", "MORE", "TINY", "LABELLED")):
        save_photos(folder / name, seed=1000 * number)
    for part in ("train", "val"):
        save_photos(folder / "IMAGENET" / part, ("n01440764", "n01443537"), seed=len(part))
    (folder / "ILSVRC").symlink_to(folder / "IMAGENET")
    for name in ("CIFAR10/train.parquet", "cifar10/train.parquet", "photos.parquet"):
        save_parquet(folder / name)
    for name in ("query.jpg", "a.jpg", "b.png"):
        photo(7, 0).save(folder / name)
    save_vectors(folder)
    save_videos(folder)
    ids = [path.relative_to(folder / "PHOTOS").as_posix() for path in (folder / "PHOTOS").rglob("*.jpg")]
    lines = [f"{image_id},{2015 + number}" for number, image_id in enumerate(sorted(ids))]
    (folder / "photos.csv").write_text("\n".join(["id,year", *lines]))
    (folder / "my.yaml").write_text(
        "k: 5\ndims: [16]\nshortlists: [10]\nstrategies: [single-shot, shortlist]\n"
    )
    (folder / "token.txt").write_text("a-token-of-many-letters")
    # In the place of timm's own scripts, which its package lacks.
    for name in ("benchmark.py", "train.py"):
        (folder / name).write_text(
            "import sys, timm\nname = sys.argv[sys.argv.index('--model') + 1]\n"
            "assert timm.create_model(name, device='meta') is not None\n"
        )


def save_teacher(folder: Path) -> None:
    """A network of timm's, with weights drawn by chance, as a local folder."""
    model = timm.create_model("test_vit", num_classes=2)
    save_for_hf(model, str(folder), safe_serialization=True)


def save_texts(folder: Path) -> None:
    """Where open_clip is: a network with a text tower, drawn by chance, and a gallery of it."""
    if find_spec("open_clip"):
        towers = clip_folder(folder / "TOWERS")
        assert main(["index", "--checkpoint", towers, "--images", "PHOTOS", "--gallery", "W"]) == 0


def save_told(folder: Path) -> None:
    """A gallery of a network of timm's whose vectors were written and read back, as if made elsewhere."""
    network = f"timm:local-dir:{folder / 'LITE2'}"
    assert main(["index", "--checkpoint", network, "--images", "PHOTOS", "--gallery", "MADE"]) == 0
    with Gallery(folder / "MADE") as gallery:
        keys = gallery.live_keys()
        rows, xb = gallery.rows(keys), gallery.segments.read(keys).astype(np.float32)
    texts = {"id": [row.id for row in rows], "path": [row.path for row in rows], "vector": list(xb)}
    pq.write_table(pa.table(texts), folder / "resnet.parquet")
    vectors = ["--vectors", "resnet.parquet", "--model-name", "resnet50", "--normalise"]
    assert main(["index", *vectors, "--gallery", "F"]) == 0
    shutil.rmtree(folder / "MADE")


def save_runs(folder: Path) -> None:
    """Two runs, galleries of them, shards."""
    train = ["train", "--data.name", "folder", "--data.root", "PHOTOS", *SMALL, "--optim.epochs", "1"]
    index = ["index", "--checkpoint", "RUN", "--images"]
    distill = ["distill", "--teacher", "timm:local-dir:LITE2", "--images", "PHOTOS", *SMALL]
    distill += ["--dim", "16", "--optim.epochs", "1", "--data.decoded", "0", "--output", "runs/student"]
    for command in (
        [*train, "--output", "RUN"],
        [*train, "--seed", "1", "--output", "BETTER"],
        distill,
        [
            "index",
            "--checkpoint",
            "runs/student",
            "--teacher",
            "auto",
            "--images",
            "PHOTOS",
            "--gallery",
            "T",
        ],
        [*index, "PHOTOS", "--gallery", "G", "--metadata", "photos.csv", "--dims", "32", "64"],
        [
            "index",
            "--vectors",
            "clip.parquet",
            "--model-name",
            "clip-vit-b32",
            "--gallery",
            "C",
            "--normalise",
        ],
        [*index, "PHOTOS", "--gallery", "HOLIDAYS"],
        ["index", "--video", "VIDEOS", "--gallery", "V"],
        [*index, "MORE", "--gallery", "WORK", "--prefix", "more/"],
        *([*index, "PHOTOS", "--gallery", f"G{n}", "--shard", f"{n}/4"] for n in (1, 2, 3, 4)),
        ["data", "prepare", "--data.name", "folder", "--data.root", "PHOTOS", "--output", "SHARDS"],
        ["gallery", "export", "G", "gallery.parquet"],
        ["select", "--checkpoint", "RUN", "--budget", "gmacs=1", "--evaluations", "1", "--images", "8"],
    ):
        assert main(command) == 0, command
    for name, target in (("photos", "RUN"), ("better", "BETTER"), ("large", "BETTER")):
        shutil.copytree(folder / target, folder / "runs" / name)


def copy(source: str, target: str) -> None:
    """A link where files are replaced and never changed, as pictures, vectors and weights are."""
    if source.endswith((".jpg", ".npy", ".safetensors", ".bin")):
        os.link(source, target)
    else:
        shutil.copy(source, target)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it is made once; examples get copies."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "configs").symlink_to(documents.ROOT / "configs")
    save_data(folder)
    save_teacher(folder / "LITE2")
    with chdir(folder):
        save_runs(folder)
        save_texts(folder)
        save_told(folder)
    return folder


@pytest.fixture
def soon_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services and watchers measure their widths for a tenth of the time."""
    defaults = Settings.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "measure_s", 0.15)
    monkeypatch.setattr(frame_search, "MEASURE_S", 0.05)


@pytest.fixture
def world(made: Path, tmp_path: Path, soon_measured: None) -> Iterator[Path]:
    """A copy of the folder, as the working directory."""
    folder = tmp_path / "world"
    shutil.copytree(made, folder, symlinks=True, copy_function=copy)
    with chdir(folder):
        with mv.open_gallery("V", write=True) as gallery:
            gallery.relocate(made / "VIDEOS", folder / "VIDEOS")
        yield folder
