"""Models and blocks on a GPU: time of every width, beside other models, and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from gpu_setting import Setting, left_out, present
from matmamba_vision import MatMamba, Width
from matmamba_vision.frozen import freeze
from matmamba_vision.layers import Block
from matmamba_vision.measures import count_macs
from matmamba_vision.ops import mamba_ssm
from measuring import Case, Plan, Ratio, measure_case, timed
from peers import mixer_of, vit_of_equal_parameters, vit_settings
from published import published
from timm import create_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

Work = Callable[[], object]
GRAPH_WARM_UP = 3


def short(name: str) -> str:
    return name.split("_")[1]


def inference(model: nn.Module, images: Tensor, **options: Any) -> Work:
    """A forward in the dtype of the model, without gradients."""
    like = next(model.parameters())
    given = images.to(like.dtype)
    return torch.inference_mode()(partial(model, given, **options))


def training(model: nn.Module, images: Tensor, dtype: torch.dtype, **options: Any) -> Work:
    """Forward and backward under autocast, weights in float32."""

    def step() -> None:
        model.zero_grad()
        with torch.autocast(images.device.type, dtype=dtype):
            loss = model(images, **options).float().square().mean()
        loss.backward()

    return step


def _model(setting: Setting, name: str, pixels: int | None = None, **options: Any) -> MatMamba:
    sized: dict[str, Any] = {} if pixels is None else {"img_size": pixels}
    model: MatMamba = create_model(name, **sized, **options).to(setting.device)  # type: ignore[assignment]
    return model


def _images(setting: Setting, model: MatMamba, batch: int) -> Tensor:
    return torch.randn(batch, 3, *model.patch_embed.img_size, device=setting.device)


def width_times(plan: Plan, setting: Setting, name: str) -> Iterator[Case]:
    """Share of the time over share of the multiply-adds, of every trained width."""
    model = _model(setting, name)
    images = _images(setting, model, setting.sizes[0][1])
    halved = _model(setting, name).to(setting.dtype).eval()
    labels = {model.label(width): width for width in model.trained_widths}
    macs = {label: count_macs(model, width) for label, width in labels.items()}
    sides: dict[str, Work] = {
        f"inference {label}": inference(halved, images, width=w) for label, w in labels.items()
    }
    half = images[: len(images) // 2]
    sides |= {
        f"training {label}": training(model, half, setting.dtype, width=w) for label, w in labels.items()
    }
    ratios = [
        Ratio(f"{use} {label}", f"{use} {label}", f"{use} full", macs[label] / macs["full"])
        for use in ("inference", "training") for label in labels if label != "full"
    ]  # fmt: skip
    settings = {"model": name, "batch": len(images), "dtype": str(setting.dtype)[6:], "multiply_adds": macs}
    yield _measured("widths", sides, ratios, plan, settings)


def against_vit(plan: Plan, setting: Setting, name: str, pixels: int, batch: int) -> Iterator[Case]:
    """Throughput over that of a ViT of equal parameters, whose attention is PyTorch's fused one."""
    model = _model(setting, name, pixels)
    vit = vit_of_equal_parameters(model).to(setting.device)
    settings = {"batch": batch, **vit_settings(model, vit), "dtype": str(setting.dtype)[6:]}
    images = _images(setting, model, batch)
    half = images[: batch // 2]
    sides = {"ours": training(model, half, setting.dtype), "ViT": training(vit, half, setting.dtype)}
    ratio = Ratio("ViT / ours", "ViT", "ours")
    yield _measured(f"{name}, {pixels} px, training", sides, [ratio], plan, settings)
    for side in (model, vit):
        side.to(setting.dtype).eval()
    sides = {"ours": inference(model, images), "ViT": inference(vit, images)}
    yield _measured(f"{name}, {pixels} px", sides, [ratio], plan, settings)


def graphs_against_vit(plan: Plan, setting: Setting, name: str, pixels: int, batch: int) -> Iterator[Case]:
    """All as CUDA graphs, inference and training: kernels alone, nobody waits for Python.

    In inference the frozen width stands beside the model: it makes graphs of its own.
    """
    model = _model(setting, name, pixels)
    vit = vit_of_equal_parameters(model).to(setting.device)
    settings = {"batch": batch, **vit_settings(model, vit), "dtype": str(setting.dtype)[6:]}
    images = _images(setting, model, batch)
    half = images[: batch // 2]
    for use in ("training", "inference"):
        works: dict[str, Work] = {}
        for side, network in (("ours", model), ("ViT", vit)):
            if use == "training":
                works[side] = training(network, half, setting.dtype)
            else:
                works[side] = inference(network.to(setting.dtype).eval(), images)
        sides = {side: graph_of(work, setting) for side, work in works.items()}
        ratios = [Ratio("ViT / ours", "ViT", "ours")]
        if use == "inference":
            frozen = freeze(model)
            sides["frozen"] = partial(frozen.embed, images.to(setting.dtype))
            ratios.append(Ratio("ViT / frozen", "ViT", "frozen"))
            settings["frozen_by"] = frozen.by
        yield _measured(f"graphs, {name}, {pixels} px, {use}", sides, ratios, plan, settings)


def vit_alone(plan: Plan, setting: Setting, name: str, pixels: int, batch: int) -> Iterator[Case]:
    """The transformer, eagerly and as graphs, and which attention it runs."""
    model = _model(setting, name, pixels)
    vit = vit_of_equal_parameters(model).to(setting.device)
    images = _images(setting, model, batch)
    settings = {"batch": batch, **vit_settings(model, vit), "dtype": str(setting.dtype)[6:]}
    settings["attention"] = attention_of(vit, setting, batch)
    train = training(vit, images[: batch // 2], setting.dtype)
    sides = {"training eager": train, "training graph": graph_of(train, setting)}
    yield _measured(f"ViT, {pixels} px, training", sides, [], plan, settings)
    infer = inference(vit.to(setting.dtype).eval(), images)
    sides = {"inference eager": infer, "inference graph": graph_of(infer, setting)}
    yield _measured(f"ViT, {pixels} px, inference", sides, [], plan, settings)


def attention_of(vit: VisionTransformer, setting: Setting, batch: int) -> str:
    """The backend that PyTorch chooses for its attention, such as FLASH_ATTENTION."""
    first: Any = vit.blocks[0]
    tokens = vit.pos_embed.shape[1]  # type: ignore[union-attr]
    shape = (batch, first.attn.num_heads, tokens, first.attn.head_dim)
    query = torch.zeros(shape, device=setting.device, dtype=setting.dtype)
    return SDPBackend(torch._fused_sdp_choice(query, query, query)).name


def graph_of(work: Work, setting: Setting) -> Work:
    """The work as a CUDA graph; on a CPU, which has none, as it is."""
    return captured(work) if setting.device == "cuda" else work


def graph_widths(plan: Plan, setting: Setting, name: str) -> Iterator[Case]:
    """As `width_times`, but as CUDA graphs."""
    model = _model(setting, name)
    images = _images(setting, model, setting.sizes[0][1])
    labels = {model.label(width): width for width in model.trained_widths}
    macs = {label: count_macs(model, width) for label, width in labels.items()}
    settings = {"model": name, "batch": len(images), "dtype": str(setting.dtype)[6:], "multiply_adds": macs}
    for use in ("training", "inference"):
        sides: dict[str, Work] = {}
        for label, width in labels.items():
            if use == "training":
                work = training(model, images[: len(images) // 2], setting.dtype, width=width)
            else:
                work = inference(model.to(setting.dtype).eval(), images, width=width)
                sides[f"{label} frozen"] = partial(freeze(model, width).embed, images.to(setting.dtype))
            sides[label] = graph_of(work, setting)
        ratios = [
            Ratio(side, side, side.replace(label, "full"), macs[label] / macs["full"])
            for label in labels
            for side in sides
            if label != "full" and side.split()[0] == label
        ]
        yield _measured(f"graphs of widths, {use}", sides, ratios, plan, settings)


def _measured(
    name: str, sides: Mapping[str, Work], ratios: Sequence[Ratio], plan: Plan, settings: dict[str, Any]
) -> Case:
    return measure_case(name, {side: timed(work) for side, work in sides.items()}, ratios, plan, settings)


def against_published(plan: Plan, setting: Setting, name: str) -> Iterator[Case]:
    """Time of the published block on mamba-ssm's kernels over ours, at every width."""
    if reason := mamba_ssm.missing():
        for use in ("training", "inference"):
            yield left_out(f"published, {short(name)}, {use}", reason)
        return
    model, (_, batch) = _model(setting, name), setting.sizes[0]
    images = _images(setting, model, batch // 2)
    twin = published(model)
    settings = {"model": name, "batch": batch // 2, "causal_conv1d": mamba_ssm.has_conv()}

    def train(side: MatMamba, width: Width) -> Work:
        return training(side, images, setting.dtype, width=width)

    def infer(side: MatMamba, width: Width) -> Work:
        return inference(side, images, width=width)

    title = f"published, {short(name)}"
    yield _widths_of_both(f"{title}, training", model, twin, plan, settings, train)
    for side in (model, twin):
        side.to(setting.dtype).eval()
    yield _widths_of_both(f"{title}, inference", model, twin, plan, settings, infer)


def _widths_of_both(
    name: str,
    model: MatMamba,
    twin: MatMamba,
    plan: Plan,
    settings: dict[str, Any],
    work: Callable[[MatMamba, Width], Work],
) -> Case:
    sides, ratios = dict[str, Work](), []
    for width in model.trained_widths:
        label = model.label(width)
        sides |= {label: work(model, width), f"published {label}": work(twin, width)}
        ratios.append(Ratio(label, f"published {label}", label))
    return _measured(name, sides, ratios, plan.at_most(5), settings)


def block_times(plan: Plan, setting: Setting) -> Iterator[Case]:
    """One block, forward and backward, by each kernel and by PyTorch's chunked scan."""
    shape = setting.block
    x_BLD = shape.tokens_BLD().to(setting.device, setting.dtype).requires_grad_()
    backends = [*present(), "chunked"]
    blocks = {name: shape.block().to(setting.device, setting.dtype) for name in backends}
    for name, block in blocks.items():
        mixer_of(block).use_backend(name)
    for width, heads in shape.widths().items():
        sides: dict[str, Work] = {}
        for name, block in blocks.items():
            sides[f"{name} forward"] = torch.inference_mode()(partial(block, x_BLD.detach(), heads))
            sides[f"{name} step"] = partial(_block_step, block, x_BLD, heads)
        ratios = [
            Ratio(f"{name} / triton, {use}", f"{name} {use}", f"triton {use}")
            for name in backends if name != "triton" for use in ("forward", "step")
        ]  # fmt: skip
        settings = shape.settings(active_heads=heads, dtype=str(setting.dtype)[6:])
        yield _measured(f"block, width {width}", sides, ratios, plan, settings)


def _block_step(block: Block, x_BLD: Tensor, heads: int) -> None:
    block.zero_grad()
    block(x_BLD, heads).sum().backward()


def memory(setting: Setting, name: str) -> Iterator[Case]:
    """Peak of what PyTorch allocates beyond weights and images, at four times as many tokens."""
    if setting.device != "cuda":
        yield left_out("memory", "memory is counted on a GPU alone")
        return
    few, many = setting.memory_pixels
    for use, depth in (("inference", 20), ("training", 4)):
        sides = {
            f"{pixels} px": partial(_peak_mib, setting, name, depth, pixels, use) for pixels in (few, many)
        }
        case = "memory" if use == "inference" else "memory, training"
        yield measure_case(case, sides, [Ratio("many / few tokens", f"{many} px", f"{few} px")], Plan(0, 1),
                           {"model": name, "depth": depth, "batch": 1}, unit="MiB")  # fmt: skip


def _peak_mib(setting: Setting, name: str, depth: int, pixels: int, use: str) -> float:
    model = _model(setting, name, pixels, depth=depth)
    images = _images(setting, model, 1)
    work = training(model, images, setting.dtype)
    if use == "inference":
        work = inference(model.to(setting.dtype).eval(), images)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def latencies(plan: Plan, setting: Setting, name: str) -> Iterator[Case]:
    """One image at every width: eagerly, as a CUDA graph, and frozen, beside the ViT of equal parameters."""
    model = _model(setting, name).to(setting.dtype).eval()
    image = _images(setting, model, 1)
    vit = vit_of_equal_parameters(model).to(setting.device, setting.dtype)
    labels = {model.label(width): width for width in model.trained_widths}
    works = {label: inference(model, image, width=width) for label, width in labels.items()}
    works["ViT"] = inference(vit, image)
    sides = {f"{label} eager": timed(work, calls=3) for label, work in works.items()}
    if setting.device == "cuda":
        sides |= {f"{label} graph": timed(captured(work), calls=10) for label, work in works.items()}
    for label, width in labels.items():
        sides[f"{label} frozen"] = timed(
            partial(freeze(model, width).embed, image.to(setting.dtype)), calls=10
        )
    ratios = [
        Ratio(f"{label} eager / graph", f"{label} eager", f"{label} graph")
        for label in works if f"{label} graph" in sides
    ]  # fmt: skip
    ratios.append(Ratio("1/8 / full, frozen", "1/8 frozen", "full frozen"))
    yield measure_case(
        "latency", sides, ratios, plan, {"model": name, "batch": 1, "dtype": str(setting.dtype)[6:]}
    )


def captured(work: Work) -> Work:
    """The same kernels, launched by the GPU itself."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(GRAPH_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
