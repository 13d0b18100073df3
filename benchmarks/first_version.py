"""The block as it was first written: eager operations whose gradients are autograd's own.

What it costs against the present block says what became of training. Its scan is `ops.chunked.masked`'s
still.
"""

from __future__ import annotations

import torch
from matmamba_vision.layers import Block
from matmamba_vision.layers.mixer import NORM_EPSILON
from matmamba_vision.ops.chunked.masked import ssd_masked
from peers import mixer_of
from torch import Tensor, nn
from torch.nn import functional as F


class FirstBlock(nn.Module):
    """The first version of a block, with copies of the weights of a present one.

    It projected gate and input of a head by one matrix (H, 2P, D), which is a parameter here: to
    concatenate the present ones in each step would be charged to it.
    """

    in_zx: Tensor
    in_dt: Tensor
    in_BC: Tensor
    dt_bias: Tensor
    conv_BC: Tensor
    conv_BC_bias: Tensor
    conv_x: Tensor
    conv_x_bias: Tensor
    A_log: Tensor
    D: Tensor
    norm_weight: Tensor
    out: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        mixer = mixer_of(block)
        self.norm, self.chunk_size = nn.LayerNorm(block.norm.normalized_shape), mixer.setting.chunk_size
        self.norm.load_state_dict(block.norm.state_dict())
        for name, tensor in first_weights(dict(mixer.named_parameters())).items():
            self.register_parameter(name, nn.Parameter(tensor.detach().clone()))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Tokens (B, L, D) to tokens."""
        return x_BLD + self._mix(self.norm(x_BLD))

    def _mix(self, u_BLD: Tensor) -> Tensor:
        heads, double_dim, _ = self.in_zx.shape
        zx_BLHGP = F.linear(u_BLD, self.in_zx.flatten(0, 1)).unflatten(-1, (heads, 2, double_dim // 2))
        z_BLHP, x_BLHP = zx_BLHGP.unbind(-2)
        dt_BLH = F.softplus(F.linear(u_BLD, self.in_dt) + self.dt_bias)
        BC_BLN = _causal_conv(F.linear(u_BLD, self.in_BC), self.conv_BC, self.conv_BC_bias)
        B_BLN, C_BLN = BC_BLN.chunk(2, dim=-1)
        x_BLHP = _causal_conv(x_BLHP, self.conv_x, self.conv_x_bias)
        A_H = -self.A_log.float().exp()
        y_BLHP = ssd_masked(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, self.D, self.chunk_size)
        gated_BLI = y_BLHP.flatten(-2) * F.silu(z_BLHP.flatten(-2))
        y_BLI = F.rms_norm(gated_BLI, gated_BLI.shape[-1:], self.norm_weight.flatten(), NORM_EPSILON)
        return F.linear(y_BLI, self.out.flatten(1))


def first_weights(present: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the present mixer, or their gradients, named and laid out as in the first version."""
    kept = {name: tensor for name, tensor in present.items() if name not in ("in_z", "in_x", "norm")}
    in_zx = torch.cat((present["in_z"], present["in_x"]), dim=1)
    # The name `norm` is the block's own.
    return {"in_zx": in_zx, "norm_weight": present["norm"], **kept}


def _causal_conv(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution over tokens as shifted multiply-adds, then SiLU."""
    taps, length = kernel_XK.shape[-1], t_BLX.shape[1]
    padded_BLX = F.pad(t_BLX, [0, 0] * (t_BLX.dim() - 2) + [taps - 1, 0])
    y_BLX = torch.addcmul(bias_X, padded_BLX[:, :length], kernel_XK[..., 0])
    for tap in range(1, taps):
        y_BLX = torch.addcmul(y_BLX, padded_BLX[:, tap : tap + length], kernel_XK[..., tap])
    return F.silu(y_BLX)
