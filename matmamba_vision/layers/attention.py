"""Self-attention with nested heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import linear
from .nested import Nested, register, uniform_


class Attention(Nested):
    """Multi-head self-attention (arXiv 1706.03762, section 3.2) of which any leading heads can be used.

    Every token sees every token, so the order of tokens does not matter.

    Args:
        dim: D, size of the residual stream.
        heads: H.
        head_dim: P.
        nested: whether fewer heads may be active; if not, all always are (MatFormer, arXiv 2310.07707).
        device: of the parameters.
        dtype: of the parameters.
    """

    writes, reads, of_layer = "out", ("qkv",), ("out_bias",)
    qkv: Tensor  # (H, 3P, D): query, key, value of each head
    qkv_bias: Tensor  # (H, 3P)
    out: Tensor  # (D, H, P)
    out_bias: Tensor  # (D,)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int,
        nested: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.nested = heads, nested
        shapes: dict[str, tuple[int, ...]] = {
            "qkv": (heads, 3 * head_dim, dim),
            "qkv_bias": (heads, 3 * head_dim),
            "out": (dim, heads, head_dim),
            "out_bias": (dim,),
        }
        register(self, shapes, device, dtype)
        self.reset_parameters()

    def active(self, heads: int) -> int:
        """Active heads of the attention where a width has `heads`."""
        return heads if self.nested else self.heads

    def leading(self, heads: int, state: int = 0) -> dict[str, Tensor]:
        """The tensors of the leading heads by name, as views."""
        heads = self.active(heads)
        cut = {"qkv": self.qkv[:heads], "qkv_bias": self.qkv_bias[:heads], "out": self.out[:, :heads]}
        return cut | {"out_bias": self.out_bias}

    def forward(self, u_BLD: Tensor, heads: int | None = None) -> Tensor:
        """Update for tokens (B, L, D), computed by the leading heads (all by default)."""
        w = self.leading(self.heads if heads is None else heads)
        qkv_BLHX = linear(u_BLD, w["qkv"].flatten(0, 1), w["qkv_bias"].flatten()).unflatten(
            -1, w["qkv_bias"].shape
        )
        q_BHLP, k_BHLP, v_BHLP = qkv_BLHX.transpose(1, 2).chunk(3, dim=-1)
        y_BHLP = F.scaled_dot_product_attention(q_BHLP, k_BHLP, v_BHLP)
        return linear(y_BHLP.transpose(1, 2).flatten(2), w["out"].flatten(1), w["out_bias"])

    def macs(self, tokens: int, heads: int, state: int = 0) -> int:
        """Multiply-adds of one sequence: four projections, and two products of tokens with tokens."""
        channels, dim = self.active(heads) * self.out.shape[2], self.out.shape[0]
        return tokens * 4 * dim * channels + 2 * tokens**2 * channels

    @torch.no_grad()
    def reset_parameters(self, out_scale: float = 1.0) -> None:
        """Uniform projections, biases of 0; `out_scale` is a factor on the output projection."""
        uniform_(self.qkv, fan_in=self.qkv.shape[-1])
        uniform_(self.out, fan_in=self.out[0].numel())
        self.out.mul_(out_scale)
        nn.init.zeros_(self.qkv_bias)
        nn.init.zeros_(self.out_bias)
