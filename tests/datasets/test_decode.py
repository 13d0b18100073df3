"""Decoding: any mode, upright, without losing light; broken files by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from matmamba_datasets import BrokenImageError, read_image
from PIL import Image


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb_of_the_same_light(mode: str, tmp_path: Path) -> None:
    levels = np.kron([[0, 255], [255, 0]], np.ones((8, 8))).astype(np.uint8)
    if mode in ("I;16", "I", "F"):
        kind, top = {"I;16": (np.uint16, 65535), "I": (np.int32, 65535), "F": (np.float32, 1.0)}[mode]
        image = Image.fromarray((levels / 255 * top).astype(kind))
    else:
        image = Image.fromarray(levels).convert("RGB").convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "x.tif")
    read = read_image(tmp_path / "x.tif")
    assert read.mode == "RGB"
    assert np.abs(np.asarray(read).mean(-1) - levels).max() <= 2


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image.save(tmp_path / "x.jpg", exif=exif)
    read = np.asarray(read_image(tmp_path / "x.jpg"))
    assert read.shape == (20, 10, 3)
    assert read[2, 5].mean() > 200
    assert read[17, 5].mean() < 50


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png")).min() == 255


@pytest.mark.parametrize("damage", ["text", "truncated", "empty", "missing"])
def test_broken_files_are_named(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    Image.effect_noise((64, 64), 90).save(file)
    content = {"text": b"hello", "truncated": file.read_bytes()[:600], "empty": b""}.get(damage)
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(BrokenImageError, match=r"x\.jpg") as caught:
        read_image(file)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.name, copy.reason) == (caught.value.name, caught.value.reason)


def test_an_image_too_large_to_decode_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BrokenImageError, match=r"x\.png"):
        read_image(tmp_path / "x.png")
