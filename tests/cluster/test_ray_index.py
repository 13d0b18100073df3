"""Galleries that many processes make equal those of one, whatever dies on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import pytest
import torch
from matmamba_retrieval import Gallery
from matmamba_vision.cli.main import main
from matmamba_vision.cluster.ray_cluster import QUIET
from matmamba_vision.progress import Event, Notice, Progress
from same_galleries import content
from slow_encoder import AWAITED, TOLD, deadly_encoder, slow_encoder

TWO = mv.RayCluster(processes=2, shards=4)
# Where one process does as well: each takes seconds to begin.
ONE = mv.RayCluster(processes=1, shards=4)
QUICK: dict[str, Any] = {"batch_size": 3, "max_broken": 0.2, "threads": 1}


def workers() -> Iterator[int]:
    """Processes with a `ShardWorker` that descend from this one."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and "ray::ShardWorker" in _read(folder / "cmdline"):
            ancestor = int(folder.name)
            while ancestor > 1 and ancestor != os.getpid():
                ancestor = int((_read(Path(f"/proc/{ancestor}/stat")).rpartition(")")[2].split() or "01")[1])
            if ancestor == os.getpid():
                yield int(folder.name)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    # It ended just now.
    except (FileNotFoundError, ProcessLookupError):
        return ""


def at_work(then: Callable[[], object], events: list[Event]) -> Callable[[Event], None]:
    """A listener that does something once, when some images are encoded and others are not."""
    done = list[bool]()

    def listen(event: Event) -> None:
        events.append(event)
        begun = (
            isinstance(event, Progress) and event.stage == "indexing" and event.done and not event.finished
        )
        if begun and not done:
            done.append(True)
            then()

    return listen


def kill_one() -> None:
    os.kill(next(workers()), signal.SIGKILL)


def test_a_gallery_is_the_same_though_a_worker_was_killed(cluster: str, place: Path) -> None:
    """Rows, order, vectors, files and indexes, to the bit; an encoder that is a function goes along."""
    encoder, events = slow_encoder(), list[Event]()
    mv.index(place / "photos", place / "one", model=encoder, dims=[8], **QUICK)
    done = mv.index_on_ray(
        place / "photos", place / "many", cluster=TWO, model=encoder, dims=[8],
        progress=at_work(kill_one, events), **QUICK,
    )  # fmt: skip
    assert content(place / "many") == content(place / "one")
    assert (done.added, done.total, [*done.broken]) == (23, 23, [str(place / "photos/bright/03.jpg")])
    said = [event.text for event in events if isinstance(event, Notice)]
    assert any("died" in text and "another goes on with shard" in text for text in said), said
    told = [event for event in events if isinstance(event, Progress) and event.stage == "indexing"]
    assert [event.done for event in told] == sorted(event.done for event in told)
    assert (told[-1].done, told[-1].total) == (24, 24)
    assert not (place / "many.shards").exists()


@pytest.mark.slow
def test_the_command_makes_the_same_gallery_and_adds_to_it(
    cluster: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that a gallery can have; then images that are new, between those that it has."""
    new = [place / "photos" / "bright" / "07.png", place / "photos" / "dark" / "10.png"]
    for file in new:
        file.rename(place / file.name)
    flags = ["--checkpoint", place / "model", "--widths", "1/4", "--dims", "8", "--factory", "sq8"]
    flags += ["--metadata", place / "known.csv", "--batch-size", "3", "--max-broken", "0.2", "--threads", "1"]
    ray = ["--engine", "ray", "--processes", "2", "--shards", "3"]

    def index(name: str, *more: str) -> dict[str, Any]:
        words = ["index", "--images", place / "photos", "--gallery", place / name, *flags, *more]
        assert main([*map(str, words)]) == 0
        return content(place / name)

    for added in (21, 2, 0):
        assert index("many", *ray) == index("one")
        assert f"{added} images added" in capsys.readouterr().out
        for file in new:
            if (place / file.name).exists():
                (place / file.name).rename(file)
    with Gallery(place / "many") as gallery:
        assert {one.name for one in gallery.shortlists()} == {"sq8-8", "sq8-8@1/4"}
        assert len(gallery) == 23
    shutil.copy(new[0], place / "photos" / "dark" / "02.png")
    new[1].unlink()
    (place / "photos" / "bright" / "99.png").write_bytes(new[0].read_bytes())
    for said, flags_of_change in (
        ("1 changed, which --changed encodes again: dark/02.png", ()),
        ("1 deleted from the gallery", ("--changed", "--prune")),
        ("23 images added", ("--upsert",)),
    ):
        assert index("many", *ray, *flags_of_change) == index("one", *flags_of_change)
        assert capsys.readouterr().out.count(said) == 2


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_call_keeps_what_was_encoded_and_goes_on(cluster: str, place: Path) -> None:
    encoder, events = slow_encoder(), list[Event]()
    mv.index(place / "photos", place / "one", model=encoder, **QUICK)

    def many(**more: Any) -> mv.Indexed:
        return mv.index_on_ray(place / "photos", place / "many", cluster=TWO, model=encoder, **QUICK, **more)

    with pytest.raises(KeyboardInterrupt):
        many(progress=at_work(interrupt, events))
    said = [event.text for event in events if isinstance(event, Notice)][-1]
    kept = int(said.split()[0])
    assert 0 < kept < 23
    assert said.endswith("many.shards: the same call goes on from there")
    assert not (place / "many").exists()
    with pytest.raises(mv.MatMambaError, match="another value of batch_size has begun"):
        mv.index_on_ray(place / "photos", place / "many", cluster=TWO, model=encoder, max_broken=0.2)
    resumed = list[Event]()
    many(progress=resumed.append)
    assert content(place / "many") == content(place / "one")
    skipped = [
        event.skipped for event in resumed if isinstance(event, Progress) and event.stage == "indexing"
    ]
    assert skipped[-1] >= kept


DRIVER = """
import sys
import matmamba_vision as mv
from slow_encoder import slow_encoder
photos, gallery, address = sys.argv[1:]
cluster = mv.RayCluster(address=address, processes=2, shards=4)
options = {"model": slow_encoder(), "batch_size": 3, "max_broken": 0.2, "threads": 1}
mv.index_on_ray(photos, gallery, cluster=cluster, **options)
"""


@pytest.mark.slow
def test_a_call_that_was_killed_goes_on(cluster: str, place: Path) -> None:
    encoder, many = slow_encoder(), place / "many"
    mv.index(place / "photos", place / "one", model=encoder, **QUICK)
    command = [sys.executable, "-c", DRIVER, str(place / "photos"), str(many), cluster]
    with subprocess.Popen(command) as caller:
        first = many.with_name("many.shards") / "1-of-4"
        while not (Gallery.exists(first) and _has_rows(first)):
            assert caller.poll() is None
            time.sleep(0.02)
        caller.kill()
    assert not many.exists()
    mv.index_on_ray(place / "photos", many, cluster=TWO, model=encoder, **QUICK)
    assert content(many) == content(place / "one")


def _has_rows(folder: Path) -> bool:
    with Gallery(folder) as gallery:
        return len(gallery) > 0


# Its processes take ten seconds and more to begin.
@pytest.mark.slow
def test_the_limit_of_broken_files_counts_over_all_shards(cluster: str, place: Path) -> None:
    """Said as by one run; in no shard are they more than allowed."""
    for file in sorted((place / "photos" / "dark").glob("*.png"))[-3:]:
        file.write_bytes(b"no image")
    said = []
    for name, call in (("one", mv.index), ("many", mv.index_on_ray)):
        options: dict[str, Any] = {"cluster": ONE} if call is mv.index_on_ray else {}
        options |= {**QUICK, "max_broken": 0.05, "model": place / "model"}
        with pytest.raises(mv.MatMambaError, match="4 of 24 files cannot be read") as caught:
            call(place / "photos", place / name, **options)
        said.append(str(caught.value).splitlines()[0])
    assert said[0] == said[1]


# Each takes some seconds to begin.
KINDS = ("shards by url", "photos by url", "parquet", "given")
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", SLOW)
def test_any_kind_of_images_is_dealt_out(cluster: str, place: Path, kind: str) -> None:
    files = sorted(map(str, (place / "photos").rglob("*.png")))
    images: Any = files
    if kind == "shards by url":
        prepare = ["--name", "folder", "--root", place / "photos", "--output", place / "tars"]
        assert main(["data", "prepare", *map(str, prepare), "--max-broken", "0.2"]) == 0
        images = f"file://{place / 'tars'}"
    elif kind == "photos by url":
        images = f"file://{place / 'photos'}"
    elif kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        stored = [{"bytes": Path(file).read_bytes(), "path": file} for file in files]
        images = place / "photos.parquet"
        pq.write_table(pa.table({"image": stored}), images, row_group_size=4)
    options = {**QUICK, "model": place / "model"}
    mv.index(images, place / "one", **options)
    done = mv.index_on_ray(images, place / "many", cluster=TWO, **options)
    assert content(place / "many") == content(place / "one")
    assert done.added >= len(files)


def test_what_a_worker_cannot_do_is_said_in_its_own_words(cluster: str, place: Path) -> None:
    """Here it finds no model where the caller found one; nothing is left behind."""

    def lose_the_model(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "starting processes" and not event.finished:
            shutil.rmtree(place / "model")

    with pytest.raises(mv.CheckpointError, match="model") as caught:
        mv.index_on_ray(
            place / "photos", place / "many", cluster=ONE, model=place / "model", progress=lose_the_model,
            **QUICK,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert "ray" not in str(caught.value)
    assert not (place / "many.shards").exists()


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_ends_the_call(cluster: str, place: Path) -> None:
    one = mv.RayCluster(processes=1, shards=1)
    with pytest.raises(mv.ClusterError, match=r"3 processes died at shard 1, the last on .*: "):
        mv.index_on_ray(place / "photos", place / "g", cluster=one, model=deadly_encoder(), **QUICK)


@pytest.mark.parametrize(
    ("cluster_asked", "said"),
    [
        (mv.RayCluster(cpus=64), "no machine of the cluster has 64 cores"),
        (mv.RayCluster(gpus=1), "1 GPU"),
        # However many are asked for.
        (mv.RayCluster(processes=2, gpus=1), "1 GPU"),
    ],
)
def test_a_cluster_without_room_is_told(
    cluster: str, place: Path, cluster_asked: mv.RayCluster, said: str
) -> None:
    with pytest.raises(mv.ClusterError, match=said):
        mv.index_on_ray(place / "photos", place / "g", cluster=cluster_asked, model=place / "model", **QUICK)
    assert not (place / "g").exists()


GPUS = """
import logging, sys
import ray
import matmamba_vision as mv
from matmamba_vision.cluster.ray_cluster import STORE_BYTES
from slow_encoder import telling_encoder
photos, gallery, share, *model = sys.argv[1:]
ray.init(
    address="local", num_cpus=4, num_gpus=2, object_store_memory=STORE_BYTES, include_dashboard=False,
    log_to_driver=False, logging_level=logging.ERROR,
)
cluster = mv.RayCluster(gpus=float(share), shards=8)
options = {"model": model[0] if model else telling_encoder(), "batch_size": 3, "max_broken": 0.2}
try:
    mv.index_on_ray(photos, gallery, cluster=cluster, **options)
except mv.MatMambaError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("share", "processes"), [("1", 2), ("0.5", 4)])
def test_each_process_is_given_its_gpu(place: Path, share: str, processes: int) -> None:
    """Two that a Ray without any is told to have: as many processes as they have room for, each sees one."""
    (place / "told").mkdir()
    waiting = {TOLD: str(place / "told"), AWAITED: str(processes)}
    words = [sys.executable, "-c", GPUS, str(place / "photos"), str(place / "g"), share]
    subprocess.run(words, env=os.environ | QUIET | waiting, check=True, timeout=300)
    told = [file.name.split("-") for file in (place / "told").iterdir()]
    # The caller tries the encoder, too, and has no GPU by Ray.
    seen = sorted(gpus for _, gpus in told if gpus != "none")
    assert seen == sorted(["0", "1"] * (processes // 2))
    assert len({process for process, _ in told}) == len(told)


@pytest.mark.slow
def test_a_model_is_opened_on_the_gpu_of_its_process(place: Path) -> None:
    """Which is not there in truth: that is what is said."""
    words = [sys.executable, "-c", GPUS, str(place / "photos"), str(place / "g"), "1", str(place / "model")]
    done = subprocess.run(words, env=os.environ | QUIET, capture_output=True, text=True, timeout=300)
    if torch.cuda.is_available():
        pytest.skip("there are GPUs")
    assert "refused: device 'cuda' cannot be used: " in done.stderr
    assert not (place / "g").exists()


@pytest.mark.slow
def test_the_example_of_help_runs(cluster: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    shutil.copytree("photos", "PHOTOS")
    words = "index --images PHOTOS --gallery G --engine ray --processes 2 --checkpoint model --max-broken 0.2"
    assert main(words.split()) == 0
    assert len(content(place / "G")["rows"]) == 23
