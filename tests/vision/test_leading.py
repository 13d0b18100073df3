"""Leading parts of tensors: views, with the gradients that slices have."""

from __future__ import annotations

import pytest
import torch
from matmamba_vision.layers.leading import leading_parts

SHAPES = ((3, 4, 5), (7,), (5, 3, 2), (2,))
PARTS = ((2, 4, 5), (3,), (5, 2, 2), (2,))


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float32, torch.float64)], ids=str)
def test_gradients_are_those_of_slices(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    generator = torch.Generator().manual_seed(0)
    wholes = [
        torch.randn(shape, generator=generator, dtype=dtypes[number % 2]).requires_grad_()
        for number, shape in enumerate(SHAPES)
    ]
    sliced = [wholes[0][:2], wholes[1][:3], wholes[2][:, :2], wholes[3]]
    parts = leading_parts(wholes, PARTS)
    factors = [torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for tensor in parts]
    results = []
    for tensors in (parts, sliced):
        results.append(torch.autograd.grad([tensor.square() for tensor in tensors], wholes, factors))
    for found, wanted, whole, one, other in zip(*results, wholes, parts, sliced, strict=True):
        assert torch.equal(found, wanted)
        assert torch.equal(one, other)
        assert one.data_ptr() == whole.data_ptr()


def test_what_is_not_used_or_not_trained_gets_no_gradient() -> None:
    wholes = [torch.ones(4, requires_grad=True), torch.ones(4), torch.ones(4, requires_grad=True)]
    parts = leading_parts(wholes, ((2,), (3,), (2,)))
    assert [part.requires_grad for part in parts] == [True, False, True]
    (parts[0] * parts[1][:2]).sum().backward()
    gradient = wholes[0].grad
    assert gradient is not None
    assert gradient.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert wholes[1].grad is None
    assert wholes[2].grad is None
