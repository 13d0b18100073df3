"""Own gradients, with autograd's bookkeeping only where it is needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def apply_where_wanted(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """The function of these inputs, recorded by autograd only where a gradient is wanted.

    Args:
        function: its `forward` takes None for a context where nothing is to be kept.
        inputs: tensors and other arguments of `forward`.
    """
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in inputs if isinstance(t, Tensor))
    return function.apply(*inputs) if wanted else function.forward(None, *inputs)
