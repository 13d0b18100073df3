"""A frozen width is the encoder of a gallery: equal to the model, for any thread, and for no other size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from frozen_models import KINDS, TOLERANCE, model_of
from matmamba_vision import ConfigError, MatMamba, WidthError
from matmamba_vision.frozen import ENGINES, FrozenWidth, PackedWidth, freeze
from matmamba_vision.native import why_missing
from torch import Tensor

# Sizes that every engine takes.
FOR_ALL = {"head_dim": 16, "d_state": 16, "scan": "flip"}


@pytest.fixture(params=[name for name in ENGINES if name != "triton"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each engine of a CPU, as if it were the only one."""
    if request.param == "native" and (reason := why_missing()):
        pytest.skip(reason)
    for other in [name for name in ENGINES if name != request.param]:
        monkeypatch.delitem(ENGINES, other)
    name: str = request.param
    return name


def assert_equal(frozen: FrozenWidth, model: MatMamba, images: Tensor) -> None:
    wanted = model.embed(images, frozen.width).detach()
    found = frozen.embed(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_every_engine_equals_the_model(number: int, engine: str) -> None:
    kind, width = KINDS[number]
    model = model_of(kind)
    frozen = freeze(model, width)
    assert frozen.by.split()[0] in (engine, "model")
    assert frozen.label == model.label(width)
    for batch in (0, 1, 2, 9):
        assert_equal(frozen, model, model.random_images(batch))


def test_threads_share_a_frozen_width(engine: str) -> None:
    model = model_of(FOR_ALL)
    frozen = freeze(model, "1/2")
    assert frozen.by.split()[0] == engine
    batches = [model.random_images(20)[first : first + 1 + first % 3] for first in range(16)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(frozen.embed, batches * 8))
    for embedded, images in zip(found, batches * 8, strict=True):
        torch.testing.assert_close(embedded, frozen.embed(images), rtol=0, atol=0)


def test_another_size_is_one_clear_error(engine: str) -> None:
    frozen = freeze(model_of(FOR_ALL | {"dynamic_img_size": True}), "1/2")
    with pytest.raises(ConfigError, match=r"\(1, 3, 32, 32\): this width was frozen for \(B, 3, 16, 16\)"):
        frozen.embed(torch.zeros(1, 3, 32, 32))
    with pytest.raises(WidthError, match="1/3"):
        freeze(model_of({}), "1/3")


def test_images_of_other_numbers_or_strides_are_taken(engine: str) -> None:
    model = model_of(FOR_ALL)
    frozen, images = freeze(model, "1/2"), model.random_images(2)
    wanted = frozen.embed(images)
    assert torch.equal(frozen.embed(images.double()), wanted)
    assert torch.equal(frozen.embed(images.contiguous(memory_format=torch.channels_last)), wanted)


def test_the_model_itself_is_asked_where_it_has_to_be(images: Tensor) -> None:
    model = model_of({})
    frozen = freeze(model, "1/2")
    wanted = images.clone().requires_grad_()
    frozen.embed(wanted).sum().backward()
    assert wanted.grad is not None
    assert not frozen.embed(images).requires_grad
    assert freeze(model.double(), "1/2").by == "model"
    assert frozen.embed(images.double()).dtype == torch.float32
    assert freeze(model.float().train(), "1/2").by == "model"


def test_an_engine_that_cannot_serve_is_passed_over(model: MatMamba, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PackedWidth] = []
    known = dict(ENGINES)
    absent = {"absent": lambda packed, place: asked.append(packed)}
    monkeypatch.setattr("matmamba_vision.frozen.frozen_width.ENGINES", {**absent, **known})
    assert freeze(model, "1/2").by == "pytorch"
    assert [packed.name for packed in asked] == ["1/2"]
