"""The model card of an extracted model: its origin, its worth, its cost, its use."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Any

import yaml

from ..checkpoint import Checkpoint
from ..hub import hub_metadata
from ..measures import Latency, count_macs, count_parameters
from ..measures.environment import environment
from ..models import MatMamba
from ..width import Width


@dataclass(frozen=True)
class MeasuredAccuracy:
    """A row of `measure_widths`, and on what it was measured.

    Attributes:
        data: name of the data set.
        gallery: number of its training images.
        queries: number of its held-out images.
        row: the figures.
    """

    data: str
    gallery: int
    queries: int
    row: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExtractFacts:
    """What a card says.

    Attributes:
        model: the extracted one.
        parent: what it was cut from.
        width: at which width.
        difference: largest difference of the logits from those of the parent.
        latency: of `batch_size` images.
        batch_size: images of a forward.
        accuracy: what was measured, or why nothing was.
        onnx: largest difference of ONNX Runtime's logits; None without.
    """

    model: MatMamba
    parent: Checkpoint
    width: Width
    difference: float
    latency: Latency
    batch_size: int
    accuracy: MeasuredAccuracy | str
    onnx: float | None = None


_LICENSE = {"license": "apache-2.0"}


def write_card(facts: ExtractFacts) -> str:
    """Markdown with the metadata that the Hugging Face Hub reads."""
    name = f"{_architecture(facts)} at width {facts.parent.model.label(facts.width)}"
    rows = "\n".join(f"| {key} | {value} |" for key, value in (_origin(facts) | _cost(facts)).items())
    return _CARD.substitute(
        metadata=yaml.safe_dump(_metadata(name, facts.accuracy), sort_keys=False),
        name=name,
        rows=rows,
        accuracy=_accuracy(facts.accuracy),
        difference=_difference(facts),
        onnx="" if facts.onnx is None else _ONNX,
    )


def _architecture(facts: ExtractFacts) -> str:
    return str((facts.model.pretrained_cfg or {})["architecture"])


def _metadata(name: str, accuracy: MeasuredAccuracy | str) -> dict[str, Any]:
    if isinstance(accuracy, str):
        return _LICENSE | hub_metadata(name, "", {})
    names = {"top1": "top-1 accuracy", "knn1": "1-NN accuracy"}
    measured = {title: accuracy.row[key] for key, title in names.items()}
    return _LICENSE | hub_metadata(name, accuracy.data, measured)


def _origin(facts: ExtractFacts) -> dict[str, str]:
    parent, model = facts.parent.model, facts.model
    heads = ("-".join(map(str, counts)) for counts in (facts.width.heads, parent.heads))
    return {
        "parent, SHA-256": f"`{facts.parent.digest}`",
        "width": f"{parent.label(facts.width)}: {' of '.join(heads)} heads or parts of an MLP, by block",
        "images": " x ".join(map(str, model.input["input_size"])),
        "classes": f"{model.num_classes}, named in `config.json`",
    }


def _cost(facts: ExtractFacts) -> dict[str, str]:
    latency, known = facts.latency, environment()
    machine, torch = known["machine"], known["versions"]["torch"]
    return {
        "parameters": f"{count_parameters(facts.model):,}",
        "multiply-adds, one image": f"{count_macs(facts.model):,}",
        "latency": f"{latency.median:.3g} ms, quartiles {latency.low:.3g} and {latency.high:.3g} ms",
        "measured with": f"batch size {facts.batch_size}, {machine['processor']},"
        f" threads: {machine['threads']}, torch {torch}",
    }


def _accuracy(accuracy: MeasuredAccuracy | str) -> str:
    if isinstance(accuracy, str):
        return f"not measured: {accuracy}"
    return (
        f"Top-1 {accuracy.row['top1']:.4f}, 1-NN {accuracy.row['knn1']:.4f}: the {accuracy.queries:,}"
        f" held-out images of the data set {accuracy.data!r}, classified by the head, and by the nearest of"
        f" its {accuracy.gallery:,} training images, all embedded by this model."
    )


def _difference(facts: ExtractFacts) -> str:
    lines = [f"* from the parent at this width: {facts.difference:g}"]
    if facts.onnx is not None:
        lines.append(f"* of `model.onnx` in ONNX Runtime from PyTorch: {facts.onnx:g}")
    return "\n".join(lines)


_CARD = Template("""---
$metadata---
# $name

An image classifier whose pooled features are an embedding for retrieval: the leading heads of a network with
nested blocks (MatMamba, arXiv 2410.06718; with MLPs, MatFormer, arXiv 2310.07707), cut out by `matmamba
extract` of the Python package matmamba-vision. It is an ordinary network of its own.

| | |
| --- | --- |
$rows

## Accuracy

$accuracy

## Largest difference of a logit, on random images

$difference

## Use

Install matmamba-vision first (`pip install ".[torch]"` in a clone of its repository). With timm 1.0.16 or
newer, from this folder, or as `hf-hub:OWNER/NAME` from the Hub:

```python
import matmamba_vision  # registers the architecture
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(transform(image)[None])  # image: PIL's, in RGB
```

With the package alone, class names included:

```python
from matmamba_vision import load_checkpoint

checkpoint = load_checkpoint("FOLDER")
checkpoint.model.embed(images)  # (B, D), normalised
checkpoint.classes
```
$onnx""")
_ONNX = """
In ONNX Runtime, batches of any size:

```python
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
(logits,) = session.run(["logits"], {"images": images.numpy()})  # (B, C, S, S) float32, prepared as above
```
"""
