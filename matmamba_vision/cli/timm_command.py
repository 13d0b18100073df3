"""Run a script of timm's repository with the models of this project registered.

timm's train.py, validate.py and benchmark.py are in its repository, not in its package. Their flag
`--model-kwargs width=1/4` takes the submodel of a width.

examples:
  matmamba timm benchmark.py --model matmamba_tiny_patch16_224 --model-kwargs width=1/4 --device cpu
  matmamba timm train.py --model matmamba_hybrid_tiny_patch16_224 --data-dir PHOTOS
"""

from __future__ import annotations

import logging
import runpy
import sys
import traceback
from pathlib import Path

from ..errors import ConfigError, MatMambaError
from .console import say


def run(arguments: list[str]) -> int:
    """The script, with its own arguments; its faults are its own."""
    if not arguments or arguments[0] in ("-h", "--help"):
        say(f"usage: matmamba timm SCRIPT [its arguments]\n\n{__doc__}")
        sys.exit(0)
    script = Path(arguments[0])
    if not script.is_file():
        raise ConfigError(
            f"no script {script}: timm's are in its repository, github.com/huggingface/pytorch-image-models"
        )
    # timm's scripts set up their own, and would be heard twice.
    logging.getLogger().handlers.clear()
    sys.argv = [*arguments]
    # As Python itself does: scripts import what lies beside them.
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except (MatMambaError, OSError):
        raise
    except Exception:
        say(traceback.format_exc().rstrip(), stderr=True)
        return 1
    return 0
