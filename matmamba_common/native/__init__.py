"""Kernels in C: one library, compiled where there is a compiler, and everything works without it.

`hatch_build.py` compiles the kernels of all packages into `libkernels.so` in this folder, `instructions.c`
chooses among instruction sets, and `loading` opens it. What is called there, the packages declare themselves.
"""

from .loading import PLAIN, Compiled, kernels, why_no_kernels

__all__ = ["PLAIN", "Compiled", "kernels", "why_no_kernels"]
