"""What a trained model is worth and what it costs, at each width."""

from .accuracy import Predictions, evaluate_widths, predict
from .cost import count_macs, count_parameters
from .latency import Latency, measure_latency

__all__ = [
    "Latency",
    "Predictions",
    "count_macs",
    "count_parameters",
    "evaluate_widths",
    "measure_latency",
    "predict",
]
