"""The blocks and models that the benchmarks measure: ours, and what ours are measured against."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matmamba_vision import MatMamba
from matmamba_vision.layers import Block, Mixer, MixerSetting, MixerWeights
from matmamba_vision.native import library
from matmamba_vision.ops import BACKENDS, Setting
from measuring import Case, Plan, Ratio, alternate, measure_case, timed
from timm import create_model
from timm.models.vision_transformer import Block as ViTBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK_SIZE = 64
# Channels of an attention head, as in the published vision transformers.
ATTENTION_HEAD_DIM = 64
LARGEST_DIFFERENCE_OF_PARAMETERS = 0.02


@dataclass(frozen=True)
class BlockShape:
    """Sizes of a block and of its input; the defaults are those of the small model at 224 px."""

    dim: int = 512
    heads: int = 64
    head_dim: int = 16
    state_dim: int = 128
    taps: int = 4
    tokens: int = 197
    batch: int = 8

    def settings(self, **more: Any) -> dict[str, Any]:
        """For the JSON."""
        kernels = library()
        return {**asdict(self), "dtype": "float32", "kernels": kernels and kernels.instructions, **more}

    def widths(self) -> dict[str, int]:
        """Active heads of the trained widths."""
        return {"full": self.heads, **{f"1/{part}": self.heads // part for part in (2, 4, 8)}}

    def block(self) -> Block:
        """Our block, freshly initialised, without dropout."""
        return Block(self.mixer(), self.dim)

    def mixer(self) -> Mixer:
        """Our block without its norm and its residual."""
        return Mixer(
            self.dim,
            self.heads,
            head_dim=self.head_dim,
            state_dim=self.state_dim,
            conv_size=self.taps,
            setting=MixerSetting("auto", CHUNK_SIZE, heads_per_group=self.heads),
        )

    def tokens_BLD(self) -> Tensor:
        """Random input (B, L, D)."""
        return torch.randn(self.batch, self.tokens, self.dim)


SMALL = BlockShape()


def by_backend(block: Block) -> dict[str, Block]:
    """Copies of a block: with kernels in C, where they are built, and with PyTorch's operations alone."""
    versions = {}
    for name in ("native", "chunked"):
        if BACKENDS[name].refusal(Setting()) is None:
            versions[name] = deepcopy(block)
            mixer_of(versions[name]).use_backend(name)
    return versions


def backends_case(sides: Mapping[str, Callable[[], float]], plan: Plan, shape: BlockShape) -> Case:
    """What each backend takes, and how many times what the kernels take PyTorch's operations do."""
    ratios = [Ratio("chunked / native", "chunked", "native")] if "native" in sides else []
    return measure_case(f"backends, batch {shape.batch}", sides, ratios, plan, shape.settings())


def vit_block(shape: BlockShape) -> nn.Module:
    """timm's pre-norm attention and MLP block of the same dim."""
    return ViTBlock(shape.dim, num_heads=shape.dim // ATTENTION_HEAD_DIM, qkv_bias=True).eval()


def attention(shape: BlockShape) -> Callable[[], Tensor]:
    """Scaled dot-product attention alone, on random queries, keys and values of the same dim."""
    size = (3, shape.batch, shape.dim // ATTENTION_HEAD_DIM, shape.tokens, ATTENTION_HEAD_DIM)
    query, key, value = torch.randn(size).unbind()
    return lambda: F.scaled_dot_product_attention(query, key, value)


def parameters(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def vit_of_equal_parameters(model: MatMamba) -> VisionTransformer:
    """timm's vision transformer of the same image, patch and embedding size and number of classes.

    Depth is chosen first, with the usual MLP of four times the dim; where whole blocks miss the parameters of
    `model`, the MLP makes up for it.

    Raises:
        ValueError: no depth and MLP come within 2 %.
    """
    wanted, dim = parameters(model), model.embed_dim
    with torch.device("meta"):
        without = parameters(_vit(model, depth=0))
        per_block = parameters(_vit(model, depth=1)) - without
    depth = max(1, round((wanted - without) / per_block))
    off = (wanted - without - depth * per_block) / depth
    # One more unit of an MLP has a row, a column and a bias.
    hidden = 4 * dim + round(off / (2 * dim + 1))
    close = abs(off) * depth <= LARGEST_DIFFERENCE_OF_PARAMETERS * wanted
    vit = _vit(model, depth, mlp_ratio=4 if close else hidden / dim)
    if abs(parameters(vit) / wanted - 1) > LARGEST_DIFFERENCE_OF_PARAMETERS:
        raise ValueError(f"no vision transformer of dim {dim} has {wanted:,} parameters")
    return vit.eval()


def create(name: str, **options: Any) -> MatMamba:
    """A registered model of ours, whose type `timm.create_model` does not say."""
    model = create_model(name, **options)
    assert isinstance(model, MatMamba)
    return model


def mixer_of(block: Block) -> Mixer:
    """The mixer of a block that scans."""
    assert isinstance(block.mixer, Mixer)
    return block.mixer


def _vit(model: MatMamba, depth: int, mlp_ratio: float = 4) -> VisionTransformer:
    known = model.arguments
    return VisionTransformer(
        img_size=tuple(known["img_size"]),
        patch_size=tuple(known["patch_size"]),
        in_chans=known["in_chans"],
        num_classes=known["num_classes"],
        embed_dim=known["embed_dim"],
        depth=depth,
        num_heads=known["embed_dim"] // ATTENTION_HEAD_DIM,
        mlp_ratio=mlp_ratio,
    )


def vit_settings(model: MatMamba, vit: VisionTransformer) -> dict[str, Any]:
    """For the JSON: the sizes of both models."""
    first: Any = vit.blocks[0]
    return {
        "img_size": model.arguments["img_size"],
        "dtype": "float32",
        "parameters": parameters(model),
        "vit_parameters": parameters(vit),
        "vit_depth": len(vit.blocks),
        "vit_heads": first.attn.num_heads,
        "vit_mlp_hidden": first.mlp.fc1.out_features,
    }


def ways_to_run(vit: VisionTransformer, images: Tensor) -> dict[str, Callable[[], object]]:
    """A transformer on these images: eager, compiled for them, and by ONNX Runtime, on as many threads."""
    compiled = torch.compile(vit, dynamic=False)
    session, given = _onnx_session(vit, images), {"images": images.numpy()}
    return {
        "ViT, eager": lambda: vit(images),
        "ViT, compiled": lambda: compiled(images),
        "ViT, ONNX Runtime": lambda: session.run(None, given),
    }


def fastest(sides: Mapping[str, Callable[[], object]], rounds: int = 10) -> str:
    """The name of the side with the smallest median, measured in turn after some rounds to warm up."""
    timings = {name: timed(work) for name, work in sides.items()}
    with torch.inference_mode():
        found = alternate(timings, Plan(warm_up=3, repeats=rounds))
    return min(found, key=lambda name: np.median(found[name]))


def _onnx_session(vit: VisionTransformer, images: Tensor) -> Any:
    import onnxruntime

    with warnings.catch_warnings():
        # The exporter uses what PyTorch itself has deprecated.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(vit, (images,), dynamo=True, input_names=["images"], verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vit.onnx"
        program.save(file)
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def transformers_mixer(weights: MixerWeights, chunk_size: int) -> nn.Module:
    """Hugging Face's Mamba2 mixer with our weights, on the path that is written in PyTorch."""
    from transformers.models.mamba2 import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    (heads, head_dim, dim), taps = weights.in_x.shape, weights.conv_x.shape[-1]
    config = Mamba2Config(
        hidden_size=dim,
        expand=heads * head_dim // dim,
        num_heads=heads,
        head_dim=head_dim,
        state_size=weights.in_BC.shape[0] // 2,
        conv_kernel=taps,
        n_groups=1,
        num_hidden_layers=1,
        chunk_size=chunk_size,
    )
    mixer = Mamba2Mixer(config, layer_idx=0)
    mixer.load_state_dict(pack_mixer(weights))
    return mixer.eval()


def pack_mixer(weights: MixerWeights) -> dict[str, Tensor]:
    """The weights under the published names, projections packed as [z | x | B | C | dt]."""
    inputs = (weights.in_z.flatten(0, 1), weights.in_x.flatten(0, 1), weights.in_BC, weights.in_dt)
    return {
        "in_proj.weight": torch.cat(inputs).detach(),
        "conv1d.weight": torch.cat((weights.conv_x.flatten(0, 1), weights.conv_BC)).detach()[:, None],
        "conv1d.bias": torch.cat((weights.conv_x_bias.flatten(), weights.conv_BC_bias)).detach(),
        "dt_bias": weights.dt_bias.detach(),
        "A_log": weights.A_log.detach(),
        "D": weights.D.detach(),
        "norm.weight": weights.norm.detach().flatten(),
        "out_proj.weight": weights.out.detach().flatten(1),
    }
