"""What a service says of its last minute, and that it keeps no more."""

from __future__ import annotations

from matmamba_vision.serving.traffic import SPAN, Traffic


def test_what_is_older_than_a_minute_is_neither_told_nor_kept() -> None:
    now = 0.0
    traffic = Traffic(lambda: now)
    for number in range(300):
        now = float(number)
        traffic.answered(10.0, number % 2 == 0, "full" if number < 250 else "1/8")
        traffic.shed()
    assert len(traffic._answered) == len(traffic._shed) == SPAN + 1
    said = traffic.to_dict()
    assert said["shed"] == SPAN + 1
    assert said["in_time"] == 30 / (2 * (SPAN + 1))
    assert said["widths"] == {"1/8": 50 / 61, "full": 11 / 61}
    now += 2 * SPAN
    assert traffic.to_dict()["widths"] == {}
    assert len(traffic._answered) == len(traffic._shed) == 0
