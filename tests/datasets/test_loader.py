"""Loaders: the same batches for the same seed, broken images reported, never lost in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matmamba_datasets import (
    AugmentConfig,
    BrokenTally,
    DataError,
    eval_transform,
    make_loader,
    open_folder_or_parquet,
    train_transform,
)

INPUT = {
    "input_size": (3, 16, 16),
    "interpolation": "bicubic",
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "crop_pct": 1.0,
}


def test_every_image_is_read_once(photos: Path) -> None:
    loader = make_loader(open_folder_or_parquet(photos), eval_transform(INPUT), 7)
    batches = list(loader)
    assert torch.equal(torch.cat([batch.indices for batch in batches]), torch.arange(24))
    assert batches[0].images.shape == (7, 3, 16, 16)
    assert [len(batch) for batch in batches] == [7, 7, 7, 3]


def test_the_order_follows_seed_and_epoch(photos: Path) -> None:
    images = open_folder_or_parquet(photos)

    def orders(seed: int) -> list[torch.Tensor]:
        loader = make_loader(images, eval_transform(INPUT), 5, shuffle=True, seed=seed)
        return [torch.cat([batch.indices for batch in loader]) for _ in range(2)]

    first, second = orders(0)
    assert torch.equal(first, orders(0)[0])
    assert torch.equal(second, orders(0)[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, orders(1)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_are_left_out_and_reported(photos: Path, workers: int) -> None:
    (photos / "dark" / "00.jpg").write_bytes(b"no image")
    (photos / "notes.txt").write_text("no image either")
    images = open_folder_or_parquet(photos)
    batches = list(make_loader(images, eval_transform(INPUT), 4, workers=workers))
    tally = BrokenTally(len(images), allowed=0.1)
    for batch in batches:
        tally.add(batch.broken)
    assert sum(map(len, batches)) == 23
    assert {Path(name).name for name in tally.found} == {"00.jpg", "notes.txt"}
    assert "notes.txt: not an image file" in tally.listing()


def test_too_many_broken_images_stop_the_run(photos: Path) -> None:
    for name in ("00.jpg", "02.png"):
        (photos / "dark" / name).write_bytes(b"")
    tally = BrokenTally(24, allowed=0.05)
    (batch,) = make_loader(open_folder_or_parquet(photos), eval_transform(INPUT), 24)
    with pytest.raises(DataError, match=r"(?s)2 of 24.*00\.jpg"):
        tally.add(batch.broken)


def test_augmentation_is_random_and_evaluation_is_not(photos: Path) -> None:
    image = open_folder_or_parquet(photos)[0].image
    plain, augmented = eval_transform(INPUT), train_transform(INPUT, AugmentConfig())
    assert torch.equal(plain(image), plain(image))
    assert not torch.equal(augmented(image), augmented(image))
    assert augmented(image).shape == (3, 16, 16)


def test_torchvision_that_lacks_its_operators_is_mended() -> None:
    """Whatever torchvision is installed, timm and its transforms can be imported after this module."""
    check = "import matmamba_datasets.torchvision_compat as compat, timm; print(compat.DECLARED is None)"
    healthy = (
        subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0
    )
    said = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(healthy)


def test_other_failures_of_torchvision_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from matmamba_datasets import torchvision_compat

    def fail(name: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(torchvision_compat.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        torchvision_compat.ensure_torchvision()
