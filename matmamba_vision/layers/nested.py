"""What the nested layers share: tensors of which a leading part is a smaller layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Nested(nn.Module):
    """A layer whose leading heads are a smaller layer.

    It is a sum of parts, heads or hidden units, of which a width takes the leading ones: the second axis of
    what they write by, and the first of all else that is theirs.

    Attributes:
        heads: H, all heads.
        writes: the parameter by which parts write to the residual stream.
        reads: the parameters whose norms say how much a part has to write.
        group_size: consecutive parts that share rows of the parameters `of_groups`.
        of_layer: parameters that are no part's.
    """

    heads: int
    writes: str
    reads: tuple[str, ...]
    of_layer: tuple[str, ...]
    of_groups: tuple[str, ...] = ()
    group_size: int = 1

    def leading(self, heads: int, state: int) -> dict[str, Tensor]:
        """The tensors of the leading heads by name, views wherever memory allows.

        Args:
            heads: active heads.
            state: active state size, where the layer has one.
        """
        raise NotImplementedError

    def macs(self, tokens: int, heads: int, state: int) -> int:
        """Multiply-adds of one sequence at the leading heads: products and convolutions."""
        raise NotImplementedError

    def order_by(self, importance: Tensor) -> Tensor:
        """The numbers of the parts (parts,), the most important first; equals keep their order.

        Groups are sorted by their sums, and the parts within each. A last group that is smaller than the
        others stays last, because no width can begin with a part of a group.
        """
        size = self.group_size
        groups = torch.arange(len(importance), device=importance.device).split(size)
        whole = len(importance) // size
        sums = importance[: whole * size].view(-1, size).sum(1)
        within = [group[importance[group].argsort(descending=True, stable=True)] for group in groups]
        first = [within[group] for group in sums.argsort(descending=True, stable=True).tolist()]
        return torch.cat([*first, *within[whole:]])

    def reordered(self, order: Tensor) -> dict[str, Tensor]:
        """The tensors by name with their parts in another order: a layer that computes the same.

        Args:
            order: (parts,) the old numbers in the new order, groups together, as `order_by` gives them.
        """
        groups = order[:: self.group_size] // self.group_size
        return {
            name: tensor if name in self.of_layer else self._moved(name, tensor, order, groups)
            for name, tensor in self.named_parameters(recurse=False)
        }

    def _moved(self, name: str, tensor: Tensor, order: Tensor, groups: Tensor) -> Tensor:
        if name in self.of_groups:
            return tensor.unflatten(0, (len(groups), -1))[groups].flatten(0, 1)
        return tensor[:, order] if name == self.writes else tensor[order]


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
