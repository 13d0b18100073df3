"""The state-space-duality scan: one signature, several backends.

`ssd` is the signature and `reference` the definition. `chunked`, `native`, `triton` and `mamba_ssm` compute
it, each a folder; `dispatch` chooses among them. `carried` goes on from a state by any of them. `product` and
`autograd` serve the layers, too.

Shape suffixes here and in `layers/`: B batch, L tokens, D model, H heads, P head dim, N state, and inside a
chunked scan C chunks, Q tokens of a chunk.
"""

from torch import Tensor

from .autograd import apply_where_wanted
from .carried import carried_macs, convolve_carried, scan_carried
from .chunked import scan_macs
from .dispatch import (
    BACKENDS,
    Backend,
    BackendError,
    InTraining,
    Setting,
    require_known,
    resolve,
    resolve_for,
)
from .product import linear

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendError",
    "InTraining",
    "Setting",
    "apply_where_wanted",
    "carried_macs",
    "convolve_carried",
    "linear",
    "require_known",
    "resolve",
    "resolve_for",
    "scan_carried",
    "scan_macs",
    "ssd",
]


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
    backend: str = "auto",
) -> Tensor:
    """Scan by a backend of that name (Mamba2, arXiv 2405.21060); shapes and meaning as in `ssd_reference`.

    Raises:
        BackendError: no such backend, or it cannot serve inputs like these.
    """
    scan = resolve_for(backend, x_BLHP, x_BLHP.shape[-1], B_BLN.shape[-1]).scan
    return scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size=chunk_size)
