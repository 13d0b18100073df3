"""Which parts of each layer matter most, and models whose leading parts do.

An ordinary network becomes a nested one this way: its widths begin with what it would miss most, and are then
trained jointly (sorting before that: Once-for-All, arXiv 1908.09791, which sorts channels by their weights).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import LabelledBatch
from ..errors import ConfigError
from ..layers import Attention, Nested
from .matmamba import MatMamba

# By the layer's name in the model, such as "blocks.0.mixer": (parts,), larger is more important.
Importance = Mapping[str, Tensor]


@torch.no_grad()
def importance_of_weights(model: MatMamba) -> dict[str, Tensor]:
    """Importance of each head, and of each hidden unit of an MLP, by its weights alone.

    The product of the norms of what a part reads and writes with: it bounds what the part can add to the
    residual stream.

    Returns:
        By the name of each nested layer, (parts,), not negative.
    """
    return {name: _size_of_parts(layer) for name, layer in nested_layers(model)}


def _size_of_parts(layer: Nested) -> Tensor:
    weights = dict(layer.named_parameters())
    read = [weights[name].float().flatten(1).norm(dim=1) for name in layer.reads]
    written = weights[layer.writes].float().transpose(0, 1).flatten(1).norm(dim=1)
    return math.prod([*read, written])


def importance_of_gradients(model: MatMamba, batches: Iterable[LabelledBatch]) -> dict[str, Tensor]:
    """Importance of each head, and of each hidden unit of an MLP, by what the loss would lose without it.

    First-order Taylor expansion of the cross-entropy in a gate on each part, squared, mean over the batches
    (Molchanov et al. 2019, arXiv 1906.10771): the sum of the part's output weights times their gradients.
    The model is used in evaluation mode at full width; its gradients are lost.

    Args:
        model: left as it was, but for its gradients.
        batches: images, and labels among the model's classes.

    Returns:
        By the name of each nested layer, (parts,), not negative.

    Raises:
        ConfigError: there is no image.
    """
    layers, was_training, count = dict(nested_layers(model)), model.training, 0
    found = {
        name: torch.zeros(_parts(layer), device=model.pos_embed.device) for name, layer in layers.items()
    }
    model.eval()
    for batch in batches:
        if len(batch):
            _add_gradients(found, layers, model, batch)
            count += 1
    model.zero_grad()
    model.train(was_training)
    if not count:
        raise ConfigError("importance by gradients needs at least one image")
    return {name: total / count for name, total in found.items()}


def _add_gradients(
    found: dict[str, Tensor], layers: dict[str, Nested], model: MatMamba, batch: LabelledBatch
) -> None:
    device = model.pos_embed.device
    model.zero_grad()
    F.cross_entropy(model(batch.images.to(device)), batch.labels.to(device)).backward()
    for name, layer in layers.items():
        written = layer.get_parameter(layer.writes)
        assert written.grad is not None
        gates = (written.detach() * written.grad).float().transpose(0, 1).flatten(1).sum(1)
        found[name] += gates.square()


@torch.no_grad()
def sort_heads(model: MatMamba, importance: Importance) -> MatMamba:
    """A copy of `model` whose leading heads, and leading hidden units, are the most important ones.

    At full width it computes what `model` computes, up to the order of sums. Mode, input settings and trained
    widths stay. Where groups of heads share B and C, groups and the heads within each are sorted. Attention
    that is never cut stays as it is.

    Raises:
        ConfigError: a layer is missing from `importance`, or its numbers are not one for each part.
    """
    copied = copy.deepcopy(model)
    for name, layer in nested_layers(copied):
        values = importance.get(name)
        if values is None or values.shape != (_parts(layer),) or not values.isfinite().all():
            raise ConfigError(f"importance of {name}: give {_parts(layer)} finite numbers, not {values}")
        layer.load_state_dict(layer.reordered(layer.order_by(values)))
    return copied


def nested_layers(model: MatMamba) -> Iterator[tuple[str, Nested]]:
    """The layers that widths cut, by name."""
    for index, block in enumerate(model.stack):
        for name, layer in block.layers():
            if not isinstance(layer, Attention) or layer.nested:
                yield f"blocks.{index}.{name}", layer


def _parts(layer: Nested) -> int:
    return layer.get_parameter(layer.writes).shape[1]
