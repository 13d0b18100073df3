"""What a trained model is worth and what it costs, at each width."""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

if TYPE_CHECKING:
    from .accuracy import Predictions, evaluate_widths, predict
    from .cost import count_macs, count_parameters
    from .latency import Latency, measure_latency, time_in_turn
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".accuracy": (
                "Predictions",
                "evaluate_widths",
                "predict",
            ),
            ".cost": (
                "count_macs",
                "count_parameters",
            ),
            ".latency": (
                "Latency",
                "measure_latency",
                "time_in_turn",
            ),
        },
    )

__all__ = [
    "Latency",
    "Predictions",
    "count_macs",
    "count_parameters",
    "evaluate_widths",
    "measure_latency",
    "predict",
    "time_in_turn",
]
