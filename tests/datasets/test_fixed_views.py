"""Fixed views: the same part of an image however it is read, and each of them in turn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_pictures import Pictures, picture
from matmamba_datasets import (
    AugmentConfig,
    DecodedLoader,
    FixedViews,
    JoinedImages,
    SizedViews,
    decode,
    make_loader,
    view_transform,
)
from PIL import Image

INPUT = {"input_size": (3, 16, 16), "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bicubic"}
AUGMENT = AugmentConfig(color_jitter=0.0)
EVERY = np.arange(8)


def views_of(joined: JoinedImages, count: int = 3, seed: int = 0, **changes: object) -> FixedViews:
    known = np.random.default_rng(7).integers(2**63, size=joined.unique.max() + 1, dtype=np.uint64)
    return FixedViews(
        keys=known[joined.unique],
        turns=joined.turn,
        repeats=np.asarray(joined.repeats)[joined.source],
        count=count,
        seed=seed,
        augment=AUGMENT,
        **changes,  # type: ignore[arg-type]
    )


def sizes_of(count: int, height: int = 60, width: int = 100) -> torch.Tensor:
    return torch.tensor([[height, width]]).repeat(count, 1)


def test_a_view_is_a_function_of_seed_image_and_number_alone() -> None:
    joined = JoinedImages([Pictures(8)], [1], [True])
    views, numbers = views_of(joined), EVERY % 3
    boxes, flipped = views.boxes(EVERY, numbers, sizes_of(8))
    again, _ = views.boxes(EVERY[::-1].copy(), numbers[::-1].copy(), sizes_of(8))
    assert torch.equal(again.flip(0), boxes)
    other, _ = views_of(joined, seed=1).boxes(EVERY, numbers, sizes_of(8))
    random = torch.from_numpy(numbers > 0)
    assert (other[random] != boxes[random]).any(1).all()
    assert len({tuple(box.tolist()) for box in boxes[random]}) == int(random.sum())
    # The first is the middle, never flipped.
    assert boxes[~random].tolist() == [[0, 20, 60, 60]] * 3
    assert not flipped[~random].any()


def test_a_smaller_copy_of_an_image_shows_the_same_part() -> None:
    joined = JoinedImages([Pictures(8)], [1], [True])
    views = views_of(joined)
    for number in range(3):
        shown = np.full(8, number)
        large, first = views.boxes(EVERY, shown, sizes_of(8, 120, 180))
        small, second = views.boxes(EVERY, shown, sizes_of(8, 40, 60))
        assert torch.allclose(large / 3, small)
        assert torch.equal(first, second)
    # Of what is longer, only the middle is ever shown.
    boxes, _ = views.boxes(EVERY, np.full(8, 1), sizes_of(8, 40, 200))
    assert float(boxes[:, 1].min()) >= 70
    assert float((boxes[:, 1] + boxes[:, 3]).max()) <= 130


def test_as_many_epochs_show_each_view_once() -> None:
    joined = JoinedImages([Pictures(4), Pictures(3)], [2, 1], [True, False])
    views, every = views_of(joined, count=6), np.arange(11)
    seen = np.array([views.number(epoch, every) for epoch in range(6)])
    for image in range(4):
        # Three epochs, because an epoch sees it twice.
        assert sorted(seen[:3, joined.unique == image].ravel()) == [*range(6)]
    for column in range(8, 11):
        assert sorted(seen[:, column]) == [*range(6)]
    only = views.only(np.array([5, 9]), 4)
    assert only.number(3, np.arange(2)).tolist() == [4, 4]
    boxes, _ = only.boxes(np.arange(2), np.array([4, 4]), sizes_of(2))
    assert torch.equal(boxes, views.boxes(np.array([5, 9]), np.array([4, 4]), sizes_of(2))[0])


def test_both_loaders_show_what_a_view_says() -> None:
    joined = JoinedImages([Pictures(8, broken=3)], [1], [True])
    views = views_of(joined)
    read = make_loader(
        joined, view_transform(INPUT, AUGMENT), 8, shuffle=True, seed=1, views=SizedViews(views, 16)
    )
    held = DecodedLoader(joined, [decode(joined.sources[0], 64)], INPUT, AUGMENT, 8, seed=1, views=views)
    for epoch in range(2):
        (one,), (other,) = read.batches(epoch), held.batches(epoch)
        assert len(one) == len(other) == 7
        assert one.views is not None
        assert other.views is not None
        assert one.indices.tolist() == other.indices.tolist()
        assert one.views.tolist() == other.views.tolist() == views.number(epoch, one.indices.numpy()).tolist()
        # The images are small enough to be kept as they are. Pillow rounds between its two passes, and at the
        # edges it looks beyond them.
        apart = (one.images - other.images).abs()
        assert float(apart[..., 2:-2, 2:-2].max()) < 3 / 255
        assert float(apart.max()) < 0.2
        for index, number, image in zip(one.indices, one.views, one.images, strict=True):
            whole = picture(40 + 4 * int(index), 32, int(index))
            view = views.cut(whole, int(index), int(number), 16, Image.Resampling.BICUBIC)
            assert torch.equal(image, torch.from_numpy(np.array(view).transpose(2, 0, 1)) / 255)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_cut_is_the_resized_crop(number: int) -> None:
    joined, whole = JoinedImages([Pictures(8)], [1], [True]), picture(64, 44)
    views = views_of(joined)
    boxes, flipped = views.boxes(np.array([5]), np.array([number]), torch.tensor([[44, 64]]))
    top, left, height, width = boxes[0].tolist()
    # Enlarged eightfold, so that whole pixels are near enough.
    large = whole.resize((8 * 64, 8 * 44), Image.Resampling.BICUBIC)
    box = np.rint(8 * np.array([left, top, left + width, top + height]))
    expected = large.crop(tuple(box)).resize((16, 16), Image.Resampling.BICUBIC)
    if flipped[0]:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = views.cut(whole, 5, number, 16, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(found, float) - np.asarray(expected, float)).mean() < 2
