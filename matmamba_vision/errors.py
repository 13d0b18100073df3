"""Errors that more than one room raises; a room's own stand in the room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from matmamba_common.errors import ConfigError, MatMambaError

__all__ = [
    "EXTRAS",
    "ConfigError",
    "MatMambaError",
    "MissingPackageError",
    "NotFiniteError",
    "SystemRefusalError",
    "refusals",
]


class NotFiniteError(MatMambaError, FloatingPointError):
    """Numbers that are not finite: a training that diverged, or weights that are damaged."""


class SystemRefusalError(MatMambaError, OSError):
    """The system refused: a file that is not there, may not be read or written, or has no room."""


class MissingPackageError(MatMambaError):
    """An optional package is not installed; the message says which extra brings it."""


# Which extra brings a package that may be missing.
EXTRAS = {
    "pyarrow": "data",
    "sklearn": "data",
    "fsspec": "data",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "query",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "threadpoolctl": "serve",
    "qdrant_client": "qdrant",
    "qdrant_edge": "qdrant",
    "ray": "ray",
    "av": "video",
    # What trains the network, and runs it in torch.
    "torch": "torch",
    "torchvision": "torch",
    "timm": "torch",
    "safetensors": "torch",
    "accelerate": "torch",
    "torchmetrics": "torch",
    "matplotlib": "torch",
    "omegaconf": "torch",
    "yaml": "torch",
}


@contextmanager
def refusals() -> Iterator[None]:
    """What a system or an absent package refuses is a `MatMambaError` too: for calls that users make.

    A decorator of public calls. Whatever else is no `MatMambaError` is a fault of the program, and
    passes as it is.

    Raises:
        SystemRefusalError: for any `OSError` that is of the system.
        MissingPackageError: for a package of an extra.
    """
    try:
        yield
    # Whoever reads what is printed has seen enough: that is for the program that prints.
    except (MatMambaError, BrokenPipeError):
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = EXTRAS[package]
        # The extra with torch is known by torch, whichever of it is asked for first.
        needed = extra if extra == "torch" else package
        raise MissingPackageError(f"this needs {needed}: pip install 'matmamba-vision[{extra}]'") from error
    except OSError as error:
        # One without a number was raised by a program, and its words say what is wrong.
        raise SystemRefusalError(str(error)) from error
