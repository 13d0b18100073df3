"""A residual block: normalise, mix, add."""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from .mixer import Mixer


class Block(nn.Module):
    """Pre-norm residual block around a nested mixer (no MLP, as in MatMamba, arXiv 2410.06718).

    Args:
        mixer: the nested mixer. dim: D. proj_drop: dropout of the update. drop_path: share of samples whose
            update is skipped in training.
    """

    mixer: Mixer
    norm: nn.LayerNorm

    def __init__(
        self,
        mixer: Mixer,
        dim: int,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.mixer = mixer
        self.proj_drop = nn.Dropout(proj_drop)
        self.compiled = False
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x_BLD: Tensor, heads: int | None = None) -> Tensor:
        """Tokens (B, L, D) to tokens; `heads` active heads, all by default, none skips the block."""
        if heads == 0:
            return x_BLD
        u_BLD = self.norm(x_BLD)
        if self.compiled:
            # Everything else decides which graph is right; a batch of another size needs no other one.
            torch._dynamo.maybe_mark_dynamic(u_BLD, 0)
        update_BLD = self.proj_drop(self.mixer(u_BLD, heads))
        # The update is nobody else's: adding in place saves fresh memory.
        return self.drop_path(update_BLD).add_(x_BLD)
