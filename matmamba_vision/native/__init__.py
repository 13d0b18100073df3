"""The network's kernels in C for the CPU, without PyTorch: everything works without them.

`kernels.c` has them, `compiled` calls them, and `network` is a frozen width that they compute. What they do
for PyTorch stands in `ops.native`.
"""

from .compiled import (
    GATE_ROWS,
    MOST_TAPS,
    ConvolutionStruct,
    GateStruct,
    Library,
    ScanEndStruct,
    WeighingStruct,
    library,
    why_missing,
)
from .network import MixerArrays, Network, NetworkArrays, refusal
from .network_file import NetworkFileError, from_bytes, to_bytes

__all__ = [
    "GATE_ROWS",
    "MOST_TAPS",
    "ConvolutionStruct",
    "GateStruct",
    "Library",
    "MixerArrays",
    "Network",
    "NetworkArrays",
    "NetworkFileError",
    "ScanEndStruct",
    "WeighingStruct",
    "from_bytes",
    "library",
    "refusal",
    "to_bytes",
    "why_missing",
]
