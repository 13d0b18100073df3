"""Images in memory, cropped where the model is, as Pillow would have cropped them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_pictures import Pictures, picture
from matmamba_datasets import (
    NO_LABEL,
    AugmentConfig,
    DataError,
    DecodedLoader,
    JoinedImages,
    Subset,
    decode,
)
from matmamba_datasets.joined import open_training_images
from matmamba_datasets.pixels import jitter, random_boxes, resample
from PIL import Image, ImageEnhance

INPUT = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3}


def loader(images: JoinedImages, **changes: object) -> DecodedLoader:
    pixels = [decode(source, 24) for source in images.sources]
    return DecodedLoader(images, pixels, INPUT, AugmentConfig(), 4, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("box", [(0, 0, 32, 48), (3, 5, 20, 31)])
def test_a_crop_is_pillows(box: tuple[int, int, int, int], size: int) -> None:
    image, (top, left, height, width) = picture(48, 32), box
    expected = image.crop((left, top, left + width, top + height)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1))[None]
    for flipped in (False, True):
        found = resample(pixels, torch.tensor([box]), size, torch.tensor([flipped]))[0].permute(1, 2, 0)
        wanted = np.array(expected)[:, ::-1] if flipped else np.array(expected)
        # Pillow rounds between its two passes.
        assert np.abs(found.numpy() - wanted).max() < 3
        assert np.abs(found.numpy() - wanted).mean() < 0.5


def test_colours_are_pillows() -> None:
    image, factors = picture(32, 32), (1.2, 0.8, 1.3)
    expected = ImageEnhance.Color(
        ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(factors[0])).enhance(factors[1])
    ).enhance(factors[2])
    pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1))[None] / 255
    found = jitter(pixels, torch.tensor([factors]))[0].permute(1, 2, 0) * 255
    # Pillow rounds in between.
    assert np.abs(found.numpy() - np.array(expected)).max() < 4


def test_crops_lie_within_the_image_and_have_the_area_asked_for() -> None:
    sizes = torch.tensor([[144, 200]]).repeat(500, 1)
    boxes = random_boxes(sizes, AugmentConfig(scale=(0.3, 0.5)), torch.Generator().manual_seed(0))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()
    share = boxes[:, 2] * boxes[:, 3] / (144 * 200)
    assert float(share.min()) > 0.28
    assert float(share.max()) < 0.52


def test_batches_depend_on_epoch_and_place_alone() -> None:
    joined = JoinedImages([Pictures(8), Pictures(6, 3)], [2, 1], [True, True])
    first, second = loader(joined, also=24), loader(joined, also=24)
    whole = list(first.batches(1))
    assert len(whole) == len(first) == 5
    (last,) = second.batches(1, 4)
    assert torch.equal(last.images, whole[4].images)
    assert last.larger is not None
    assert last.larger.shape == (4, 3, 24, 24)
    assert not torch.equal(next(first.batches(2)).images, whole[0].images)
    for batch in whole:
        assert batch.ids == [joined.ids[int(index)] for index in batch.indices]
        assert batch.labels.tolist() == joined.labels[batch.indices].tolist()


def test_a_broken_image_is_left_out_and_reported() -> None:
    joined = JoinedImages([Pictures(8, broken=3)], [1], [False])
    batches = list(loader(joined).batches(0))
    assert [error.name for batch in batches for error in batch.broken] == ["image 3"]
    assert sum(map(len, batches)) == 7


def test_collections_are_joined() -> None:
    joined = JoinedImages(
        [Pictures(4), Subset(Pictures(6, 3), [1, 5]), Pictures(2)], [2, 1, 1], [True, True, False]
    )
    assert joined.classes == ("class 0", "class 1", "class 0", "class 1", "class 2")
    assert joined.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 3, 4, NO_LABEL, NO_LABEL]
    assert joined.unique.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7]
    assert joined.ids[9] == "image 5"
    with pytest.raises(DataError, match="one number"):
        JoinedImages([Pictures(4)], [0], [True])


def test_what_cannot_be_made_of_batches_is_refused() -> None:
    joined = JoinedImages([Pictures(4)], [1], [True])
    with pytest.raises(ValueError, match="re_prob"):
        DecodedLoader(joined, [decode(joined.sources[0], 24)], INPUT, AugmentConfig(re_prob=0.5), 4)


def test_training_images_are_those_of_the_training_part(tmp_path: Path) -> None:
    root = tmp_path
    for part, count in (("train", 3), ("val", 2)):
        (root / part / "a").mkdir(parents=True)
        for number in range(count):
            picture(32, 32).save(root / part / "a" / f"{number}.png")
    assert len(open_training_images(root)) == 3
    assert len(open_training_images(root / "val")) == 2
