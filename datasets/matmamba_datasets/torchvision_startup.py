"""Mend torchvision when it is imported, whoever imports it first: timm may come before this package.

What is wrong with it, and when, is told in `torchvision_compat`. Run as a program, this file copies itself to
where Python finds it at every start: `make` does so in the environment that it makes, if timm cannot be
imported there. It imports nothing but the standard library until torchvision is asked for.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "_matmamba_torchvision"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# The schemas live as long as what is in here.
_KEPT: list[Any] = []


class Mender(Loader):
    """Runs torchvision's own loader, once more with the missing operators declared if they are missing."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As its own loader does."""
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module; raises whatever its own code raises for any other reason."""
        try:
            self._own.exec_module(module)
            return
        except RuntimeError as error:
            if "torchvision::nms does not exist" not in str(error):
                raise
        import torch

        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(name + _SCHEMA)
        _KEPT.append(library)
        self._own.exec_module(module)

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Of torchvision, with this loader; of nothing else."""
        spec = PathFinder.find_spec(name, path) if name == "torchvision" else None
        if spec is not None and spec.loader is not None:
            spec.loader = cls(spec.loader)
        return spec


def install() -> Path:
    """Let every start of this Python import this file; returns where it is then."""
    folder = Path(sysconfig.get_path("purelib"))
    shutil.copyfile(__file__, folder / f"{NAME}.py")
    (folder / f"{NAME}.pth").write_text(f"import {NAME}\n")
    return folder / f"{NAME}.py"


if __name__ == "__main__":
    print(install())
elif __name__ == NAME:
    sys.meta_path.insert(0, Mender)
