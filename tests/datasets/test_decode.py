"""Decoding: any mode, upright, without losing light, smaller where that is enough; broken files by name."""

from __future__ import annotations

import math
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matmamba_datasets import (
    AugmentConfig,
    BrokenImageError,
    DataError,
    Limits,
    eval_transform,
    make_loader,
    open_images,
    read_image,
    train_transform,
)
from matmamba_datasets.image_file import formats
from matmamba_datasets.transforms import Transform
from PIL import Image
from real_trees import noise
from timm.data.transforms import RandomResizedCropAndInterpolation


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


def test_limits_are_those_that_flags_name(tmp_path: Path) -> None:
    """A JPEG is measured as it is decoded; others as they are stored; files before they are read."""
    noise((64, 48)).save(tmp_path / "x.png")
    noise((640, 480)).save(tmp_path / "x.jpg")
    limits = Limits(max_megapixels=0.0029)
    more = r"x\.png: 0\.0 megapixels, more than the 0\.0029 that max_megapixels"
    with pytest.raises(BrokenImageError, match=more):
        read_image(tmp_path / "x.png", limits=limits)
    with pytest.raises(BrokenImageError, match=r"x\.jpg: 0\.0 megapixels"):
        read_image(tmp_path / "x.jpg", limits=limits)
    assert read_image(tmp_path / "x.jpg", limits=Limits(max_megapixels=0.02)).size == (160, 120)
    with pytest.raises(BrokenImageError, match=r"x\.jpg: .* MB, more than the 0 that max_file_mb allows"):
        read_image(tmp_path / "x.jpg", limits=Limits(max_file_mb=0.001))


def test_a_large_image_takes_four_bytes_a_pixel_and_warns_of_nothing(tmp_path: Path) -> None:
    """In a process of its own, whose memory is bounded."""
    Image.new("RGB", (13_000, 13_000)).save(tmp_path / "x.png", compress_level=1)
    program = (
        "import resource, sys; from matmamba_datasets import read_image;"
        "before = resource.getrusage(0).ru_maxrss; size = read_image(sys.argv[1]).size;"
        "print(*size, resource.getrusage(0).ru_maxrss - before)"
    )
    command = [sys.executable, "-W", "always::Warning:PIL", "-c", program, str(tmp_path / "x.png")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    width, height, kilobytes = map(int, run.stdout.split())
    assert (width, height, run.stderr) == (13_000, 13_000, "")
    assert kilobytes * 1024 < 5 * width * height


@pytest.mark.parametrize("start", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.4\n"])
def test_no_program_is_started_for_an_image(
    start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *rest, **more: pytest.fail("a program was started"))
    (tmp_path / "x.jpg").write_bytes(start)
    with pytest.raises(BrokenImageError, match=r"x\.jpg: PostScript or PDF, which is not read"):
        read_image(tmp_path / "x.jpg")


def test_heic_is_read_or_its_cure_is_named(tmp_path: Path) -> None:
    """Whatever its name; the photo is made where pillow-heif is installed."""
    file = tmp_path / "x.jpg"
    file.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    if "HEIF" in formats():
        with pytest.raises(BrokenImageError, match="a damaged HEIC photo"):
            read_image(file)
        noise((64, 48)).save(file, "HEIF")
        assert read_image(file).size == (64, 48)
        file.rename(tmp_path / "x.heic")
        assert len(open_images(tmp_path)) == 1
        return
    with pytest.raises(BrokenImageError, match=r"pip install .*heif"):
        read_image(file)
    file.rename(tmp_path / "x.heic")
    with pytest.raises(DataError, match=r"pip install .*heif"):
        open_images(tmp_path)


INPUT = {"input_size": (3, 32, 32), "interpolation": "bicubic", "crop_pct": 0.5}


def decoded_sizes(
    transform: Transform, folder: Path, kind: str
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Sizes of images as they are stored and as they are decoded for a transform."""
    sizes = [(31, 31), (64, 64), (127, 300), (128, 128), (256, 500), (1000, 700), (2000, 40), (511, 513)]
    found = []
    for size in sizes:
        file = folder / f"x.{kind}"
        Image.effect_noise(size, 60).convert("RGB").save(file)
        assert read_image(file).size == size
        found.append((size, read_image(file, draft=transform.draft).size))
    return found


def smallest_crop(size: tuple[int, int], augment: AugmentConfig) -> int:
    """The smallest edge that timm's random crop can have, by trying many."""
    random.seed(0)
    image = Image.new("L", size)
    get_params: Any = RandomResizedCropAndInterpolation.get_params
    crops = (get_params(image, augment.scale, augment.ratio) for _ in range(999))
    return min(min(height, width) for _, _, height, width in crops)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.35, 1.0), (1.0, 1.0)])
def test_reduced_decoding_leaves_enough_for_every_crop(scale: tuple[float, float], tmp_path: Path) -> None:
    augment = AugmentConfig(scale=scale)
    transform = train_transform(INPUT, augment)
    reduced = 0
    for stored, decoded in decoded_sizes(transform, tmp_path, "jpg"):
        factor = round(stored[0] / decoded[0])
        assert factor in (1, 2, 4, 8)
        assert decoded == tuple(-(-edge // factor) for edge in stored)
        if factor > 1:
            reduced += 1
            assert smallest_crop(decoded, augment) >= 32
        elif min(stored) >= 64:
            # Half would not have been enough in the worst case.
            halved = math.sqrt(scale[0] * stored[0] * stored[1] * 0.75) / 2
            assert min(halved, *(edge / 2 for edge in stored)) < 32
    assert reduced >= 2
    assert transform(Image.new("RGB", (40, 40))).shape == (3, 32, 32)


def test_other_formats_and_settings_decode_as_stored(tmp_path: Path) -> None:
    """Evaluation decodes fully too, unless it is asked for less; then nothing is enlarged."""
    for kind in ("png", "webp", "bmp"):
        drafted = train_transform(INPUT, AugmentConfig(scale=(1.0, 1.0)))
        assert all(stored == decoded for stored, decoded in decoded_sizes(drafted, tmp_path, kind))
    for transform in (train_transform(INPUT, AugmentConfig(draft=False)), eval_transform(INPUT)):
        assert all(stored == decoded for stored, decoded in decoded_sizes(transform, tmp_path, "jpg"))
    sizes = decoded_sizes(eval_transform(INPUT, draft=True), tmp_path, "jpg")
    assert all(stored == decoded or min(decoded) >= 64 for stored, decoded in sizes)
    assert sum(stored != decoded for stored, decoded in sizes) == 4


def test_reduced_decoding_shows_the_same_image_upright(tmp_path: Path) -> None:
    """Of a smooth picture that lies on its side: a quarter of the size, nearly the same pixels."""
    ramp = np.add.outer(np.arange(400), np.arange(300)) / 700 * 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp.astype(np.uint8)).convert("RGB").save(tmp_path / "x.jpg", exif=exif, quality=95)
    full, quarter = (read_image(tmp_path / "x.jpg", draft=draft) for draft in (None, lambda size: 7))
    assert (full.size, quarter.size) == ((400, 300), (100, 75))
    assert np.abs(np.asarray(full.resize((100, 75))).astype(int) - np.asarray(quarter)).mean() < 2


def test_loaders_decode_at_the_reduced_size(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.effect_noise((512, 512), 60).convert("RGB").save(tmp_path / "photos" / "x.jpg")
    seen = []

    def steps(image: Image.Image) -> torch.Tensor:
        seen.append(image.size)
        return torch.empty(0)

    for draft in (None, lambda size: 4):
        list(make_loader(open_images(tmp_path / "photos"), Transform(steps, draft), 1))
    assert seen == [(512, 512), (128, 128)]
