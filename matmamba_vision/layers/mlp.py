"""The nested multilayer perceptron."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import linear
from .nested import Nested, register, uniform_


class Mlp(Nested):
    """Two layers around GELU of which any leading hidden units can be used (MatFormer, arXiv 2310.07707).

    The hidden units belong to the heads of the block, an equal number to each.

    Args:
        dim: D, size of the residual stream.
        hidden: F, all hidden units, a multiple of H.
        heads: H, heads of the block.
        device: of the parameters.
        dtype: of the parameters.
    """

    writes, reads, of_layer = "fc2", ("fc1",), ("fc2_bias",)
    fc1: Tensor  # (F, D)
    fc1_bias: Tensor  # (F,)
    fc2: Tensor  # (D, F)
    fc2_bias: Tensor  # (D,)

    def __init__(
        self,
        dim: int,
        hidden: int,
        heads: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.per_head = heads, hidden // heads
        shapes: dict[str, tuple[int, ...]] = {
            "fc1": (hidden, dim), "fc1_bias": (hidden,), "fc2": (dim, hidden), "fc2_bias": (dim,)
        }  # fmt: skip
        register(self, shapes, device, dtype)
        self.reset_parameters()

    def leading(self, heads: int, state: int = 0) -> dict[str, Tensor]:
        """The tensors of the hidden units of the leading heads by name, as views."""
        units = heads * self.per_head
        cut = {"fc1": self.fc1[:units], "fc1_bias": self.fc1_bias[:units], "fc2": self.fc2[:, :units]}
        return cut | {"fc2_bias": self.fc2_bias}

    def forward(self, u_BLD: Tensor, heads: int | None = None) -> Tensor:
        """Update for tokens (B, L, D), computed by the hidden units of the leading heads (all by default)."""
        w = self.leading(self.heads if heads is None else heads)
        hidden_BLF = F.gelu(linear(u_BLD, w["fc1"], w["fc1_bias"]))
        return linear(hidden_BLF, w["fc2"], w["fc2_bias"])

    def macs(self, tokens: int, heads: int, state: int = 0) -> int:
        """Multiply-adds of one sequence."""
        return tokens * 2 * heads * self.per_head * self.fc1.shape[1]

    @torch.no_grad()
    def reset_parameters(self, out_scale: float = 1.0) -> None:
        """Uniform weights, biases of 0; `out_scale` is a factor on the second layer."""
        uniform_(self.fc1, fan_in=self.fc1.shape[1])
        uniform_(self.fc2, fan_in=self.fc2.shape[1])
        self.fc2.mul_(out_scale)
        nn.init.zeros_(self.fc1_bias)
        nn.init.zeros_(self.fc2_bias)
