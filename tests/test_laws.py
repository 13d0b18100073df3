"""The laws of the design: what must hold of every model, backend and gallery.

The one of resumed runs stands in cli/test_resume.py.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from lookups import by_index
from matmamba_retrieval import Encoded, EncodedQueries, Gallery, GalleryError, Strategy, search
from matmamba_vision import MatMamba, extract, load_official
from matmamba_vision.ops import BACKENDS, Setting, ssd
from matmamba_vision.width import WidthLike
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "data" / "official_tiny.safetensors"
# Agreement with the published model, absolute.
PUBLISHED = 1e-4
# Agreement of a backend with the recurrence in float64, relative to the largest value, by dtype.
BACKEND_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
CPU_BACKENDS = [name for name, backend in BACKENDS.items() if name != "reference" and not backend.gpu]
WIDTHS = ("full", "1/2", "1/4", "1/8", [8, 2, 5], [1, 0, 3], [0, 0, 1])


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_law_1_extraction_is_equal_to_the_bit(
    model: MatMamba, images: torch.Tensor, width: WidthLike
) -> None:
    small = extract(model, width)
    assert torch.equal(small(images), model(images, width=width))
    assert torch.equal(small.embed(images, dim=7), model.embed(images, width=width, dim=7))


def test_law_2_the_default_is_the_full_width(model: MatMamba, images: torch.Tensor) -> None:
    assert torch.equal(model(images), model(images, width="full"))


@pytest.mark.parametrize("width", WIDTHS[1:], ids=str)
def test_law_2_a_width_depends_on_its_heads_alone(
    model: MatMamba, images: torch.Tensor, width: WidthLike
) -> None:
    before = model(images, width=width)
    before.square().sum().backward()
    for block, heads in zip(model.stack, model.width(width).heads, strict=True):
        for name, tensor in block.mixer.named_parameters():
            if name in ("in_BC", "conv_BC", "conv_BC_bias"):
                continue
            inactive = (slice(None), slice(heads, None)) if name == "out" else (slice(heads, None),)
            assert tensor.grad is None or not tensor.grad[inactive].any(), name
            with torch.no_grad():
                tensor[inactive] = 1e6
    assert torch.equal(model(images, width=width), before)


def scan_inputs(
    batch: int, length: int, heads: int, dtype: torch.dtype, decay: float = 1.0
) -> list[torch.Tensor]:
    """Random inputs; `decay` multiplies the decay of every second head."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, dt = normal(batch, length, heads, 3), torch.nn.functional.softplus(normal(batch, length, heads))
    A, B, C, D = -normal(heads).exp(), normal(batch, length, 5), normal(batch, length, 5), normal(heads)
    A[1::2] *= decay
    return [tensor.to(dtype).requires_grad_() for tensor in (x, dt, A, B, C, D)]


def outputs_and_gradients(backend: str, inputs: list[torch.Tensor], chunk_size: int) -> list[torch.Tensor]:
    y = ssd(*inputs, chunk_size=chunk_size, backend=backend)
    # Rounded as the coarsest type does, so that every type weighs alike.
    weight = torch.linspace(-1, 1, y.numel()).bfloat16().to(y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weight).sum(), inputs)]


def require_serving(backend: str, dtype: torch.dtype = torch.float32) -> None:
    if reason := BACKENDS[backend].refusal(Setting(dtype=dtype)):
        pytest.skip(reason)


@pytest.mark.parametrize("dtype", BACKEND_TOLERANCE, ids=str)
@pytest.mark.parametrize("length", [1, 2, 7, 16, 17, 33, 100])
@pytest.mark.parametrize("decay", [1, 100, 1e5])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_law_3_backends_equal_the_reference(
    backend: str, decay: float, length: int, dtype: torch.dtype
) -> None:
    require_serving(backend, dtype)
    inputs = scan_inputs(2, length, 4, dtype, decay)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact = outputs_and_gradients("reference", exact_inputs, 16)
    for found, wanted in zip(outputs_and_gradients(backend, inputs, 16), exact, strict=True):
        assert found.dtype == dtype
        # A gradient that is exactly 0, as that of A for one token, is found up to rounding.
        scale = wanted.abs().max().clamp(min=0.1)
        assert (found.double() - wanted).abs().max() <= BACKEND_TOLERANCE[dtype] * scale


def published() -> tuple[MatMamba, dict[str, torch.Tensor], dict[str, WidthLike]]:
    tensors = load_file(GOLDEN)
    with safetensors.safe_open(GOLDEN, "pt") as file:
        about = file.metadata()
    config = json.loads(about["config"])
    weights = {
        name.removeprefix("param."): tensor for name, tensor in tensors.items() if name.startswith("param.")
    }
    head_dim = config["d_model"] // 32
    mixed = [2 * dim // head_dim for dim in json.loads(about["mixnmatch_dims"])]
    widths: dict[str, WidthLike] = {
        "level1": "full",
        "level2": "1/2",
        "level4": "1/4",
        "level8": "1/8",
        "mixnmatch": mixed,
    }
    return load_official(weights, config), tensors, widths


@torch.no_grad()
@pytest.mark.parametrize("backend", ["reference", *CPU_BACKENDS])
def test_law_4_the_published_model_is_reproduced(backend: str) -> None:
    require_serving(backend)
    model, recorded, widths = published()
    model.use_backend(backend)
    for level, width in widths.items():
        features = model.forward_head(model.forward_features(recorded["input"], width), pre_logits=True)
        assert (features - recorded[f"features.{level}"]).abs().max() < PUBLISHED
        assert (model(recorded["input"], width) - recorded[f"logits.{level}"]).abs().max() < PUBLISHED


@torch.no_grad()
@pytest.mark.parametrize("backend", ["reference", *CPU_BACKENDS])
def test_law_5_a_token_does_not_see_the_next(model: MatMamba, images: torch.Tensor, backend: str) -> None:
    """Patches are tokens in raster order: changing the last patch changes no earlier token.

    Chunks weigh by the decay of the whole chunk and divide by it again: equal up to rounding.
    """
    require_serving(backend)
    model.use_backend(backend)
    changed = images.clone()
    changed[:, :, 12:, 12:] += 1
    before, after = model.forward_features(images), model.forward_features(changed)
    rounding = 0 if backend == "reference" else 1e-5
    torch.testing.assert_close(before[:, :15], after[:, :15], rtol=0, atol=rounding)
    assert not torch.equal(before[:, 15], after[:, 15])
    assert not torch.equal(before[:, 16], after[:, 16])


def queries_like(gallery: Gallery, seed: int = 0) -> EncodedQueries:
    """Queries whose small-width vectors are noisy full-width ones; some are equal to stored vectors."""
    rng = np.random.default_rng(seed)
    stored = gallery.segments.read(np.arange(20)).astype(np.float32)
    full = np.concatenate([stored, rng.standard_normal((20, 32)).astype(np.float32)])
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    small = full + 0.2 * rng.standard_normal(full.shape).astype(np.float32)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    return EncodedQueries({"full": Encoded(full, 8.0, 1.0), "1/8": Encoded(small, 1.0, 0.1)})


@pytest.mark.parametrize("seed", range(5))
def test_law_6_a_shortlist_of_everything_is_single_shot(gallery: Gallery, seed: int) -> None:
    queries = queries_like(gallery, seed)
    exact = search(gallery, Strategy.single_shot(), queries, 10)
    listed = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=len(gallery)), queries, 10)
    assert np.array_equal(listed.I, exact.I)
    assert np.array_equal(listed.D, exact.D)


WRITER = """
import sys, numpy as np
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
gallery = Gallery(sys.argv[1], write=True)
print("ready", flush=True)
while True:
    start = len(gallery)
    # A vector says which key it belongs to.
    angles = np.arange(start, start + 50)[:, None] * 0.001 + np.array([[0.0, np.pi / 2]])
    gallery.add([Row(f"id{key}", "", None) for key in range(start, start + 50)], np.cos(angles))
    print(len(gallery), flush=True)
    gallery.build_shortlist(2)
    print(len(gallery), flush=True)
"""


def test_law_7_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    from matmamba_retrieval import EmbeddingSpec

    chance = random.Random(0)
    folder = tmp_path / "gallery"
    Gallery.create(folder, EmbeddingSpec("b" * 64, "full", 2)).close()
    acknowledged = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        writer.wait()
        acknowledged = max([acknowledged, *said])
        with Gallery(folder) as gallery:
            keys = np.arange(len(gallery))
            assert len(gallery) >= acknowledged
            assert [row.id for row in gallery.rows(keys)] == [f"id{key}" for key in keys]
            vectors = gallery.segments.read(keys)
            assert np.allclose(vectors[:, 0], np.cos(keys * 0.001), atol=1e-3)
            for dim in gallery.shortlist_dims():
                assert len(by_index(gallery, np.array([[1.0, 0.0]], dtype=np.float32), 3)[0]) == 3, dim
    assert acknowledged >= 50


def test_law_9_damaged_vectors_are_named_and_stay_as_they_are(gallery: Gallery) -> None:
    file = next((gallery.folder / "segments").iterdir())
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    with Gallery(gallery.folder) as reopened, pytest.raises(GalleryError, match=file.name):
        search(reopened, Strategy.single_shot(), queries_like(gallery), 3)
    assert file.read_bytes() == content
