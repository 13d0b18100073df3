"""The model card of a training run: what was trained, how, its worth and cost at each width, its use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ..checkpoint import write_whole
from ..hub import CARD, CONFIG, hub_metadata, save_timm_config
from ..measures import count_macs, count_parameters
from ..measures.environment import environment
from ..models import MatMamba


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a card says.

    Attributes:
        model: as saved.
        classes: names in the order of the logits.
        data: name of the data set.
        images: how many were trained on.
        held_out: how many were measured on.
        config: the resolved configuration.
        top1: of `model` on the held-out images, by the width's label; empty if it was not measured.
        made_with: what `environment` said where it was trained; by default, what it says here.
        note: a sentence about the run.
    """

    model: MatMamba
    classes: tuple[str, ...]
    data: str
    images: int
    held_out: int
    config: dict[str, Any]
    top1: dict[str, float]
    made_with: dict[str, Any] | None = None
    note: str = ""


def save_run_card(folder: Path, facts: RunFacts) -> None:
    """Write README.md, and config.json by which timm loads the folder, if it knows the model; all or nothing.

    The weights are not touched: they stand there as `save_checkpoint` writes them.
    """
    contents = {folder / CARD: write_run_card(facts).encode()}
    if _architecture(facts.model):
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / CONFIG
            save_timm_config(file, facts.model, facts.classes)
            contents[folder / CONFIG] = file.read_bytes()
    write_whole(contents)


def write_run_card(facts: RunFacts) -> str:
    """Markdown with the metadata that the Hugging Face Hub reads."""
    architecture = _architecture(facts.model)
    name = f"{architecture or 'MatMamba'} trained on {facts.data}"
    accuracies = {f"top-1 accuracy, width {width}": top1 for width, top1 in facts.top1.items()}
    metadata = hub_metadata(name, facts.data, accuracies)
    return _CARD.substitute(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        name=name,
        command="distill" if facts.config.get("teacher") else "train",
        trained=_trained(facts.model),
        about=_rows(_about(facts)),
        table="\n".join(_width_rows(facts)),
        measured=" ".join(filter(None, (_measured(facts), facts.note))),
        recipe=yaml.safe_dump(facts.config, sort_keys=False).rstrip(),
        environment=_rows(_made_with(facts.made_with or environment())),
        timm=_TIMM if architecture else "",
    )


def _architecture(model: MatMamba) -> str:
    return str((model.pretrained_cfg or {}).get("architecture") or "")


def _trained(model: MatMamba) -> str:
    if len(model.trained_widths) == 1:
        return "at full width alone: it is an ordinary network, of which no smaller width was trained"
    widths = ", ".join(map(model.label, model.trained_widths))
    return (
        f"at the widths {widths} together. Its blocks are nested (MatMamba, arXiv 2410.06718; MLPs as in\n"
        "MatFormer, arXiv 2310.07707): each width is the leading heads of the same weights"
    )


def _rows(facts: dict[str, str]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in facts.items())


def _about(facts: RunFacts) -> dict[str, str]:
    model, known = facts.model, facts.model.architecture
    attention = len(known.attention_blocks)
    mamba = known.depth - attention
    heads = sorted({*model.heads})
    return {
        "blocks": f"{known.depth}, of which {attention} mix by attention and {mamba} by Mamba2",
        "heads of a block": " or ".join(map(str, heads)),
        "embedding": f"{model.embedding_dim} numbers, of which any leading ones are a shorter embedding",
        "images": f"{' x '.join(map(str, (model.in_chans, *model.patch_embed.img_size)))}, patches of"
        f" {' x '.join(map(str, model.patch_embed.patch_size))}",
        "classes": f"{model.num_classes}, named in the checkpoint",
        "data set": f"{facts.data}: {facts.images:,} images, and {facts.held_out:,} held out",
    }


def _width_rows(facts: RunFacts) -> list[str]:
    rows = ["| width | parameters | multiply-adds, one image | top-1 |", "| --- | ---: | ---: | ---: |"]
    for width in facts.model.trained_widths:
        label = facts.model.label(width)
        costs = f"{count_parameters(facts.model, width):,} | {count_macs(facts.model, width):,}"
        top1 = f"{facts.top1[label]:.4f}" if label in facts.top1 else "-"
        rows.append(f"| {label} | {costs} | {top1} |")
    return rows


def _measured(facts: RunFacts) -> str:
    if not facts.top1:
        return "Accuracy was not measured."
    return f"Top-1: the {facts.held_out:,} held-out images of the data set {facts.data!r}, by the head."


def _made_with(known: dict[str, Any]) -> dict[str, str]:
    machine = known["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in known["versions"].items())
    return {
        "commit": known["commit"] or "not known",
        "versions": versions,
        "processor": f"{machine['processor']}, threads: {machine['threads']}",
        "GPU": machine["gpu"] or "none",
        "system": machine["system"],
    }


_CARD = Template("""---
$metadata---
# $name

An image classifier whose pooled features are an embedding for retrieval, trained by `matmamba $command`
$trained.

| | |
| --- | --- |
$about

## Widths

$table

$measured

## Use

Install matmamba-vision first (`pip install ".[torch]"` in a clone of its repository). FOLDER is the one
that holds this file.

```python
from matmamba_vision import extract, load_checkpoint

checkpoint = load_checkpoint("FOLDER")
checkpoint.model.embed(images, width="1/2")  # (B, D), normalised; images: (B, C, S, S), prepared
checkpoint.classes  # names in the order of the logits
small = extract(checkpoint.model, "1/2")  # an ordinary smaller network
```
$timm
To search one's own images:

```
matmamba index --checkpoint FOLDER --images IMAGES --gallery GALLERY
matmamba search --gallery GALLERY QUERY.jpg
```

## Limits

* It tells apart the classes that it was trained on, and calls every image one of them.
* What is said about accuracy holds for images like those of the data set, prepared as it prepares them; its
  biases are the model's.
* Widths other than the trained ones were not measured here: `matmamba select` finds and measures them.
* Mamba2 reads images as sequences of a fixed grid: other image sizes need interpolated positions
  (`model.set_input_size`), and some training.

## Recipe

```yaml
$recipe
```

## Made with

| | |
| --- | --- |
$environment
""")
_TIMM = """
With timm 1.0.16 or newer, from this folder, or as `hf-hub:OWNER/NAME` from the Hub:

```python
import matmamba_vision  # registers the architecture
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(transform(image)[None])  # image: PIL's, in RGB
```
"""
