"""Compact strings behave as a list of them does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_datasets import Subset, open_images
from matmamba_datasets.texts import Packed, Picked, Prefixed

TEXTS = ["a", "", "Löwe/1.jpg", os.fsdecode(b"not utf-8 \xff"), "z" * 300]


def require_like(texts: Any, expected: list[str]) -> None:
    assert texts == expected
    assert expected == texts
    assert texts != [*expected, "more"]
    assert texts != ["other", *expected[1:]]
    assert len(texts) == len(expected)
    assert list(texts) == expected
    assert texts[-1] == expected[-1]
    assert texts[1:3] == expected[1:3]
    assert texts.index(expected[2]) == 2


def test_they_are_like_lists() -> None:
    packed = Packed.of(TEXTS)
    require_like(packed, TEXTS)
    require_like(packed.part(1, 4), TEXTS[1:4])
    require_like(Packed.joined([packed.part(0, 2), packed.part(2, 2), packed.part(2, 5)]), TEXTS)
    order = np.array([4, 2, 0, 2])
    require_like(Picked(packed, order), [TEXTS[index] for index in order])
    require_like(Prefixed(["x/"], packed), [f"x/{text}" for text in TEXTS])
    expected = [prefix + text for prefix, text in zip("xxyyy", TEXTS, strict=True)]
    require_like(Prefixed(["x", "-", "y"], packed, [2, 0, 3]), expected)


def test_a_subset_of_groups_lies_in_groups(photos: Path) -> None:
    images = open_images(photos)
    images.groups = (10, 4, 10)
    assert Subset(images, [0, 1, 9, 14, 20]).groups == (3, 2)
    assert Subset(images, [3, 1]).groups == (2,)
