"""Training on clips made from photos: with carried state, or on the same frames by themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from clips import SPOILT, clip, spoil
from matmamba_datasets import Images, eval_transform
from matmamba_datasets.sample import read_sample
from matmamba_vision import MatMamba
from matmamba_vision.models.frame_stream import one_sequence
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

FRAMES = 8
# A cut comes before this frame; at FRAMES there is none.
CUTS = (2, 3, 4, 5, 6, FRAMES, FRAMES)
# Share of frames that are spoilt.
SPOILING = 0.25
WIDTH_SHARES = (0.25, 0.25, 0.25, 0.25)
WARM_UP, WEIGHT_DECAY, CLIP = 0.1, 0.05, 1.0
REGRESSION, CROSS_ENTROPY = 10.0, 0.3
SAVED_EVERY = 5


@dataclass(frozen=True)
class Targets:
    """Photos, and what each frame of them is to say.

    Attributes:
        photos: to make frames of.
        vectors: (n, E) embeddings of the whole photos.
    """

    photos: Images
    vectors: Tensor


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a network is trained.

    Attributes:
        name: of what is kept of it.
        carried: whether state is carried through a clip.
        within_frames: see `MatMamba.stream`.
        single: whether every frame is of another photo, so that there is nothing to carry.
        steps: of the optimiser.
        batch: clips of a step, or as many times FRAMES frames.
        rate: largest learning rate.
    """

    name: str
    carried: bool
    within_frames: bool
    steps: int
    single: bool = False
    batch: int = 4
    rate: float = 2e-4


def train(make: Callable[[], MatMamba], targets: Targets, course: Course, runs: Path) -> MatMamba:
    """The trained network; from where it was stopped, or as it was kept when it was done."""
    model, kept = make(), runs / f"{course.name}.pt"
    optimiser = torch.optim.AdamW(model.parameters(), lr=course.rate, weight_decay=WEIGHT_DECAY)
    first = 0
    if kept.is_file():
        known = torch.load(kept, weights_only=True)
        model.load_state_dict(known["model"])
        optimiser.load_state_dict(known["optimiser"])
        first = known["steps"]
    transform, begun = eval_transform(model.input), time.perf_counter()
    for step in range(first, course.steps):
        for group in optimiser.param_groups:
            group["lr"] = course.rate * share_of_rate(step / course.steps)
        loss = train_step(model, optimiser, targets, course, step, transform)
        done = step + 1
        if done % SAVED_EVERY == 0 or done == course.steps:
            keep(kept, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "steps": done})
            seconds = (time.perf_counter() - begun) / (done - first)
            left = seconds * (course.steps - done)
            line = f"{course.name}: step {done}/{course.steps}, loss {loss:.3f}, {seconds:.2f} s a step"
            print(f"{line}, {left:.0f} s left", flush=True)
    return model.eval()


def share_of_rate(done: float) -> float:
    """Warm-up, then down along a cosine."""
    return min(1.0, done / WARM_UP + 0.01) * (1 + math.cos(math.pi * done)) / 2


def keep(file: Path, known: dict[str, object]) -> None:
    """Write the file whole, or leave what was there."""
    partial = file.with_suffix(".partial")
    torch.save(known, partial)
    partial.replace(file)


def train_step(
    model: MatMamba,
    optimiser: torch.optim.Optimizer,
    targets: Targets,
    course: Course,
    step: int,
    transform: Callable[[Image.Image], Tensor],
) -> float:
    """One step at one of the trained widths; which, and which frames, the number of the step says."""
    chance = np.random.default_rng(step)
    width = model.trained_widths[chance.choice(len(model.trained_widths), p=WIDTH_SHARES)]
    views, numbers = batch(targets.photos, course, chance)
    frames = torch.stack([transform(view) for view in views])
    if course.carried:
        clips = frames.unflatten(0, (course.batch, FRAMES))
        tokens = one_sequence(model, clips, width, course.within_frames).flatten(0, 1)
    else:
        tokens = model.forward_features(frames, width)
    features = model.forward_head(tokens, pre_logits=True)
    wanted = targets.vectors[torch.from_numpy(numbers)]
    labels = torch.from_numpy(targets.photos.labels[numbers])
    regression = 1 - F.cosine_similarity(features, wanted).mean()
    loss = REGRESSION * regression + CROSS_ENTROPY * F.cross_entropy(model.head(features), labels)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimiser.step()
    return float(loss.detach())


def batch(
    photos: Images, course: Course, chance: np.random.Generator
) -> tuple[list[Image.Image], NDArray[np.int64]]:
    """Frames of the clips of a step, one clip behind the other, and the number of the photo of each."""
    views, numbers = list[Image.Image](), list[int]()
    for _ in range(course.batch):
        cut = int(chance.choice(CUTS))
        counts = [1] * FRAMES if course.single else [cut, FRAMES - cut]
        for count in filter(None, counts):
            number = int(chance.integers(len(photos)))
            views += clip(read_sample(photos, number).image, count, frame_size(photos), chance)
            numbers += [number] * count
    return [sometimes_spoilt(view, chance) for view in views], np.array(numbers)


def frame_size(photos: Images) -> int:
    """Edge of a frame in pixels: that of the smallest photos."""
    return min(read_sample(photos, 0).image.size)


def sometimes_spoilt(view: Image.Image, chance: np.random.Generator) -> Image.Image:
    """A frame as it is, or now and then spoilt."""
    return spoil(view, str(chance.choice(SPOILT)), chance) if chance.random() < SPOILING else view


def normalised(found: Sequence[Tensor]) -> Tensor:
    """Means of embeddings (B, E), of length 1."""
    return F.normalize(torch.stack([*found]).mean(0), dim=-1)
