"""Loaders: the same batches for the same seed, broken images reported, never lost in silence."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from matmamba_datasets import (
    AugmentConfig,
    Batch,
    BrokenImageError,
    BrokenTally,
    DataError,
    Subset,
    eval_transform,
    make_loader,
    open_images,
    order,
    torchvision_startup,
    train_transform,
)
from matmamba_datasets.tally import FEW

INPUT = {
    "input_size": (3, 16, 16),
    "interpolation": "bicubic",
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "crop_pct": 1.0,
}


def test_every_image_is_read_once(photos: Path) -> None:
    loader = make_loader(open_images(photos), eval_transform(INPUT), 7)
    batches = list(loader)
    assert torch.equal(torch.cat([batch.indices for batch in batches]), torch.arange(24))
    assert batches[0].images.shape == (7, 3, 16, 16)
    assert [len(batch) for batch in batches] == [7, 7, 7, 3]


def same(a: Batch, b: Batch) -> bool:
    return (a.ids, [*map(str, a.broken)]) == (b.ids, [*map(str, b.broken)]) and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "labels", "indices")
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_any_position_of_any_epoch_is_that_of_an_unbroken_pass(
    photos: Path, sharded: Path, kind: str, workers: int
) -> None:
    """In any order of asking, from new loaders and used ones, augmentation included."""
    images = open_images(photos if kind == "folder" else sharded)
    augmented = train_transform(INPUT, AugmentConfig(auto_augment="rand-m9-mstd0.5", re_prob=0.5))
    first = make_loader(images, augmented, 5, shuffle=True, seed=3)
    unbroken = {epoch: list(first.batches(epoch)) for epoch in (0, 1)}
    assert [len(batches) for batches in unbroken.values()] == [4, 4]
    again = make_loader(images, augmented, 5, shuffle=True, seed=3, workers=workers)
    for epoch, position in ((1, 2), (0, 0), (0, 3), (1, 0), (1, 4)):
        rest = list(again.batches(epoch, position))
        assert len(rest) == 4 - position
        assert all(map(same, rest, unbroken[epoch][position:]))
    next(again.batches(0))
    assert same(next(again.batches(1, 1)), unbroken[1][1])


def test_the_order_follows_seed_and_epoch(photos: Path) -> None:
    images = open_images(photos)

    def order(seed: int, epoch: int) -> list[str]:
        loader = make_loader(images, eval_transform(INPUT), 5, shuffle=True, seed=seed)
        return [image_id for batch in loader.batches(epoch) for image_id in batch.ids]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, orders))) == 4
    assert orders == [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(set(found) <= set(images.ids) and len(set(found)) == 20 for found in orders)


@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_share_the_steps_of_one_process(photos: Path, shuffle: bool) -> None:
    images, plain = open_images(photos), eval_transform(INPUT)
    alone = [batch.ids for batch in make_loader(images, plain, 10, shuffle=shuffle).batches(2)]
    ranks = [
        [batch.ids for batch in make_loader(images, plain, 5, shuffle=shuffle, rank=rank, ranks=2).batches(2)]
        for rank in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1]) == len(alone) == (2 if shuffle else 3)
    assert [first + second for first, second in zip(*ranks, strict=True)] == alone
    with pytest.raises(ValueError, match="rank 2"):
        make_loader(images, plain, 5, rank=2, ranks=2)


def test_ranks_without_images_get_empty_batches(photos: Path) -> None:
    images = Subset(open_images(photos), [0, 1])
    batches = [list(make_loader(images, eval_transform(INPUT), 4, rank=rank, ranks=3)) for rank in range(3)]
    assert [[len(batch) for batch in found] for found in batches] == [[1], [1], [0]]


def test_a_small_collection_is_one_shuffled_batch(photos: Path) -> None:
    loader = make_loader(open_images(photos), eval_transform(INPUT), 100, shuffle=True)
    assert [len(batch) for batch in loader.batches(0)] == [24]


def test_shards_are_shuffled_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "WINDOW", 20)
    groups = [10] * 10
    found = order.shuffled(groups, seed=0, epoch=0)
    assert sorted(found) == list(range(100))
    windows = [{position // 10 for position in window} for window in found.reshape(5, 20).tolist()]
    assert all(len(window) == 2 for window in windows)
    assert all(len({position // 10 for position in window[:8]}) == 2 for window in found.reshape(5, 20))
    assert order.shuffled([], seed=0, epoch=0).size == 0


def test_augmentation_leaves_other_randomness_alone(photos: Path) -> None:
    """Python's, numpy's and torch's generators go on as if no image had been augmented."""

    def drawn() -> tuple[float, float, float]:
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    def seed() -> None:
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)

    augmented = train_transform(INPUT, AugmentConfig(auto_augment="rand-m9-mstd0.5", re_prob=1.0))
    loader = make_loader(open_images(photos), augmented, 6, shuffle=True)
    seed()
    expected = drawn()
    seed()
    assert len(list(loader.batches(0))) == 4
    assert drawn() == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_are_left_out_and_reported(photos: Path, workers: int) -> None:
    (photos / "dark" / "00.jpg").write_bytes(b"no image")
    (photos / "notes.txt").write_text("no image either")
    images = open_images(photos)
    batches = list(make_loader(images, eval_transform(INPUT), 4, workers=workers))
    tally = BrokenTally(len(images), allowed=0.1)
    for batch in batches:
        tally.add(batch.broken)
    assert sum(map(len, batches)) == 23
    assert {Path(name).name for name in tally.found} == {"00.jpg"}
    assert images.left_out == {str(photos / "notes.txt"): "not an image (.txt)"}
    assert "00.jpg: not an image file" in tally.listing()


def test_too_many_broken_images_stop_the_run(photos: Path) -> None:
    for name in ("00.jpg", "02.png"):
        (photos / "dark" / name).write_bytes(b"")
    tally = BrokenTally(24, allowed=0.05, few=1)
    (batch,) = make_loader(open_images(photos), eval_transform(INPUT), 24)
    with pytest.raises(DataError, match=r"(?s)2 of 24.*max_broken; a larger one leaves them out.*00\.jpg"):
        tally.add(batch.broken)


def broken(count: int) -> list[BrokenImageError]:
    return [BrokenImageError(f"{number}.jpg", "not an image file") for number in range(count)]


def test_a_few_of_a_small_collection_may_be_broken_unless_none_may() -> None:
    tally = BrokenTally(50, allowed=0.01)
    tally.add(broken(FEW))
    with pytest.raises(DataError, match="4 of 50"):
        tally.add(broken(FEW + 1))
    with pytest.raises(DataError, match="1 of 50"):
        BrokenTally(50, allowed=0).add(broken(1))
    BrokenTally(10_000, allowed=0.01).add(broken(100))


def test_augmentation_is_random_and_evaluation_is_not(photos: Path) -> None:
    image = open_images(photos)[0].image
    plain, augmented = eval_transform(INPUT), train_transform(INPUT, AugmentConfig())
    assert torch.equal(plain(image), plain(image))
    assert not torch.equal(augmented(image), augmented(image))
    assert augmented(image).shape == (3, 16, 16)


def test_torchvision_that_lacks_its_operators_is_mended() -> None:
    """Whatever torchvision is installed, timm and its transforms can be imported after this module."""
    # Without what `make` has put there, which mends it at every start.
    bare = f"import sys; sys.path[:0] = {sys.path}; "
    check = bare + "import matmamba_datasets.torchvision_startup as startup, timm; print(not startup._KEPT)"
    healthy = _runs(bare + "import torchvision").returncode == 0
    mended = _runs(check)
    assert mended.returncode == 0, mended.stderr
    assert mended.stdout.strip() == str(healthy)


def _runs(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)


def test_timm_can_be_imported_first(tmp_path: Path) -> None:
    """Where `make` has put the file that mends torchvision: at every start of Python."""
    shutil.copyfile(torchvision_startup.__file__, tmp_path / f"{torchvision_startup.NAME}.py")
    program = f"import {torchvision_startup.NAME}; import timm; import torchvision, matmamba_vision"
    program += "; torchvision.transforms.Resize(3); assert 'matmamba_nano_patch4_32' in timm.list_models()"
    places = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-c", program]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_other_failures_of_torchvision_are_not_hidden() -> None:
    class Failing(Loader):
        def exec_module(self, module: ModuleType) -> None:
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        torchvision_startup.Mender(Failing()).exec_module(ModuleType("torchvision"))
