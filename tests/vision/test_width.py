"""Widths: what is understood, and what is refused."""

from __future__ import annotations

import pytest
from matmamba_vision import MatMamba, Width, WidthError
from matmamba_vision.width import WidthLike, resolve_width

FULL = Width((16, 16, 8), (32, 32, 0))


@pytest.mark.parametrize(
    ("wanted", "heads"),
    [
        ("full", (16, 16, 8)),
        (1, (16, 16, 8)),
        ("1/2", (8, 8, 4)),
        (0.25, (4, 4, 2)),
        ("3/8", (6, 6, 3)),
        ([1, 0, 8], (1, 0, 8)),
        ("1-0-8", (1, 0, 8)),
        (Width((2, 2, 1)), (2, 2, 1)),
    ],
)
def test_what_is_understood(wanted: WidthLike, heads: tuple[int, ...]) -> None:
    assert resolve_width(wanted, FULL).heads == heads


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("1/16", "1/16.*multiples of 1/8"),
        ("half", "'half'"),
        ("2/1", "2/1"),
        (0.0, "0.0"),
        (-0.5, "-0.5"),
        ("1/0", "1/0"),
        ([16, 16], "2 blocks, the model has 3"),
        ([16, 16, 9], r"block 2 can have 0 to 8 heads, not 9"),
        ([16, -1, 8], "not -1"),
        ([16, 1.5, 8], "1.5"),
        ("4-x-8", "4-x-8"),
        (Width((99, 1, 1)), "99"),
    ],
)
def test_what_is_refused_by_name(wanted: WidthLike, message: str) -> None:
    with pytest.raises(WidthError, match=message):
        resolve_width(wanted, FULL)


@pytest.mark.parametrize("wanted", ["full", "1/2", "1/8", "3/8", "1-0-8"])
def test_a_label_means_the_width_it_names(wanted: str) -> None:
    width = resolve_width(wanted, FULL)
    assert width.label(FULL) == wanted
    assert resolve_width(width.label(FULL), FULL) == width


def test_a_width_is_a_value(model: MatMamba) -> None:
    assert model.width("1/4") == model.width(0.25)
    assert hash(model.width("1/4")) == hash(model.width([2, 2, 2]))
    with pytest.raises(AttributeError):
        model.width("full").heads = (1,)  # type: ignore[misc]
