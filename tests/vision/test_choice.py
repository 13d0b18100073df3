"""Which backend computes, and what mamba-ssm's kernels are handed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.layers import mixer
from matmamba_vision.ops import BACKENDS, BackendError, Setting, mamba_ssm, reference, resolve
from matmamba_vision.ops.dispatch.backends import Backend, Scan, never_refuses
from matmamba_vision.ops.mamba_ssm import installed
from small import SMALL
from torch.nn import functional as F


def serving(backend: Backend) -> Backend:
    def scan(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
        raise AssertionError("nothing is measured at a first call")

    return replace(backend, refusal=never_refuses, scan=cast(Scan, scan))


def test_of_several_kernels_ours_are_taken_and_nothing_is_measured(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("triton", "mamba_ssm"):
        monkeypatch.setitem(BACKENDS, name, serving(BACKENDS[name]))
    with caplog.at_level("INFO"):
        chosen = resolve.__wrapped__("auto", Setting(device="cuda", dtype=torch.bfloat16))
    assert chosen.name == "triton"
    assert "state 128: triton (" in caplog.text
    monkeypatch.setitem(BACKENDS, "triton", replace(BACKENDS["triton"], refusal=lambda setting: "it is old"))
    with caplog.at_level("INFO"):
        chosen = resolve.__wrapped__("auto", Setting(device="cuda", dtype=torch.bfloat16))
    assert chosen.name == "mamba_ssm"
    assert "not triton: it is old" in caplog.text


def test_auto_fails_for_lack_of_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    installed.missing.cache_clear()
    with caplog.at_level("INFO"):
        assert resolve.__wrapped__("auto", Setting(device="cuda", dtype=torch.bfloat16)).name == "chunked"
    assert "not triton: triton is not installed" in caplog.text
    assert "not mamba_ssm: triton is not installed" in caplog.text
    installed.missing.cache_clear()


def test_a_backend_asked_for_by_name_raises_where_it_cannot_work() -> None:
    with pytest.raises(
        BackendError, match="'mamba_ssm' cannot be used: its kernels run on a GPU, not on cpu"
    ):
        resolve("mamba_ssm", Setting(device="cpu"))


def split_conv1d_scan(zxBCdt: torch.Tensor, *parameters: torch.Tensor, **options: Any) -> torch.Tensor:
    """What mamba-ssm's function of that name computes, by its definition."""
    kernel, bias, dt_bias, A, D, _ = parameters
    heads, inner = len(A), len(A) * options["headdim"]
    assert options["norm_before_gate"] is False
    z, xBC, dt = zxBCdt.split([inner, len(kernel), heads], dim=-1)
    x, B, C = reference.conv_silu_reference(xBC, kernel, bias).split(
        [inner, *[(len(kernel) - inner) // 2] * 2], -1
    )
    dt = F.softplus(dt + dt_bias)
    y = reference.ssd_reference(x.unflatten(-1, (heads, -1)), dt, A, B, C, D)
    return reference.gated_rms_norm_reference(
        y.flatten(2), z, options["rmsnorm_weight"], options["rmsnorm_eps"]
    )


@torch.no_grad()
@pytest.mark.parametrize("heads", [8, 3])
def test_the_packed_projection_is_the_published_layout(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    first = MatMamba(**SMALL).stack[0].mixer
    assert isinstance(first, mixer.Mixer)
    weights = first.weights(heads)
    u = torch.randn(2, 9, SMALL["embed_dim"])
    combined = SimpleNamespace(mamba_split_conv1d_scan_combined=split_conv1d_scan)
    monkeypatch.setattr(installed, "load", lambda module: combined)
    packed = mixer._mix_packed(u, weights, mamba_ssm.inner_mamba_ssm)
    torch.testing.assert_close(packed, mixer.mix(u, weights, mixer.MixerSetting("reference", 64, 8)))


def test_the_scan_hands_over_one_group_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    def combined(x, dt, A, B, C, chunk_size, D):  # type: ignore[no-untyped-def]
        return reference.ssd_reference(x, dt, A, B[:, :, 0], C[:, :, 0], D)

    monkeypatch.setattr(installed, "load", lambda module: SimpleNamespace(mamba_chunk_scan_combined=combined))
    x, dt, BC, numbers = torch.randn(1, 5, 2, 4), torch.rand(1, 5, 2), torch.randn(2, 1, 5, 3), torch.rand(2)
    inputs = (x, dt, -numbers, *BC, numbers)
    assert torch.equal(mamba_ssm.ssd_mamba_ssm(*inputs), reference.ssd_reference(*inputs))


@pytest.mark.parametrize(("taps", "channels", "row"), [(5, 8, 8), (4, 12, 8), (4, 8, 9)])
def test_a_layout_that_causal_conv1d_does_not_take_is_not_packed(
    taps: int, channels: int, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "has_conv", lambda: True)
    assert mamba_ssm.inner_where_it_fits(4, 8, 8) is mamba_ssm.inner_mamba_ssm
    assert mamba_ssm.inner_where_it_fits(taps, channels, row) is None
