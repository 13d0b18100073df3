"""The backend "mamba_ssm": an adapter to the kernels of the packages mamba-ssm and causal-conv1d.

Neither is imported before it is used: they need a GPU, and may not be installed.
"""

from .adapter import (
    conv_silu_cuda,
    gated_rms_norm_mamba_ssm,
    inner_mamba_ssm,
    inner_where_it_fits,
    ssd_mamba_ssm,
)
from .installed import has_conv, missing

__all__ = [
    "conv_silu_cuda",
    "gated_rms_norm_mamba_ssm",
    "has_conv",
    "inner_mamba_ssm",
    "inner_where_it_fits",
    "missing",
    "ssd_mamba_ssm",
]
