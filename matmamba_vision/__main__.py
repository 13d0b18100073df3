"""`python -m matmamba_vision COMMAND` is `matmamba COMMAND`, also under torchrun and accelerate launch."""

import sys

from matmamba_common.command import run

if __name__ == "__main__":
    sys.exit(run())
