"""The state-space-duality scan: one signature, several backends.

Shape suffixes here and in `layers/`: B batch, L tokens, D model, H heads, P head dim, N state, and inside a
chunked scan C chunks, Q tokens of a chunk.
"""

from .backends import BACKENDS, Backend, BackendError, Setting, require_known, resolve, resolve_for, ssd
from .chunked import scan_macs
from .product import linear

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendError",
    "Setting",
    "linear",
    "require_known",
    "resolve",
    "resolve_for",
    "scan_macs",
    "ssd",
]
