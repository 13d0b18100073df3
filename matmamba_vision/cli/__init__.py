"""The command `matmamba`: parses flags, makes the calls that programs make, and prints results."""

from .main import main

__all__ = ["main"]
