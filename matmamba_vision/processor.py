"""Which processor this is."""

from __future__ import annotations

import platform
from pathlib import Path


def processor_name() -> str:
    """What the system calls the processor; of some systems only its kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())
