"""The backend "chunked": PyTorch's own operations, on any device.

`by_decay` divides the scan among three implementations: `separable` and `quadratic` are fast and need
moderate decays, `masked` takes any. `conv_and_norm` has what stands beside the scan.
"""

from .by_decay import may_look_at_values, scan_macs, ssd_chunked
from .conv_and_norm import conv_silu, gated_rms_norm

__all__ = ["conv_silu", "gated_rms_norm", "may_look_at_values", "scan_macs", "ssd_chunked"]
