"""What a student follows: the terms by formulas of their own, the rotation, the teacher, the clock."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from matmamba_datasets import Batch, eval_transform
from matmamba_vision import MatMamba, extract
from matmamba_vision.encoders import EncoderError, open_encoder
from matmamba_vision.measures import count_macs
from matmamba_vision.rotation import RotationError, fit_rotation, load_rotation
from matmamba_vision.training import (
    CachedTeacher,
    EngineConfig,
    ObjectiveConfig,
    OnlineTeacher,
    OptimConfig,
    Position,
    RegressionConfig,
    StudentObjective,
    Training,
    make_accelerator,
    prepare_training,
    read_vectors,
)
from matmamba_vision.training.course import TimeLimit
from matmamba_vision.training.loop import take_step
from matmamba_vision.training.passes import CapturedPass
from PIL import Image
from small import SMALL, LabelledImages, play, unit_vectors
from torch import Tensor
from torch.nn import functional as F

LABELS = torch.tensor([0, 0, 1, -1, 1, 2])
FOLLOW = RegressionConfig(prefix_dims=[4, 8], temperature=0.1)
PLAIN = ObjectiveConfig(mrl=0, distillation=0, alignment=0, label_smoothing=0)


def vectors(count: int = 6, dim: int = 16, seed: int = 0) -> Tensor:
    return torch.from_numpy(unit_vectors(count, dim, seed))


def student(**changes: object) -> MatMamba:
    torch.manual_seed(0)
    return MatMamba(**{**SMALL, "num_classes": 3, "projection": 16, **changes})


def test_the_projection_is_the_embedding_and_what_the_head_reads() -> None:
    model = student().eval()
    images = model.random_images(2)
    pooled = model.forward_features(images, "1/2")[:, -1]
    expected = model.projection(pooled)
    assert torch.equal(model.embed(images, "1/2", 8), F.normalize(expected[:, :8], dim=-1))
    assert torch.equal(model(images, "1/2"), model.head(expected))
    small = extract(model, "1/2")
    assert torch.equal(small.embed(images), model.embed(images, "1/2"))
    without = student(projection=0)
    assert count_macs(model) - count_macs(without) == 32 * 16 + 16 * 3 - 32 * 3
    with pytest.raises(ValueError, match="projection 16"):
        student(global_pool="")


def test_every_parameter_of_a_projecting_model_gets_a_gradient() -> None:
    model = student().train()
    model(model.random_images(2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_terms_are_their_formulas() -> None:
    objective = StudentObjective(PLAIN, FOLLOW, 16, 3)
    embedding, target, logits = torch.randn(6, 16), vectors(), torch.randn(6, 3)
    found = objective.terms(embedding, logits, LABELS, None, target)
    s, t = embedding.double().numpy(), target.double().numpy()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def regression(dim: int) -> float:
        return float(np.mean([1 - cosine(a[:dim], b[:dim]) for a, b in zip(s, t, strict=True)]))

    kl, nca = [], []
    for i in range(6):
        rest = [j for j in range(6) if j != i]
        ours = np.exp([cosine(s[i], t[j]) / 0.1 for j in rest])
        theirs = np.exp([cosine(t[i], t[j]) / 0.1 for j in rest])
        ours, theirs = ours / ours.sum(), theirs / theirs.sum()
        kl.append(float((theirs * np.log(theirs / ours)).sum()))
        same = [n for n, j in enumerate(rest) if LABELS[i] >= 0 and LABELS[j] == LABELS[i]]
        if same:
            nca.append(-math.log(ours[same].sum()))
    logs = logits.double().log_softmax(-1)
    entropy = float(np.mean([-logs[i, int(LABELS[i])] for i in range(6) if LABELS[i] >= 0]))
    expected = {
        "regression": 10 * regression(16),
        "prefixes": 5 * (regression(4) + regression(8)) / 2,
        "similarity": float(np.mean(kl)),
        "neighbours": 0.5 * float(np.mean(nca)),
        "cross_entropy": entropy,
    }
    assert {name: float(term) for name, term in found.items()} == pytest.approx(expected, rel=1e-4)


def test_anchors_are_compared_with_by_their_formula() -> None:
    follow = RegressionConfig(prefixes=0, similarity=0, neighbours=0, anchors=2, temperature=0.1)
    objective, anchors = StudentObjective(PLAIN, follow, 16, 3), vectors(9, seed=3)
    objective.anchors = anchors
    assert torch.equal(objective.state_dict()["anchors"], anchors)
    embedding, target = torch.randn(6, 16), vectors()
    found = objective.terms(embedding, torch.randn(6, 3), LABELS, None, target)
    kl = []
    for one, other in zip(embedding.double().numpy(), target.double().numpy(), strict=True):
        ours, theirs = (
            np.exp(v @ anchors.double().numpy().T / np.linalg.norm(v) / 0.1) for v in (one, other)
        )
        ours, theirs = ours / ours.sum(), theirs / theirs.sum()
        kl.append(float((theirs * np.log(theirs / ours)).sum()))
    assert float(found["anchors"]) == pytest.approx(2 * float(np.mean(kl)), rel=1e-4)
    # The teacher itself has nothing to learn from them.
    itself = objective.terms(3 * target, torch.randn(6, 3), LABELS, None, target)
    assert float(itself["anchors"]) == pytest.approx(0, abs=1e-5)
    # Without a weight there are none.
    assert "anchors" not in StudentObjective(PLAIN, FOLLOW, 16, 3).state_dict()


def test_kept_vectors_are_those_of_the_view_that_is_shown() -> None:
    kept, positions = vectors(6), np.array([1, 0, 1])
    teacher = CachedTeacher(kept.half(), positions, 3)
    images = torch.zeros(2, 3, 4, 4)
    batch = Batch(images, torch.zeros(2), torch.tensor([2, 1]), ["a", "b"], [], views=torch.tensor([0, 2]))
    assert torch.allclose(teacher(batch, images), kept[[3, 2]], atol=1e-3)


def test_a_batch_without_labels_has_finite_terms_and_gradients() -> None:
    objective, embedding = StudentObjective(PLAIN, FOLLOW, 16, 3), torch.randn(6, 16, requires_grad=True)
    terms = objective.terms(embedding, embedding[:, :3], torch.full((6,), -1), None, vectors())
    torch.stack([*terms.values()]).sum().backward()
    assert terms["cross_entropy"].item() == terms["neighbours"].item() == 0
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_the_rotation_is_an_isometry_and_leading_coordinates_say_most(tmp_path: Path) -> None:
    scales = torch.linspace(3, 0.1, 12)
    x = F.normalize(torch.randn(200, 12, generator=torch.Generator().manual_seed(0)) * scales, dim=-1)
    rotation = fit_rotation(x, "teacher")
    turned = rotation(x)
    assert torch.allclose(turned @ turned.T, x @ x.T, atol=1e-5)
    energy = turned.square().mean(0)
    assert torch.equal(energy, energy.sort(descending=True).values)
    assert torch.allclose(rotation(x, 4), F.normalize(turned[:, :4], dim=-1))
    file = tmp_path / "rotation.safetensors"
    rotation.save(file)
    assert load_rotation(file, "teacher").digest == rotation.digest
    with pytest.raises(RotationError, match="another encoder"):
        load_rotation(file, "other")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RotationError, match="damaged"):
        load_rotation(file, "teacher")


def test_a_view_is_what_the_teacher_would_have_prepared() -> None:
    encoder = open_encoder("matmamba_nano_patch4_32")
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    prepared = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    views = encoder.views(prepared, {"mean": mean.tolist(), "std": std.tolist()})
    assert torch.allclose(views, (pixels - 0.5) / 0.5, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 40), (40, 24)])
def test_a_teacher_that_takes_no_squares_sees_the_middle(size: tuple[int, int]) -> None:
    encoder = open_encoder("matmamba_nano_patch4_32")
    teacher = replace(encoder, input={**encoder.input, "input_size": (3, *size)})
    assert teacher.size == 40
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.1) / 0.2
    views = teacher.views(whole, {"mean": [0.1] * 3, "std": [0.2] * 3})
    wanted = eval_transform({**teacher.input, "crop_pct": 1.0})(Image.fromarray(pixels))
    assert torch.allclose(views[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [("timm:no_such_network", "weights cannot be had"), ("timm:local-dir:/no/such", "weights cannot be had")],
)
def test_a_teacher_that_is_not_there_is_one_line(name: str, said: str) -> None:
    with pytest.raises(EncoderError, match=said) as raised:
        open_encoder(name)
    assert "\n" not in str(raised.value)


def test_a_teacher_without_pooled_features_or_with_other_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = open_encoder("matmamba_nano_patch4_32")

    def unpooled(*_: object, **__: object) -> torch.nn.Module:
        return timm.models.create_model("matmamba_nano_patch4_32", num_classes=0, global_pool="")

    monkeypatch.setattr("timm.create_model", unpooled)
    with pytest.raises(EncoderError, match="no pooled features"):
        open_encoder("timm:something")
    object.__setattr__(encoder, "features", lambda images: torch.zeros(len(images), 3))
    with pytest.raises(EncoderError, match="not 128 for each"):
        encoder.embed(torch.zeros(2, 3, 32, 32))


def test_stored_vectors_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "v.npy"
    np.save(file, 3 * unit_vectors(4, 5))
    found, digest = read_vectors(file, 4)
    assert torch.allclose(found.norm(dim=-1), torch.ones(4))
    assert len(digest) == 64
    with pytest.raises(EncoderError, match="each of the 7 images"):
        read_vectors(file, 7)
    np.save(file, np.full((4, 5), np.nan))
    with pytest.raises(EncoderError, match="not finite"):
        read_vectors(file, 4)
    file.write_bytes(b"nothing")
    with pytest.raises(EncoderError, match="no NumPy file"):
        read_vectors(file, 4)


def prepared(minutes: float = 0.0) -> Training:
    encoder = open_encoder("matmamba_nano_patch4_32")
    assert isinstance(encoder.network, MatMamba)
    rotation = fit_rotation(encoder.embed(encoder.network.random_images(140)), encoder.digest)
    model = student()
    known = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    training = prepare_training(
        model,
        StudentObjective(ObjectiveConfig(mrl=0), FOLLOW, 16, 3),
        OptimConfig(epochs=2, lr=1e-2, max_minutes=minutes),
        5,
        accelerator=make_accelerator(EngineConfig(), "cpu"),
        follows=OnlineTeacher(encoder, rotation, known, 16),
    )
    training.trainee.train()
    return training


def test_captured_passes_follow_the_teacher_too() -> None:
    """Losses and weights to the bit, with a batch of another shape among them."""
    eager, captured = prepared(), prepared()
    captured.passes = CapturedPass(captured.passes, play)  # type: ignore[arg-type]
    noise = torch.Generator().manual_seed(1)
    sizes = [6, 4, 6]
    batches = [LabelledImages(torch.randn(n, 3, 16, 16, generator=noise), LABELS[:n]) for n in sizes]
    for step, batch in enumerate(batches):
        reports = [take_step(one, [batch], Position(step=step), 0.0) for one in (eager, captured)]
        assert reports[0] is not None
        assert reports[1] is not None
        assert {"regression", "similarity", "alignment"} < {*reports[0].terms}
        assert reports[0].terms == reports[1].terms
    for ours, theirs in zip(captured.trainee.parameters(), eager.trainee.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_rate_follows_the_clock_behind_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("matmamba_vision.training.course.time.monotonic", lambda: now[0])
    course, optimiser = (training := prepared(minutes=1)).course, training.optimiser
    course.limit = TimeLimit(seconds=60, begun=0.0)
    now[0] = 10
    course.start()
    assert course.limit.share == 0
    rates = []
    for step, seconds in [(0, 30), (1, 35), (2, 35), (3, 59.9)]:
        now[0] = seconds
        course.set_rate(step)
        rates.append(optimiser.param_groups[0]["lr"])
    assert course.warmup == 2
    # Half of the 50 seconds for steps are over: step 5 of 10, whatever was done.
    course.limit = None
    expected = []
    for step in (0, 1, 5, 9):
        course.set_rate(step)
        expected.append(optimiser.param_groups[0]["lr"])
    assert rates == expected
    assert not course.time_is_up
