"""What the nested layers share: tensors of which a leading part is a smaller layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Nested(nn.Module):
    """A layer whose leading heads are a smaller layer.

    Attributes:
        heads: H, all heads.
    """

    heads: int

    def leading(self, heads: int, state: int) -> dict[str, Tensor]:
        """The tensors of the leading heads by name, views wherever memory allows.

        Args:
            heads: active heads. state: active state size, where the layer has one.
        """
        raise NotImplementedError

    def macs(self, tokens: int, heads: int, state: int) -> int:
        """Multiply-adds of one sequence at the leading heads: products and convolutions."""
        raise NotImplementedError


def register(
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> None:
    """Give `module` an empty parameter for each shape."""
    for name, shape in shapes.items():
        module.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))


def uniform_(tensor: Tensor, fan_in: int) -> None:
    """Fill as PyTorch's linear layers do."""
    nn.init.uniform_(tensor, -(fan_in**-0.5), fan_in**-0.5)
