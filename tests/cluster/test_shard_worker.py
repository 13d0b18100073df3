"""What a process of a cluster does, without a cluster: stopped, refused, and folders that are not shared."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import matmamba_vision as mv
import pytest
from matmamba_datasets import open_images
from matmamba_retrieval import Gallery, GalleryError
from matmamba_vision.cluster import ray_cluster, shard_worker
from matmamba_vision.cluster.crew import why_it_died
from matmamba_vision.cluster.shard_folders import ShardFolders
from matmamba_vision.cluster.shard_worker import ShardJob, ShardState, ShardWorker
from matmamba_vision.galleries.embedder import Embedder
from slow_encoder import slow_encoder


@pytest.fixture
def folders(tmp_path: Path) -> ShardFolders:
    found = ShardFolders.beside(tmp_path / "g")
    found.hold().release()
    return found


@pytest.fixture
def worker(place: Path, folders: ShardFolders) -> ShardWorker:
    """One that has a shard of all photos to do, and has opened its model."""
    encoder = slow_encoder()
    job = ShardJob(
        folders=folders, model=encoder, device="cpu", spec=Embedder(encoder).spec(), widths=(), batch_size=2,
        workers=0, threads=1, prefix="", metadata=None, shards=1,
    )  # fmt: skip
    found = ShardWorker(job, open_images(place / "photos"), None)
    folders.ask("token")
    assert not isinstance(found.prepare("token"), mv.MatMambaError)
    return found


def test_a_worker_that_is_stopped_keeps_what_it_has_encoded(
    worker: ShardWorker, folders: ShardFolders
) -> None:
    with ThreadPoolExecutor() as pool:
        working = pool.submit(worker.index, 1)
        while not (worker.state().done or working.done()):
            time.sleep(0.01)
        worker.stop()
        assert working.result() is None
    with Gallery(folders.gallery_of(1, 1)) as gallery:
        assert 0 < len(gallery) < 23


def test_a_shard_that_another_process_still_holds_is_waited_for(
    worker: ShardWorker, folders: ShardFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_worker, "LOOK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(shard_worker, "HELD_SECONDS", 0.2)
    encoder = worker._encoder
    assert encoder is not None
    holder = Gallery.create(folders.gallery_of(1, 1), encoder.embedder.spec())
    refused = worker.index(1)
    assert isinstance(refused, mv.MatMambaError)
    assert "another process writes to" in str(refused)
    monkeypatch.setattr(shard_worker, "HELD_SECONDS", 60.0)
    threading.Timer(0.1, holder.close).start()
    # Of a gallery without rows, which becomes that of the shard.
    done = worker.index(1)
    assert isinstance(done, ShardState)
    assert done.total == 23


def test_a_folder_that_is_not_shared_is_told(folders: ShardFolders, tmp_path: Path) -> None:
    folders.ask("token")
    answer = folders.answer("token", "here")
    folders.require_answer("here", answer)
    with pytest.raises(mv.ClusterError, match=r"far does not see .* share"):
        folders.require_answer("far", "probe-of-another-disk")
    for elsewhere in (ShardFolders(tmp_path / "none"), folders):
        with pytest.raises(mv.ClusterError, match="far does not see"):
            elsewhere.answer("another token", "far")


def test_images_that_a_machine_lacks_are_told(worker: ShardWorker, folders: ShardFolders) -> None:
    worker._job = replace(worker._job, seen=("/nowhere/1.jpg", "/nowhere/2.jpg"))
    refused = worker.prepare("token")
    assert isinstance(refused, mv.ClusterError)
    assert "does not see the images, such as /nowhere/1.jpg" in str(refused)


def test_a_folder_of_somebody_else_is_left_alone(folders: ShardFolders) -> None:
    (folders.folder / "train-000.tar").write_text("mine")
    with pytest.raises(mv.MatMambaError, match=r"has train-000\.tar, and is no folder of shards"):
        folders.hold()
    assert (folders.folder / "train-000.tar").read_text() == "mine"


def test_two_calls_do_not_share_a_folder(folders: ShardFolders) -> None:
    held = folders.hold()
    with pytest.raises(mv.MatMambaError, match="another call indexes by way of"):
        folders.hold()
    held.release()


@pytest.mark.parametrize("noted", ["no json", "[]", '{"format": 9}'])
def test_a_damaged_note_is_told(folders: ShardFolders, noted: str) -> None:
    (folders.folder / "begun.json").write_text(noted)
    with pytest.raises(mv.MatMambaError, match=r"begun\.json is .*to begin anew"):
        folders.begun()


@pytest.mark.parametrize("address", ["edge:G", "qdrant://host/g"])
def test_a_place_for_pushed_galleries_is_no_folder(
    address: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = {path.name for path in place.iterdir()}
    with pytest.raises(GalleryError, match="is a place for pushed galleries"):
        mv.index_on_ray(place / "photos", address, model=place / "model")
    assert {path.name for path in place.iterdir()} == before


def test_without_ray_its_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(mv.MissingPackageError, match=r"pip install 'matmamba-vision\[ray\]'"):
        mv.index_on_ray(place / "photos", place / "g")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("The actor died.\n\tpid: 1\nWorker exit detail: It was killed. There are reasons.", "It was killed"),
        ("The actor died in its creation task\nValueError: no x", "ValueError: no x"),
    ],
)
def test_why_a_process_died_is_said_in_a_few_words(said: str, why: str) -> None:
    assert why_it_died(Exception(said)) == why


@pytest.mark.parametrize(
    ("numbers", "said"),
    [({"processes": -1}, "processes is -1"), ({"cpus": 0}, "cpus is 0"), ({"gpus": -0.5}, "gpus is -0.5")],
)
def test_a_cluster_of_impossible_numbers_is_refused(numbers: dict[str, int], said: str) -> None:
    with pytest.raises(mv.ConfigError, match=said):
        mv.RayCluster(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_told_at_once(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself asks for minutes: it is not asked."""
    calls = SimpleNamespace(is_initialized=lambda: False, init=lambda **options: pytest.fail("Ray was asked"))
    monkeypatch.setattr(ray_cluster, "ray", calls)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        with (
            pytest.raises(mv.ClusterError, match=f"^no Ray cluster at {address}: .*Connection refused$"),
            ray_cluster.connected(mv.RayCluster(address=address), 0),
        ):
            pass


def test_a_connection_leaves_no_handler_of_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has one of its own: with it, a process forked later loses a signal that comes while it starts."""
    ours = signal.getsignal(signal.SIGTERM)

    def connect(*given: object) -> None:
        signal.signal(signal.SIGTERM, lambda *told: None)

    calls = SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None, _private=MagicMock())
    monkeypatch.setattr(ray_cluster, "ray", calls)
    monkeypatch.setattr(ray_cluster, "_connect", connect)
    try:
        with ray_cluster.connected(mv.RayCluster(), 0):
            assert signal.getsignal(signal.SIGTERM) is not ours
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, ours)
