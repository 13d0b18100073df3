"""The backend "native": what stands beside the scan's products, by the kernels in C, for float32 on a CPU.

Each pass reads and writes its data once, forward and backward. Products stay with PyTorch, and what records a
computation for other data, or is not a plain tensor, gets what `chunked` does.
"""

from .convolve_and_gate import conv_silu, gated_rms_norm
from .scan import ssd_native
from .serving import refusal

__all__ = ["conv_silu", "gated_rms_norm", "refusal", "ssd_native"]
