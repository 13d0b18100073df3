"""Make `import torchvision` work when its compiled operators do not match the installed torch.

PyPI's torchvision is built for CUDA. Beside a CPU-only torch its operators cannot load, so registering their
fake kernels fails with `operator torchvision::nms does not exist`, and every library that imports torchvision
(timm, torchmetrics) fails with it. Its Python parts (transforms, ImageFolder) need none of those operators:
declaring the two missing schemas lets the import succeed. That is done when torchvision is imported, and only
after that very failure; where torchvision is healthy, nothing is touched. The compiled decoders and box
operators stay unavailable.

`import matmamba_datasets` sees to it. But timm may be imported first: run as a program, this file copies
itself to where Python finds it at every start, and `make` does so in the environment that it makes, if timm
cannot be imported there. What every start of Python waits for, and an interrupt would break, is little: until
torchvision is asked for, it imports what Python has imported anyway.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType
    from typing import Any

NAME = "_matmamba_torchvision"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# The schemas live as long as what is in here.
_KEPT: list[Any] = []


class Mender:
    """Runs torchvision's own loader, once more with the missing operators declared if they are missing."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As its own loader does."""
        made: ModuleType | None = self._own.create_module(spec)
        return made

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
        if name != "torchvision":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = cls(spec.loader)  # type: ignore[assignment]
        return spec


def mend_when_imported() -> None:
    """Let this Python mend torchvision when it is imported, unless that was done, or it is there already."""
    # By name: the copy that starts with Python is another module.
    known = any(getattr(finder, "__name__", "") == Mender.__name__ for finder in sys.meta_path)
    if not known and "torchvision" not in sys.modules:
        sys.meta_path.insert(0, Mender)


def install() -> Path:
    """Let every start of this Python import this file; returns where it is then."""
    import shutil
    import sysconfig
    from pathlib import Path

    folder = Path(sysconfig.get_path("purelib"))
    shutil.copyfile(__file__, folder / f"{NAME}.py")
    (folder / f"{NAME}.pth").write_text(f"import {NAME}\n")
    return folder / f"{NAME}.py"


if __name__ == "__main__":
    print(install())
elif __name__ == NAME:
    mend_when_imported()
