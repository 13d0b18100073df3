"""Predictions and calibration of a width against scikit-learn and torchmetrics, in one process and in two."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.multiprocessing as torch_processes
from matmamba_vision import MatMamba
from matmamba_vision.measures import evaluate_widths, predict
from matmamba_vision.measures.calibration import reliability
from small import SMALL
from torch.distributed import destroy_process_group, init_process_group
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

CLASSES = 9
WIDTHS = ["full", "1/2", "1/8"]


class LabelledImages:
    """A batch of random images with random labels."""

    def __init__(self, count: int, seed: int) -> None:
        chance = torch.Generator().manual_seed(seed)
        self.images = torch.randn(count, 3, 16, 16, generator=chance) if count else torch.empty(0)
        self.labels = torch.randint(CLASSES, (count,), generator=chance)
        self.ids = [f"image {index}" for index in range(count)]

    def __len__(self) -> int:
        return len(self.labels)


def nine_classes() -> MatMamba:
    """With a head far from 0, so that confidences differ."""
    torch.manual_seed(0)
    model = MatMamba(**SMALL | {"num_classes": CLASSES}, chunk_size=8)
    torch.nn.init.normal_(model.get_parameter("head.weight"))
    return model


@pytest.fixture
def batches() -> list[LabelledImages]:
    """80 images; one of the batches is empty."""
    return [LabelledImages(count, seed) for seed, count in enumerate((32, 0, 32, 16))]


@torch.no_grad()
def probabilities(batches: list[LabelledImages], width: str) -> tuple[torch.Tensor, torch.Tensor]:
    model = nine_classes().eval()
    logits = torch.cat([model(batch.images, width=width) for batch in batches if len(batch)])
    return logits.double().softmax(-1), torch.cat([batch.labels for batch in batches])


@pytest.mark.parametrize("width", WIDTHS)
def test_predictions_agree_with_other_libraries(batches: list[LabelledImages], width: str) -> None:
    found = predict(nine_classes(), batches, WIDTHS)[WIDTHS.index(width)]
    chances, labels = probabilities(batches, width)
    known = range(CLASSES)
    assert found.top1 == sklearn.metrics.accuracy_score(labels, chances.argmax(1))
    top5 = multiclass_accuracy(chances, labels, CLASSES, average="micro", top_k=5)
    assert found.in_top5.mean() == pytest.approx(top5.item())
    nll = sklearn.metrics.log_loss(labels, chances, labels=known)
    assert -found.log_likelihoods.mean() == pytest.approx(nll)
    brier = sklearn.metrics.brier_score_loss(labels, chances, labels=known, scale_by_half=False)
    assert found.briers.mean() == pytest.approx(brier)
    ece = multiclass_calibration_error(chances, labels, CLASSES, n_bins=15, norm="l1")
    assert reliability(found.confidences, found.correct).error == pytest.approx(ece.item())


def test_bins_hold_their_upper_edge() -> None:
    """As Guo et al. define them: a confidence of 1 falls into the last bin, not beside it."""
    correct = np.array([True, False, True, False])
    bins = reliability(np.array([0.2, 0.3, 1.0, 1.0]), correct, bins=5)
    assert bins.counts.tolist() == [1, 1, 0, 0, 2]
    assert bins.accuracies[[0, 1, 4]].tolist() == [1, 0, 0.5]
    assert np.isnan(bins.accuracies[[2, 3]]).all()
    assert bins.error == pytest.approx((0.8 + 0.3 + 2 * 0.5) / 4)


def test_fewer_than_five_classes_are_all_among_the_top_five() -> None:
    model = MatMamba(**SMALL | {"num_classes": 3})
    batch = LabelledImages(8, 0)
    batch.labels = batch.labels % 3
    assert predict(model, [batch])[0].in_top5.all()


def test_no_images_give_no_predictions(model: MatMamba) -> None:
    assert predict(model, [LabelledImages(0, 0)], WIDTHS) == []


def test_logits_that_are_not_numbers_are_refused(batches: list[LabelledImages]) -> None:
    model = nine_classes().train()
    torch.nn.init.constant_(model.get_parameter("head.bias"), float("nan"))
    with pytest.raises(FloatingPointError, match="1/2"):
        predict(model, batches, ["1/2"])
    assert model.training


def test_accuracies_of_all_widths_are_those_of_the_predictions(batches: list[LabelledImages]) -> None:
    model = nine_classes().train()
    found = evaluate_widths(model, batches, WIDTHS)
    expected = {
        width: predicted.top1
        for width, predicted in zip(WIDTHS, predict(model, batches, WIDTHS), strict=True)
    }
    assert found == pytest.approx(expected)
    assert model.training


def evaluate_as(rank: int, folder: Path, *counts: int) -> dict[str, float]:
    """As one of two processes, with batches of so many images."""
    init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return evaluate_widths(nine_classes(), map(LabelledImages, counts, counts), WIDTHS)
    finally:
        destroy_process_group()


def evaluate_beside(process: int, folder: Path, *counts: int) -> None:
    (folder / "found.json").write_text(json.dumps(evaluate_as(1 + process, folder, *counts)))


def test_two_processes_count_the_images_of_both(tmp_path: Path) -> None:
    """Of which the first has none."""
    counts = (32, 0, 16)
    spawn: Any = torch_processes.spawn  # type: ignore[attr-defined]
    beside = spawn(evaluate_beside, (tmp_path, *counts), nprocs=1, join=False)
    found = evaluate_as(0, tmp_path, 0)
    while not beside.join():
        pass
    assert found == evaluate_widths(nine_classes(), map(LabelledImages, counts, counts), WIDTHS)
    assert found == json.loads((tmp_path / "found.json").read_text())
