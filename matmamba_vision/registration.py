"""What makes timm know the models: done when timm is imported, so that nobody waits for it without need."""

from __future__ import annotations

from matmamba_common.lazy import when_imported


def register_when_imported() -> None:
    """Register the models with timm, now if it is there, or when it is imported."""
    when_imported("timm", _register)


def _register() -> None:
    from .models import registry  # noqa: F401
