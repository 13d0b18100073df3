"""A block: one or two residual branches, each of which normalises, computes and adds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .attention import Attention
from .carried_state import MixerStates, mix_on
from .depth import DropPath
from .mixer import Mixer
from .mlp import Mlp
from .nested import Nested
from .order import BLOCK_SCANS, Orders


class Block(nn.Module):
    """Pre-norm residual block around a nested mixer (MatMamba, arXiv 2410.06718), and around an MLP if given.

    Args:
        mixer: Mamba2's mixer, or attention.
        dim: D.
        mlp: the second branch.
        scan: which way a Mamba2 mixer reads the tokens, a key of `BLOCK_SCANS`.
        mean_of: the tokens whose mean a Mamba2 mixer reads first (Adventurer, arXiv 2410.07599).
        proj_drop: dropout of an update.
        drop_path: share of samples whose updates are skipped in training.
        device: of the norms' parameters.
        dtype: of the norms' parameters.
    """

    norm: nn.LayerNorm

    def __init__(
        self,
        mixer: Mixer | Attention,
        dim: int,
        mlp: Mlp | None = None,
        *,
        scan: str = "rows",
        mean_of: slice | None = None,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.mixer, self.scan, self.mean_of = mixer, scan, mean_of
        if mlp is not None:
            self.mlp_norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.mlp = mlp
        self.proj_drop = nn.Dropout(proj_drop)
        self.compiled = False
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    @property
    def heads(self) -> int:
        """All heads: those of a nested mixer, or else the parts into which the MLP is divided."""
        is_whole = isinstance(self.mixer, Attention) and not self.mixer.nested
        return self.mlp.heads if is_whole and self.mlp is not None else self.mixer.heads

    @property
    def state_dim(self) -> int:
        """N of a Mamba2 mixer; 0 if there is none."""
        return self.mixer.state_dim if isinstance(self.mixer, Mixer) else 0

    def layers(self) -> Iterator[tuple[str, Nested]]:
        """The nested layers by name."""
        yield "mixer", self.mixer
        if self.mlp is not None:
            yield "mlp", self.mlp

    def forward(
        self, x_BLD: Tensor, heads: int | None = None, state: int | None = None, orders: Orders = (None,)
    ) -> Tensor:
        """Tokens (B, L, D) to tokens.

        Args:
            x_BLD: the residual stream.
            heads: active heads, all by default; 0 skips the block.
            state: active state size, all by default.
            orders: those of the block's scan, see `scan_orders`.
        """
        if heads == 0:
            return x_BLD
        return self._end(self._first(x_BLD, heads, state, orders), heads)

    def step(
        self, x_BLD: Tensor, heads: int, state: int, orders: Orders, carried: MixerStates
    ) -> tuple[Tensor, MixerStates]:
        """Tokens to tokens, behind those that left the states `carried`; with the states that these leave.

        Arguments as of `forward`; the mixer is Mamba2's, and reads no mean.
        """
        assert isinstance(self.mixer, Mixer)
        assert self.mean_of is None
        if heads == 0:
            return x_BLD, ()
        u_BLD = self.mixer.normalised(x_BLD, self.norm)
        weights = self.mixer.weights(heads, state)
        update_BLD, carried = mix_on(u_BLD, weights, self.mixer.setting, orders, carried)
        return self._end(self._add(x_BLD, update_BLD), heads), carried

    def _end(self, x_BLD: Tensor, heads: int | None) -> Tensor:
        """The second branch."""
        if self.mlp is None:
            return x_BLD
        return self._add(x_BLD, self.mlp(self._ready(self.mlp_norm(x_BLD)), heads))

    def _first(self, x_BLD: Tensor, heads: int | None, state: int | None, orders: Orders) -> Tensor:
        """The branch of the mixer."""
        if isinstance(self.mixer, Attention):
            return self._add(x_BLD, self.mixer(self._ready(self.norm(x_BLD)), heads))
        adds = not (self.training and self._drops)
        read_BLD = x_BLD
        if self.mean_of is not None:
            read_BLD = torch.cat([x_BLD[:, self.mean_of].mean(1, keepdim=True), x_BLD], dim=1)
        if self.compiled or not self.mixer.takes_norm(read_BLD, state, orders):
            adds = False
            u_BLD = self._ready(self.mixer.normalised(read_BLD, self.norm))
            result_BLD = self.mixer(u_BLD, heads, state, orders)
        else:
            result_BLD = self.mixer(read_BLD, heads, state, orders, before=self.norm, adds=adds)
        if self.mean_of is not None:
            result_BLD = result_BLD[:, 1:].contiguous()
        return result_BLD if adds else self._add(x_BLD, result_BLD)

    @property
    def _drops(self) -> bool:
        """Whether updates are changed in training before they are added."""
        return self.proj_drop.p > 0 or isinstance(self.drop_path, DropPath)

    def _ready(self, u_BLD: Tensor) -> Tensor:
        if self.compiled:
            # Everything else decides which graph is right; a batch of another size needs no other one.
            torch._dynamo.maybe_mark_dynamic(u_BLD, 0)
        return u_BLD

    def _add(self, x_BLD: Tensor, update_BLD: Tensor) -> Tensor:
        # The update is nobody else's: adding in place saves fresh memory.
        return self.drop_path(self.proj_drop(update_BLD)).add_(x_BLD)

    def leading(self, heads: int, state: int) -> dict[str, Tensor]:
        """The block's tensors at a width by name: what an extracted block has."""
        tensors: dict[str, Tensor] = {}
        for name, layer in self.layers():
            tensors |= {f"{name}.{part}": tensor for part, tensor in layer.leading(heads, state).items()}
        # Norms belong to every width.
        return tensors | {name: tensor for name, tensor in self.named_parameters() if "norm." in name}

    def macs(self, tokens: int, heads: int, state: int) -> int:
        """Multiply-adds of one sequence at a width; 0 where the block is skipped."""
        if heads == 0:
            return 0
        mlp = 0 if self.mlp is None else self.mlp.macs(tokens, heads)
        if isinstance(self.mixer, Attention):
            return mlp + self.mixer.macs(tokens, heads)
        read = tokens + (self.mean_of is not None)
        return mlp + self.mixer.macs(read, heads, state, scans=len(BLOCK_SCANS[self.scan]))

    def reset_parameters(self, out_scale: float) -> None:
        """Fresh weights; `out_scale` is a factor on what is added to the residual stream."""
        self.norm.reset_parameters()
        if self.mlp is not None:
            self.mlp_norm.reset_parameters()
            self.mlp.reset_parameters(out_scale)
        self.mixer.reset_parameters(out_scale)
