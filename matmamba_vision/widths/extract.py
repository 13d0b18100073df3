"""One width as a model of its own: `extract`, in memory, or as files that timm and the Hub take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import torch
from matmamba_common.settings import require, require_crew, require_least
from matmamba_datasets import DataConfig, DataError

from .. import models
from ..checkpoint import Checkpoint, CheckpointError, checkpoint_file, save_checkpoint
from ..errors import ConfigError
from ..export import ExportError, check_onnx, export_onnx, largest_difference
from ..galleries.embedder import Embedder
from ..galleries.gallery_model import CheckpointLike, checkpoint_at
from ..given import PathLike, require_folder, require_path, require_type
from ..hub import ONNX, occupied, require_architecture, save_for_hub
from ..measures import Latency, count_macs, count_parameters, measure_latency
from ..models import MatMamba
from ..progress import Listener, Reporter
from ..public_call import public_call
from ..width import Width, WidthLike
from .card import ExtractFacts, MeasuredAccuracy, write_card
from .held_out import BatchReader, data_config, open_data_of_its_classes
from .quality_and_cost import measure_widths
from .slices import NamedWidth, named_width, width_like

# Largest difference of a logit from the parent's. Cut weights give the same bits, but a library may choose to
# multiply them in another order.
TOLERANCE = 1e-5
LATENCY_BATCH = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Extracted:
    """What `extract` wrote.

    Attributes:
        output: the folder or file that was named.
        file: the weights, which load wherever a checkpoint does.
        width: its short name in the parent.
        parameters: of the smaller model.
        parent_parameters: of the whole one.
        macs: multiply-adds to classify one image.
        parent_macs: of the whole one.
        difference: largest difference of the logits from the parent's at that width, on random images.
        onnx: largest difference of ONNX Runtime's logits from PyTorch's; None if none was exported.
        latency: of one image; None where no model card was written.
        accuracy: top1, knn1, map10 and cost, as `measure_widths`; None if it was not measured.
        not_measured: why not; "" where it was, and where no model card was written.
    """

    output: Path
    file: Path
    width: str
    parameters: int
    parent_parameters: int
    macs: int
    parent_macs: int
    difference: float
    onnx: float | None = None
    latency: Latency | None = None
    accuracy: Mapping[str, Any] | None = None
    not_measured: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        paths = {"output": str(self.output), "file": str(self.file)}
        return {**asdict(self), **paths}


@overload
def extract(model: MatMamba, width: WidthLike) -> MatMamba: ...


@overload
def extract(
    model: CheckpointLike,
    width: NamedWidth,
    *,
    output: PathLike,
    overwrite: bool = False,
    onnx: bool = False,
    measure: bool = True,
    data: str = "",
    root: PathLike = "",
    batch_size: int = 64,
    workers: int = 0,
    progress: Listener | None = None,
) -> Extracted: ...


@public_call
def extract(
    model: MatMamba | CheckpointLike,
    width: NamedWidth,
    *,
    output: PathLike | None = None,
    overwrite: bool = False,
    onnx: bool = False,
    measure: bool = True,
    data: str = "",
    root: PathLike = "",
    batch_size: int = 64,
    workers: int = 0,
    progress: Listener | None = None,
) -> MatMamba | Extracted:
    """One width as a smaller model of its own.

    Of a model in memory, a model that computes what `model(x, width=width)` computes, with no other weights
    and no nesting left. Of a checkpoint, the same written as a folder that timm loads and the Hugging Face
    Hub takes (model.safetensors, config.json, and README.md, a model card with what was measured), or as a
    .safetensors file alone; what is written was compared with the parent on random images.

    Args:
        model: a nested model; or a checkpoint: run folder, checkpoint file, the name of a model whose weights
            are shipped, or a loaded one.
        width: a share such as 1/4, a head count per block, or the file of a slice that `select` wrote.
        output: of a checkpoint, the folder or .safetensors file to write.
        overwrite: replace what an earlier extraction wrote there; other files stay.
        onnx: write model.onnx too, and compare it with PyTorch in ONNX Runtime.
        measure: measure accuracy for the model card.
        data: name of the data set, if not that of the training run.
        root: its folder, if not that of the training run.
        batch_size: images encoded at once.
        workers: processes that decode images.
        progress: is told how far it is.

    Returns:
        The smaller model; of a checkpoint, what was written.

    Raises:
        CheckpointError: no such checkpoint.
        ConfigError: an argument that cannot be, a slice that cannot be read, something is in the way, or a
            folder is named for a model that timm does not know by name.
        WidthError: the model has no such width.
        DataError: the data set that was named cannot be read.
        ExportError: the exported graph computes something else.
        TypeError: an argument of a wrong type, or no output for a checkpoint.
    """
    if isinstance(model, MatMamba):
        if output is not None:
            raise TypeError("output: a model in memory is given back; `save_checkpoint` writes it")
        return models.extract(model, width_like(width))
    require_type("model", model, (str, os.PathLike, Checkpoint), "a MatMamba or a checkpoint")
    if output is None:
        raise TypeError("output is left out: it can be the folder or the .safetensors file to write")
    require_least(1, batch_size=batch_size)
    require_crew(workers=workers)
    require("data", data, str)
    require("root", root, PathLike)
    place, parent = _place(output), checkpoint_at(model)
    _require_free(place, parent, overwrite=overwrite, onnx=onnx)
    cut = _cut(parent, named_width(width, parent), place)
    if _is_file(place):
        save_checkpoint(place, cut.small, parent.classes, parent.run)
        return cut.found
    reader = BatchReader(
        embedder=Embedder(replace(parent, model=cut.small)),
        report=Reporter(progress),
        batch_size=batch_size,
        workers=workers,
    )
    require_architecture(cut.small)
    with TemporaryDirectory() as scratch:
        graph = Path(scratch) / ONNX
        difference = _write_onnx(reader, graph) if onnx else None
        accuracy = _accuracy(reader, data, root) if measure else "it was not asked for"
        (latency,) = measure_latency(cut.small, ["full"], LATENCY_BATCH)
        card = write_card(cut.facts(latency, accuracy, difference))
        attach = [graph] if onnx else []
        save_for_hub(place, cut.small, parent.classes, card, parent.run, attach, overwrite)
    if isinstance(accuracy, str):
        return replace(cut.found, onnx=difference, latency=latency, not_measured=accuracy)
    return replace(cut.found, onnx=difference, latency=latency, accuracy=accuracy.row)


def _place(output: PathLike) -> Path:
    place = require_path("output", output)
    return place if _is_file(place) else require_folder("output", place, "a folder, or a .safetensors file,")


def _is_file(place: Path) -> bool:
    return checkpoint_file(place) == place


def _require_free(place: Path, parent: Checkpoint, *, overwrite: bool, onnx: bool) -> None:
    file = checkpoint_file(place)
    if _is_file(place) and onnx:
        raise ConfigError(f"onnx needs a folder: output {place} is a single file")
    if _is_file(place):
        taken = file if file.exists() and not overwrite else None
    else:
        taken = occupied(place, overwrite)
    if taken:
        raise ConfigError(f"{taken} exists: name another output, or overwrite it")
    if file.resolve() == parent.path.resolve():
        raise ConfigError(f"output {place} is the checkpoint itself, whose other widths would be lost")


@dataclass(frozen=True, eq=False)
class _Cut:
    """A smaller model that was compared with its parent, and what is known of it so far."""

    small: MatMamba
    parent: Checkpoint
    width: Width
    found: Extracted

    def facts(self, latency: Latency, accuracy: MeasuredAccuracy | str, onnx: float | None) -> ExtractFacts:
        return ExtractFacts(
            model=self.small,
            parent=self.parent,
            width=self.width,
            difference=self.found.difference,
            latency=latency,
            batch_size=LATENCY_BATCH,
            accuracy=accuracy,
            onnx=onnx,
        )


def _cut(parent: Checkpoint, width: Width, place: Path) -> _Cut:
    small = models.extract(parent.model, width)
    found = Extracted(
        output=place,
        file=checkpoint_file(place),
        width=parent.model.label(width),
        parameters=count_parameters(small),
        parent_parameters=count_parameters(parent.model),
        macs=count_macs(small),
        parent_macs=count_macs(parent.model),
        difference=_checked_difference(small, parent.model, width),
    )
    return _Cut(small, parent, width, found)


@torch.inference_mode()
def _checked_difference(small: MatMamba, parent: MatMamba, width: Width) -> float:
    images = parent.random_images(8)
    difference = largest_difference(small(images), parent(images, width))
    if not difference <= TOLERANCE:
        label = parent.label(width)
        raise ExportError(f"extracted logits differ by {difference:g} from those of width {label}: not saved")
    return difference


def _write_onnx(reader: BatchReader, file: Path) -> float:
    small = reader.checkpoint.model
    # Minutes for a model of 20 blocks.
    with reader.report.stage("exporting to ONNX"):
        export_onnx(small, file)
    return check_onnx(small, file)


def _accuracy(reader: BatchReader, data: str, root: PathLike) -> MeasuredAccuracy | str:
    """What was measured on held-out images, or why nothing was."""
    if not (data or root) and "data" not in reader.checkpoint.run:
        return "the checkpoint does not say on which images it was trained"
    try:
        return _measure(reader, data_config(reader.embedder, data, root))
    except (DataError, CheckpointError, OSError, ModuleNotFoundError) as error:
        if data or root:
            raise
        return " ".join(str(error).split())


def _measure(reader: BatchReader, config: DataConfig) -> MeasuredAccuracy:
    model = reader.checkpoint.model
    splits = open_data_of_its_classes(reader.report, reader.embedder, config)
    batches = [reader.batches("encoding", images) for images in (splits.train, splits.held_out)]
    (row,) = measure_widths(model, [model.width("full")], *batches)
    return MeasuredAccuracy(config.name, len(splits.train), len(splits.held_out), row)
