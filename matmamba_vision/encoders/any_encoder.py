"""Opening an encoder by its name: timm's, open_clip's, an ONNX file, or a run or checkpoint of ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from matmamba_common.settings import require_least
from torch import nn

from ..checkpoint import load_checkpoint
from ..device import place_called
from ..public_call import public_call
from .encoder import Encoder, EncoderError, Features, Texts, digests_of, require_pooled
from .names import FUNCTION, ONNX, OPEN_CLIP, TIMM, file_of, place_of
from .onnx_file import open_onnx

# Letters of what a library says.
_LONGEST = 300


@dataclass(frozen=True, kw_only=True)
class Found:
    """A network as a library gives it.

    Attributes:
        network: with its weights.
        features: from prepared images to pooled features.
        input: its data configuration.
        architecture: what computes with the weights, named or described.
        texts: from texts to vectors, if it has a text tower.
    """

    network: nn.Module
    features: Features
    input: Mapping[str, Any]
    architecture: str
    texts: Texts | None = None


@public_call
def open_encoder(
    name: str, size: int | None = None, device: torch.device | str = "cpu", half: bool = False
) -> Encoder:
    """The encoder that a text names.

    Args:
        name: `timm:NAME` (`timm:local-dir:FOLDER` and `timm:hf-hub:OWNER/NAME` too); `open_clip:ARCH/TAG`
            (`open_clip:local-dir:FOLDER` and `open_clip:hf-hub:OWNER/NAME` too); an ONNX file with a JSON
            file of the same name beside it; or a run, checkpoint or shipped name of ours.
        size: of its images in pixels, by default its own.
        device: where it computes.
        half: compute in float16.

    Raises:
        EncoderError: its weights cannot be had, or it has no pooled features.
        CheckpointError: not a checkpoint of ours, and none of the other names.
    """
    require_least(1, size=size)
    place = place_called(device)
    if name.endswith(ONNX):
        if size:
            raise EncoderError(f"{name}: the size of an ONNX file's images is fixed when it is exported")
        return open_onnx(Path(name))
    if name.startswith(FUNCTION):
        raise EncoderError(f"{name} is a Python function: hand it over as the model, no name opens it")
    found = _find(name)
    known = dict(found.input)
    if size:
        known["input_size"] = (known["input_size"][0], size, size)
    network, features = found.network.to(place).eval().requires_grad_(False), found.features
    weights, digest, bare_digest = digests_of(known, network, found.architecture)
    dim = require_pooled(name, features, known, place)
    if half:
        network.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        features = _in_half(features)
    return Encoder(
        name=name, place=place_of(name), features=features, input=known, dim=dim, network=network,
        texts=found.texts, weights=weights, digest=digest, bare_digest=bare_digest,
    )  # fmt: skip


def _find(name: str) -> Found:
    for prefix, find in _BY_PREFIX.items():
        if name.startswith(prefix):
            return _had(name, find)
    model = load_checkpoint(Path(name)).model
    described = json.dumps(model.arguments, sort_keys=True, default=str)
    return Found(network=model, features=model.embed, input=model.input, architecture=described)


def _had(name: str, find: Callable[[str], Found]) -> Found:
    """What a library finds under a name, or one line that says why it does not."""
    asked = name.partition(":")[2]
    try:
        with _quiet():
            return find(asked)
    except EncoderError:
        raise
    # What libraries and the hub raise for a name, a folder or a network that is not there.
    except Exception as error:
        raise EncoderError(f"{name}: its weights cannot be had: {_reason(error)}{_remedy(name)}") from error


def _reason(error: Exception) -> str:
    """What a library says, in one line that ends: open_clip lists all that it has."""
    said = " ".join(str(error).split()).rstrip(".:")
    if isinstance(error, KeyError):
        said = f"no {said}"
    return shorten(said or type(error).__name__, _LONGEST, placeholder=" ...")


def _remedy(name: str) -> str:
    """What helps where a library looks for weights; a folder has what it has."""
    if file_of(name) is not None:
        return ""
    prefix = name.partition(":")[0]
    return (
        ". Load it once where there is a network, or name a folder that holds it, as"
        f" {prefix}:local-dir:FOLDER"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a line for each attempt of the hub and of open_clip: the error says it all."""
    # Here, because it takes a while to import; its level is set when it is first asked for.
    from huggingface_hub.utils import logging as hub

    # open_clip logs with no name; a filter of the root logger sees nobody else's lines.
    nameless, before = logging.getLogger(), hub.get_verbosity()
    hub.set_verbosity(logging.ERROR)
    nameless.addFilter(_nothing)
    try:
        yield
    finally:
        nameless.removeFilter(_nothing)
        hub.set_verbosity(before)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _timm(asked: str) -> Found:
    import timm
    from timm.data import resolve_data_config

    _require_weights(asked)
    network: Any = timm.create_model(asked, pretrained=True, num_classes=0)
    input = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    architecture = str(network.pretrained_cfg["architecture"])
    return Found(network=network, features=network, input=input, architecture=architecture)


def _require_weights(asked: str) -> None:
    """Ask for weights before the network is built for them, which takes half a minute for a large one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(asked)
    # A folder, another repository of the hub, or a name that timm does not know.
    if known is None:
        return
    if not known.has_weights:
        raise RuntimeError(f"timm has none for {asked}")
    if known.hf_hub_id:
        repository, _, revision = known.hf_hub_id.partition("@")
        file = known.hf_hub_filename or "model.safetensors"
        try:
            hf_hub_download(repository, file, revision=revision or None)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            # The repository has them under another name, which timm knows.
            return


def _open_clip(asked: str) -> Found:
    from .clip import find_clip

    network, input, architecture, texts = find_clip(asked)
    return Found(
        network=network,
        features=network.encode_image,
        input=input,
        architecture=architecture,
        texts=texts,
    )


_BY_PREFIX: dict[str, Callable[[str], Found]] = {TIMM: _timm, OPEN_CLIP: _open_clip}


def _in_half(features: Features) -> Features:
    return lambda images: features(images.half().contiguous(memory_format=torch.channels_last))
