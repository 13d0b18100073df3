"""The kernels in C: what the definition computes, with every instruction set, in any batch and thread."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

import frozen_models
import numpy as np
import pytest
import torch
from matmamba_common.native import loading
from matmamba_vision import MatMamba
from matmamba_vision.frozen.native_width import native_engine, network_arrays
from matmamba_vision.frozen.packed import pack
from matmamba_vision.native import (
    Library,
    Network,
    NetworkFileError,
    compiled,
    from_bytes,
    library,
    refusal,
    to_bytes,
    why_missing,
)

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=f"no kernels: {why_missing()}")

# Small, and of sizes that fill neither panels nor tiles.
SIZES: dict[str, Any] = {
    "img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 5, "head_dim": 16,
    "d_state": 16, "num_classes": 0,
}  # fmt: skip
KINDS: list[tuple[dict[str, Any], str]] = [
    ({}, "full"),
    ({"scan": "flip"}, "5-0-2"),
    ({"scan": "cross", "depth": 5, "reg_tokens": 3, "img_size": (24, 40)}, "3"),
    ({"scan": ("columns", "rows", "columns_reversed"), "reg_tokens": 2}, "2-1-4"),
    ({"global_pool": "avg", "scan": "flip", "head_dim": 32, "d_state": 32}, "3"),
    ({"projection": 20, "bias": True, "d_conv": 7, "head_dim": 64, "num_heads": 2, "d_state": 48}, "full"),
    ({"projection": 70, "global_pool": "avg", "d_conv": 1, "in_chans": 1, "patch_size": (8, 4)}, "4"),
    # So many tokens that there is a state between chunks, and the last chunk is another size.
    ({"img_size": (60, 92), "scan": "flip", "global_pool": "avg"}, "3"),
    ({"img_size": (60, 92), "d_state": (32, 16, 64), "scan": "flip", "reg_tokens": 1}, "full"),
    ({"img_size": 4, "scan": "flip"}, "full"),
]
NAMES = ["avx512", "avx2", "neon"]


def model_of(kind: dict[str, Any]) -> MatMamba:
    torch.manual_seed(0)
    model = MatMamba(**SIZES | kind, trained_widths=("full",)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def network_of(model: MatMamba, width: str = "full", kernels: Library | None = None) -> Network:
    arrays = network_arrays(pack(model, width))
    assert arrays is not None
    assert refusal(arrays) is None
    found = kernels or library()
    assert found is not None
    return Network(arrays, found)


def of_set(name: str) -> Library:
    try:
        return Library(instructions=name)
    except OSError:
        pytest.skip(f"this processor has no {name}")


def embedded(network: Network, images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(network.embed(images.numpy()))


def width_of(model: MatMamba, width: str) -> str:
    """Heads of each block: one number stands for all of them."""
    return "-".join([width] * len(model.heads)) if width.isdigit() else width


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "width"), KINDS)
def test_embeddings_are_those_of_the_model(name: str, kind: dict[str, Any], width: str) -> None:
    kernels, model = of_set(name), model_of(kind)
    width = width_of(model, width)
    images = model.random_images(3)
    with torch.no_grad():
        wanted = model.embed(images, width)
    found = embedded(network_of(model, width, kernels), images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=frozen_models.TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [32, 92])
@pytest.mark.parametrize(("strong", "slow"), frozen_models.DECAYS)
def test_heads_that_forget_at_once_and_heads_that_never_do(
    name: str, size: int, strong: float, slow: float
) -> None:
    kernels = of_set(name)
    model = frozen_models.with_decays(model_of({"img_size": size, "scan": "flip"}), strong, slow)
    images = model.random_images(2)
    with torch.no_grad():
        wanted = model.double().embed(images.double())
    found = embedded(network_of(model.float(), kernels=kernels), images)
    assert found.isfinite().all()
    torch.testing.assert_close(found, wanted, rtol=0, atol=frozen_models.TOLERANCE)


@pytest.mark.parametrize(
    "kind",
    # Threads that share an image share its tokens, or the channels of a wide or of a long one.
    [{"scan": "flip"}, {"scan": "cross", "num_heads": 40}, {"scan": "flip", "img_size": (60, 92)}],
)
def test_an_image_has_one_embedding_whatever_the_batch_and_the_number_of_threads(
    kind: dict[str, Any],
) -> None:
    model = model_of(kind)
    network, images = network_of(model), model.random_images(70)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            # Of 1 and of 3 images at once, threads share each; of more, they share them out.
            parts = [torch.cat([embedded(network, x) for x in images.split(size)]) for size in (1, 3, 17)]
            found += [embedded(network, images), *parts]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)
    assert network.embed(images[:0].numpy()).shape == (0, 48)


def test_threads_that_were_woken_wait_for_work_or_sleep_again() -> None:
    model = model_of({"scan": "flip"})
    network, images = network_of(model), model.random_images(1)
    wanted = embedded(network, images)
    for rest in (0.0, 0.0001, 0.02):
        network.wake()
        time.sleep(rest)
        network.wake()
        assert torch.equal(embedded(network, images), wanted)
    network.wake()


def test_threads_of_python_do_not_disturb_each_other() -> None:
    model = model_of({"scan": "flip"})
    network, images = network_of(model), model.random_images(8)
    wanted = embedded(network, images)
    found: list[torch.Tensor] = []
    calls = [
        threading.Thread(target=lambda: found.extend(embedded(network, images) for _ in range(20)))
        for _ in range(4)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert len(found) == 80
    assert all(torch.equal(one, wanted) for one in found)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core, or not Linux"
)
def test_workers_are_woken_on_other_cores_than_that_of_the_caller() -> None:
    model = model_of({})
    network, images = network_of(model), model.random_images(1)
    two = set(sorted(os.sched_getaffinity(0))[:2])
    found: list[set[int]] = []
    tasks = Path("/proc/self/task")

    def ask() -> None:
        torch.set_num_threads(2)
        before = set(tasks.iterdir())
        for allowed in (two, {min(two)}, two):
            os.sched_setaffinity(0, allowed)
            embedded(network, images)
            # The thread that it made for this one.
            (worker,) = set(tasks.iterdir()) - before
            found.append(os.sched_getaffinity(int(worker.name)))

    caller = threading.Thread(target=ask)
    caller.start()
    caller.join()
    first, alone, last = found
    assert len(first) == len(last) == 1
    assert first < two
    assert alone == {min(two)}
    assert last < two


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    model = model_of({})
    network, images = network_of(model), model.random_images(5)
    wanted = embedded(network, images)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(embedded(network, images), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_not_a_number_stays_none() -> None:
    model = model_of({})
    images = model.random_images(2)
    images[0, 0, 3, 3] = torch.nan
    found = embedded(network_of(model), images)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


@pytest.mark.parametrize(
    "kind", [{"attention_blocks": [1]}, {"heads_per_group": 2}, {"scan": "bidirectional"}]
)
def test_other_blocks_are_not_for_the_kernels(kind: dict[str, Any]) -> None:
    assert native_engine(pack(model_of(kind), "full")) is None


@pytest.mark.parametrize(
    ("kind", "named"),
    [({"head_dim": 8}, "head_dim"), ({"d_state": 24}, "state"), ({"embed_dim": 40}, "embed_dim")],
)
def test_other_sizes_are_refused_by_name(kind: dict[str, Any], named: str) -> None:
    arrays = network_arrays(pack(model_of(kind), "full"))
    assert arrays is not None
    assert named in str(refusal(arrays))


def test_a_missing_or_damaged_library_is_one_line_of_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "libkernels.so"
    damaged.write_bytes(b"not a library")
    for file, said in ((tmp_path / "none.so", "make native"), (damaged, "libkernels.so")):
        caplog.clear()
        # Another test may have been told already.
        loading._notice.cache_clear()
        monkeypatch.setattr(loading, "FILE", file)
        assert library() is None
        assert library() is None
        (record,) = caplog.records
        assert said in record.message


def test_structures_are_as_large_as_in_the_library() -> None:
    kernels = library()
    assert kernels is not None
    for structure in (compiled.BlockStruct, compiled.PatchesStruct, compiled.EndingStruct):
        size = kernels._calls.matmamba_size_of(structure.__name__.removesuffix("Struct").encode())
        assert size == ctypes.sizeof(structure)


def test_padding_never_reaches_a_result() -> None:
    # Memory of a pool is used again: what another image left there must not count.
    model = model_of({"scan": "flip"})
    network, images = network_of(model), model.random_images(3)
    wanted = network.embed(images.numpy())
    assert np.isnan(network.embed((torch.nan * images).numpy())).all()
    assert np.array_equal(network.embed(images.numpy()), wanted)


@pytest.mark.parametrize("kind", [{"scan": "flip"}, {"projection": 20, "bias": True, "global_pool": "avg"}])
def test_a_width_written_and_read_computes_the_same(kind: dict[str, Any]) -> None:
    model = model_of(kind)
    arrays = network_arrays(pack(model, "full"))
    kernels = library()
    assert arrays is not None
    assert kernels is not None
    written = to_bytes(arrays)
    images = model.random_images(2).numpy()
    again = from_bytes(written)
    assert to_bytes(again) == written
    assert np.array_equal(Network(again, kernels).embed(images), Network(arrays, kernels).embed(images))


def test_other_bytes_are_no_width() -> None:
    arrays = network_arrays(pack(model_of({}), "full"))
    assert arrays is not None
    written = to_bytes(arrays)
    for damaged in (b"", b"not a file", written[: len(written) // 2]):
        with pytest.raises(NetworkFileError, match="damaged"):
            from_bytes(damaged)


def test_threads_end_with_the_process_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the process the names of a module may be gone before what it made."""
    freed: list[int] = []
    pool = compiled.Pool(_Calls(freed), 1)
    monkeypatch.setattr(compiled, "os", None)
    pool.__del__()
    assert freed == [7]
    pool.address = 0


class _Calls:
    """In place of the library: one pool, of address 7."""

    def __init__(self, freed: list[int]) -> None:
        self.matmamba_pool_free = freed.append

    def matmamba_pool_new(self, threads: int) -> int:
        return 7
