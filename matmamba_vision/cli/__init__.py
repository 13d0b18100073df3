"""The command `matmamba`: the only place that brings images, model and retrieval together."""

from .main import main

__all__ = ["main"]
