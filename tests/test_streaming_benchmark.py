"""The benchmark of carried state: its clips, its training that can be stopped, and what it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import carried_training
import numpy as np
import pytest
import streaming
import torch
from carried_training import Course, Targets, train
from clips import clip, spoil, view
from matmamba_datasets import Images
from matmamba_vision import MatMamba
from numpy.typing import NDArray
from PIL import Image
from small import SMALL, unit_vectors


class Pictures(Images):
    """Six photos of three classes, in memory."""

    def __init__(self) -> None:
        self.classes = ("a/one", "a/two", "a/three")
        self.labels = np.arange(6) % 3
        self.ids = self.paths = [str(number) for number in range(6)]
        self.groups = (6,)

    def __len__(self) -> int:
        return 6

    def stored(self, index: int) -> Image.Image:
        pixels = np.random.default_rng(index).integers(0, 256, (18, 24, 3))
        return Image.fromarray(pixels.astype(np.uint8))


def make() -> MatMamba:
    torch.manual_seed(0)
    return MatMamba(**{**SMALL, "num_classes": 3, "depth": 2}).eval()


def test_a_clip_is_a_way_from_one_view_to_another() -> None:
    photo = Pictures().stored(0)
    left, upper, right, lower = view(photo, np.random.default_rng(0))
    assert 0 <= left < right <= photo.width
    assert 0 <= upper < lower <= photo.height
    assert 9 <= right - left == pytest.approx(lower - upper)
    first, *_, last = clip(photo, 4, 16, np.random.default_rng(0))
    assert first.size == last.size == (16, 16)
    assert first != last
    assert first == clip(photo, 4, 16, np.random.default_rng(0))[0]
    for how in ("noise", "blur"):
        assert spoil(first, how, np.random.default_rng(0)) != first


@pytest.mark.parametrize("carried", [False, True])
def test_training_goes_on_where_it_was_stopped(
    carried: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried_training, "SAVED_EVERY", 1)
    targets = Targets(Pictures(), torch.from_numpy(unit_vectors(6, 32)))
    course = Course(name="x", carried=carried, within_frames=False, steps=3, batch=1, rate=1e-2)
    wanted = train(make, targets, course, tmp_path)
    again, step = tmp_path / "again", carried_training.train_step
    again.mkdir()

    def stopped(*given: Any) -> float:
        if given[4] == 2:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(carried_training, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(make, targets, course, again)
    monkeypatch.setattr(carried_training, "train_step", step)
    found = train(make, targets, course, again)
    for one, other in zip(found.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(one, other)
    weight = found.get_parameter("head.weight")
    assert not torch.equal(weight, make().get_parameter("head.weight"))
    # What is done is taken as it was kept.
    monkeypatch.setattr(carried_training, "train_step", stopped)
    assert torch.equal(train(make, targets, course, again).get_parameter("head.weight"), weight)


def test_what_is_asked_is_what_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STREAMS", 3)
    model, photos = make(), Pictures()
    asked: dict[str, NDArray[np.float32]] = {
        way: streaming.encoded(model, "1/2", photos, "clean", way, within=False)
        for way in (streaming.ALONE, streaming.RESET, streaming.ON)
    }
    alone, reset, on = asked.values()
    assert alone.shape == (6, streaming.CLIP, 32)
    np.testing.assert_allclose(reset[:, 0], alone[:, 0], atol=1e-5)
    np.testing.assert_allclose(on[:3], reset[:3], atol=1e-5)
    assert abs(on[3:, 0] - alone[3:, 0]).max() > 1e-4
    mean = streaming.mean_of_last(alone)
    np.testing.assert_allclose(mean[:, 0], alone[:, 0], atol=1e-6)
    summed = alone[:, :2].sum(1)
    np.testing.assert_allclose(mean[:, 1], summed / np.linalg.norm(summed, axis=-1, keepdims=True), atol=1e-5)
    noisy = streaming.encoded(model, "1/2", photos, "noise", streaming.ALONE, within=False)
    changed = abs(noisy - alone).max((0, 2)) > 1e-4
    assert changed.tolist() == [False, True, False, True]


def test_quality_counts_the_frames_that_count() -> None:
    photos, vectors = Pictures(), unit_vectors(6, 32)
    frames = np.repeat(vectors[:, None], streaming.CLIP, axis=1)
    found = streaming.quality(frames, (photos, 2 * vectors), (photos, vectors), "clean")
    assert found["knn1"].tolist() == [1] * 6
    # The gallery has it nearer.
    assert found["own_photo"].tolist() == [0] * 6
    found = streaming.quality(frames, (photos, -vectors), (photos, vectors), "clean")
    assert found["own_photo"].tolist() == [1] * 6
    # Every second frame shows a photo of another class.
    frames[:, 1::2] = np.roll(vectors, 1, axis=0)[:, None]
    for condition, share in (("clean", 0.5), ("blur", 0)):
        found = streaming.quality(frames, (photos, vectors), (photos, vectors), condition)
        assert found["knn1"].tolist() == [share] * 6
        assert found["places"].tolist() == [1, 0, 1, 0]
