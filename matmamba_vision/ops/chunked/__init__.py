"""The backend "chunked": PyTorch's own operations, on any device.

`by_decay` divides the scan among three implementations: `separable` and `quadratic` are fast and need
moderate decays, `masked` takes any. `elementwise` has their passes over tokens, `conv_and_norm` what stands
beside the scan.
"""

from .by_decay import may_look_at_values, scan_macs, ssd_chunked
from .conv_and_norm import conv_silu, gated_rms_norm
from .elementwise import BY_PYTORCH, Passes, ScanEnd

__all__ = [
    "BY_PYTORCH",
    "Passes",
    "ScanEnd",
    "conv_silu",
    "gated_rms_norm",
    "may_look_at_values",
    "scan_macs",
    "ssd_chunked",
]
