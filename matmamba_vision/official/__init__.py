"""The published MatMamba-Vision checkpoints (ScaledFoundations/MatMamba), read and written."""

from .convert import load_official, save_official, to_official

__all__ = ["load_official", "save_official", "to_official"]
