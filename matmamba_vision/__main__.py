"""`python -m matmamba_vision COMMAND` is `matmamba COMMAND`, also under torchrun and accelerate launch."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
