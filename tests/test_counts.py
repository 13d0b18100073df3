"""Counts in messages."""

from matmamba_common.counts import counted


def test_one_is_one() -> None:
    counts = [counted(count, "image") for count in (0, 1, 2, 12345)]
    assert counts == ["0 images", "1 image", "2 images", "12,345 images"]
