"""A small gallery that is served, with an encoder for each width."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.checkpoint import save_checkpoint
from matmamba_vision.native import why_missing
from matmamba_vision.serving.service import Service
from matmamba_vision.serving.settings import Settings
from PIL import Image
from served_http import FakeService, client_of, made_gallery
from starlette.testclient import TestClient

IMAGES = 80
SIZES: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "head_dim": 16,
    "d_state": 16, "num_classes": 3,
}  # fmt: skip


def picture(number: int) -> Image.Image:
    """One of any number of different pictures."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype(np.uint8))
    return coarse.resize((60, 50), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = MatMamba(**SIZES, trained_widths=("full", "1/2", "1/4")).eval()
    return save_checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors", model)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The gallery that tests copy."""
    folder = tmp_path_factory.mktemp("served") / "gallery"
    ids = [f"picture {number}" for number in range(IMAGES)]
    labels = ["even" if number % 2 == 0 else "odd" for number in range(IMAGES)]
    mv.index(list(map(picture, range(IMAGES))), folder, model=checkpoint, ids=ids, labels=labels, dims=[8])
    if why_missing() is None:
        with mv.open_gallery(folder, write=True) as gallery:
            gallery.freeze(["full", "1/2", "1/4"])
    return folder


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    """A gallery of `IMAGES` pictures, labelled even and odd, with an index over 8 dims."""
    return Path(shutil.copytree(made, tmp_path / "gallery"))


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Starts services, and closes them."""
    started: list[Service] = []

    def start(folder: Path, **settings: Any) -> Service:
        known = {"slo_ms": 5000.0, "measure_s": 0.2, "poll_s": 0.0, "quality_share": 0.0} | settings
        service = Service({"pictures": folder}, Settings(**known))
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.close(1.0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of vectors, which nobody changes."""
    return made_gallery(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def service(photos: Path) -> Iterator[FakeService]:
    """What answers for it, as simply as can be."""
    found = FakeService({"photos": photos})
    yield found
    found.close()


@pytest.fixture
def client(service: FakeService) -> TestClient:
    """Asks it over HTTP, without a socket."""
    return client_of(service)
