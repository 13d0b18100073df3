"""Published checkpoints: read from wherever they lie, written back to the bit, and refused by name."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors
import torch
from huggingface_hub import constants
from matmamba_vision import CheckpointError, MatMamba, extract, load_official, save_official, to_official
from safetensors.torch import load_file, save_file
from small import SMALL, create

GOLDEN = Path(__file__).parents[1] / "data" / "official_tiny.safetensors"
HUB_NAME = "scaledfoundations/MatMamba-Vision-35M-ImageNet"
# 64 heads of d_model // 32, as every published model.
SIZES = {**SMALL, "embed_dim": 64, "num_heads": 64, "head_dim": 2}
State = dict[str, torch.Tensor]


@pytest.fixture
def weights() -> State:
    return {k.removeprefix("param."): v for k, v in load_file(GOLDEN).items() if k.startswith("param.")}


@pytest.fixture
def config() -> dict[str, Any]:
    with safetensors.safe_open(GOLDEN, "pt") as file:
        return json.loads(file.metadata()["config"])


@pytest.fixture
def folder(tmp_path: Path, weights: State, config: dict[str, Any]) -> Path:
    """A checkpoint as the published code writes it."""
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_equal(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_read_and_written_back_nothing_has_changed(weights: State, config: dict[str, Any]) -> None:
    state, again = to_official(load_official(weights, config))
    assert_equal(state, weights)
    assert again == config


@pytest.mark.parametrize("changed", [{"global_pool": "avg", "d_conv": 3}, {"drop_path_rate": 0.1}], ids=str)
def test_what_the_config_can_say_comes_back(changed: dict[str, Any]) -> None:
    model = MatMamba(**SIZES | changed).eval()
    loaded = load_official(*to_official(model))
    assert loaded.arguments == model.arguments
    assert_equal(loaded.state_dict(), model.state_dict())


def test_sixty_four_heads_are_not_taken_for_granted() -> None:
    """d_model 80 has 80 published heads, of 80 // 32."""
    model = load_official(*to_official(MatMamba(**SMALL | {"embed_dim": 80, "num_heads": 80, "head_dim": 2})))
    assert model.heads == (80, 80, 80)


def test_what_was_exported_is_a_copy(weights: State, config: dict[str, Any]) -> None:
    model = load_official(weights, config)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state, _ = to_official(model)
    for tensor in model.parameters():
        tensor.data.zero_()
    assert_equal(state, weights)
    assert all(tensor.is_contiguous() for tensor in state.values())


@pytest.mark.parametrize("name", ["", "pytorch_model.bin", "best_model_1.pt", "weights.safetensors"])
@pytest.mark.parametrize("given", [Path, str])
def test_a_saved_model_is_read_from_file_and_folder(
    tmp_path: Path, weights: State, config: dict[str, Any], name: str, given: Callable[[Path], Path | str]
) -> None:
    path = tmp_path / "saved"
    file = save_official(load_official(weights, config), given(path / name))
    assert file.name == (name or "model.safetensors")
    assert {found.name for found in path.iterdir()} == {file.name, "config.json"}
    for source in (path, file):
        assert_equal(to_official(load_official(given(source)))[0], weights)


def test_files_of_the_published_code_are_read_and_written(folder: Path, weights: State) -> None:
    model = load_official(folder)
    save_official(model, folder / "pytorch_model.bin")
    assert_equal(torch.load(folder / "pytorch_model.bin", weights_only=True), weights)


def test_a_config_that_is_given_is_preferred(folder: Path, weights: State, config: dict[str, Any]) -> None:
    named = (folder / "config.json").rename(folder / "sizes.json")
    assert load_official(folder, config).num_classes == 10
    assert load_official(folder / "pytorch_model.bin", named).num_classes == 10
    assert load_official(weights, str(named)).num_classes == 10


def test_the_published_defaults_stand_for_what_a_config_lacks(weights: State, config: dict[str, Any]) -> None:
    del config["n_classes"]
    with pytest.raises(
        ValueError, match=r"head\.weight has shape \(10, 64\), its config asks for \(1000, 64\)"
    ):
        load_official(weights, config)
    weights |= {"head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}
    assert load_official(weights, config).num_classes == 1000


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_what_trainers_wrap_around_is_taken_off(
    folder: Path, weights: State, prefix: str, wrapper: str
) -> None:
    state: dict[str, Any] = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, folder / "pytorch_model.bin")
    assert_equal(to_official(load_official(folder))[0], weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_precision_becomes_float32(weights: State, config: dict[str, Any], dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in weights.items()}
    state, _ = to_official(load_official(stored, config))
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert_equal(state, {name: tensor.float() for name, tensor in stored.items()})


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and an empty cache of the Hub: its folder."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into_cache(cache: Path, folder: Path) -> None:
    repository, revision = cache / f"models--{HUB_NAME.replace('/', '--')}", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / revision)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_a_hub_name_is_read(offline: Path, folder: Path, weights: State, file: str) -> None:
    if file == "model.safetensors":
        (folder / "pytorch_model.bin").unlink()
        save_file(weights, folder / file)
    put_into_cache(offline, folder)
    assert_equal(to_official(load_official(HUB_NAME))[0], weights)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("with_config", [False, True])
def test_a_hub_that_cannot_be_reached_is_said(config: dict[str, Any], with_config: bool) -> None:
    advice = rf"{HUB_NAME}.*cannot be reached.*offline.*download .*pytorch_model\.bin.* give the path"
    with pytest.raises(CheckpointError, match=advice):
        load_official(HUB_NAME, config if with_config else None)


@pytest.mark.parametrize(
    "failure", [TimeoutError("timed out"), ConnectionError("refused"), RuntimeError("proxy")]
)
def test_a_network_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(CheckpointError, match=rf"{HUB_NAME}.*cannot be reached \({failure}\).*give the path"):
        load_official(HUB_NAME)


class Refusal(BaseHTTPRequestHandler):
    """A Hub that has not what is asked for; the first part of the path says why."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", self.path.split("/")[1])
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not into the output of the tests."""


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize(
    ("code", "reason"),
    [("RepoNotFound", "has no public model"), ("EntryNotFound", r"without config\.json")],
)
def test_what_the_hub_has_not_is_said(code: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{code}/x.*{reason}.*give the path"):
        load_official(f"{code}/x")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "source", ["runs/model.safetensors", "/nowhere/at/all", "nowhere", Path("a/b")], ids=str
)
def test_a_missing_file_is_no_hub_name(source: Path | str) -> None:
    with pytest.raises(CheckpointError, match=f"no file or folder at {source}$"):
        load_official(source)


def test_pickled_code_is_never_run(folder: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"cls_token": Harm()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read.*never run"):
        load_official(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", [b"", b"not weights", None], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_named(folder: Path, file: str, damage: bytes | None) -> None:
    path = save_official(load_official(folder), folder / file)
    path.write_bytes(path.read_bytes()[:-2000] if damage is None else damage)
    with pytest.raises(CheckpointError, match=rf"{file} cannot be read"):
        load_official(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no config at"), ("{", "is damaged"), ("[1]", "is no config"), ("\xff{}", "is damaged")],
)
def test_a_config_that_is_missing_or_damaged_is_named(
    folder: Path, content: str | None, message: str
) -> None:
    file = folder / "config.json"
    file.unlink() if content is None else file.write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_official(folder)
    assert str(file) in str(caught.value)


def test_a_folder_without_one_file_of_weights_is_named(folder: Path) -> None:
    (folder / "pytorch_model.bin").rename(folder / "a.pt")
    assert load_official(folder).num_classes == 10
    (folder / "b.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{folder}.*'a\.pt', 'b\.pt'"):
        load_official(folder)


def test_another_kind_of_file_is_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json has none of the endings \.safetensors"):
        load_official(folder / "config.json")


@pytest.mark.parametrize("source", [3, None, [torch.zeros(1)]], ids=str)
def test_a_source_of_another_kind_is_named(source: Any) -> None:
    with pytest.raises(TypeError, match=r"source is .*: it can be a state dict, a path or a name on the Hub"):
        load_official(source)


def test_a_state_dict_needs_its_config(weights: State) -> None:
    with pytest.raises(ValueError, match="give `config`"):
        load_official(weights)


@pytest.mark.parametrize(
    "content", [[1], torch.zeros(1), {3: torch.zeros(1)}, {}], ids=["list", "tensor", "int", "empty"]
)
def test_a_file_without_a_state_dict_is_named(folder: Path, content: Any) -> None:
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: .*(not a state dict|lacks)"):
        load_official(folder)


D = "layers.2.mixer.D"
IN = "layers.0.mixer.in_proj.weight"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (D, None, "lacks"),
        ("layers.4.mixer.D", torch.ones(64), "unknown"),
        ("layers.0.mixer.in_proj.bias", torch.ones(352), "unknown"),
        (IN, torch.zeros(353, 64), r"shape \(353, 64\)"),
        (IN, torch.zeros(352, 64, 1), r"shape \(352, 64, 1\)"),
        (D, torch.full((64,), float("nan")), "not finite"),
        (D, torch.full((64,), float("-inf")), "not finite"),
        (D, torch.full((64,), 1e300, dtype=torch.float64), "not finite"),
        (D, torch.ones(64, dtype=torch.int64), "floating-point"),
        (D, [1.0] * 64, "floating-point"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, weights: State, name: str, value: Any, message: str
) -> None:
    changed: dict[str, Any] = weights | {name: value}
    if value is None:
        del changed[name]
    torch.save(changed, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin: .*{message}") as caught:
        load_official(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"d_model": None}, {"n_layer": "4"}, {"n_layer": True}, {"d_model": 16}, {"d_model": 100},
        {"n_classes": 0}, {"patch_size": 8.0}, {"image_size": [32, 32]}, {"pool": "max"},
        {"pool": []}, {"ssm_cfg": [16]}, {"drop_path_rate": "0.1"}, {"proj_drop_rate": 1.5},
        {"d_intermediate": 128}, {"attn_layer_idx": [1]}, {"rms_norm": True}, {"norm_epsilon": 1e-6},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_cannot_be_met_is_named(
    weights: State, config: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        load_official(weights, config | change)


@pytest.mark.parametrize(
    "change", [{"d_state": 0}, {"expand": 1}, {"norm_before_gate": True}, {"layer": "Mamba2"}], ids=str
)
def test_a_mixer_that_cannot_be_met_is_named(
    weights: State, config: dict[str, Any], change: dict[str, Any]
) -> None:
    config["ssm_cfg"] |= change
    with pytest.raises(ValueError, match=next(iter(change))):
        load_official(weights, config)


def test_what_the_published_code_writes_beside_the_sizes_changes_nothing(
    weights: State, config: dict[str, Any]
) -> None:
    """All fields of its config at their defaults, and the head size that it ignores."""
    rest = {
        "d_intermediate": 0, "attn_layer_idx": [], "attn_cfg": {}, "norm_epsilon": 1e-5, "rms_norm": False,
        "initializer_cfg": {}, "fused_add_norm": False, "residual_in_fp32": False, "drop_rate": 0.0,
        "drop_path_rate": 0.0, "proj_drop_rate": 0.0, "pool": "cls", "device": None, "dtype": None,
    }  # fmt: skip
    config["ssm_cfg"]["headdim"] = 64
    assert load_official(weights, config | rest).arguments["head_dim"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": 32}, {"num_heads": [64, 64, 32]}, {"head_dim": 4}, {"in_chans": 1}, {"num_classes": 0},
        {"global_pool": ""}, {"img_size": (16, 32)}, {"patch_size": (4, 8)}, {"embed_dim": 16},
    ],
    ids=str,
)  # fmt: skip
def test_a_model_that_the_layout_cannot_express_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    model = MatMamba(**SIZES | change)
    with pytest.raises(ValueError, match=next(iter(change))):
        save_official(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_width_of_a_published_model_is_not_one(weights: State, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="num_heads"):
        to_official(extract(load_official(weights, config), "1/2"))


def test_parameters_that_the_layout_has_no_place_for_are_named() -> None:
    model = MatMamba(**SIZES)
    model.get_submodule("blocks.1.mixer").register_parameter("in_bias", torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(ValueError, match=r"blocks\.1\.mixer\.in_bias"):
        to_official(model)
    model = MatMamba(**SIZES)
    model.blocks[1].norm = torch.nn.LayerNorm(64, bias=False)
    with pytest.raises(ValueError, match=r"blocks\.1\.norm\.bias"):
        to_official(model)


@pytest.mark.parametrize("name", ["matmamba_small_patch16_224", "matmamba_base_patch16_224"])
def test_the_published_models_are_registered_with_their_layout(name: str) -> None:
    model = create(name, depth=1)
    assert to_official(model)[1]["ssm_cfg"] == {"d_state": 128}


def test_a_full_disk_leaves_both_files_as_they_were(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in folder.iterdir()}
    write = Path.write_bytes

    def full_disk(file: Path, content: bytes) -> int:
        if file.name.startswith("config.json"):
            raise OSError("no space left")
        return write(file, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_official(MatMamba(**SIZES), folder / "pytorch_model.bin")
    assert {file: file.read_bytes() for file in before} == before
