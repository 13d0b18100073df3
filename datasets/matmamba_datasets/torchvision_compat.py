"""Make `import torchvision` work when its compiled operators do not match the installed torch.

PyPI's torchvision is built for CUDA. Beside a CPU-only torch its operators cannot load, so registering their
fake kernels fails with `operator torchvision::nms does not exist`, and every library that imports torchvision
(timm, torchmetrics) fails with it. Its Python parts (transforms, ImageFolder) need none of those operators:
declaring the two missing schemas lets the import succeed. Importing this module does that, only after that
very failure; where torchvision is healthy, nothing is touched. The compiled decoders and box operators stay
unavailable.
"""

import importlib
import sys

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _lacks_operators(error: RuntimeError) -> bool:
    return "torchvision::nms does not exist" in str(error)


def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + _SCHEMA)
    return library


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def ensure_torchvision() -> torch.library.Library | None:
    """Import torchvision; return the library with the declared schemas, None where nothing was needed.

    Raises whatever the import raises for any other reason.
    """
    try:
        importlib.import_module("torchvision")
        return None
    except RuntimeError as error:
        if not _lacks_operators(error):
            raise
    _forget_half_imported()
    library = _declare_operators()
    importlib.import_module("torchvision")
    return library


# The schemas live as long as this reference.
DECLARED = ensure_torchvision()
