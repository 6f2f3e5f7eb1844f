"""Context modules: they read a short sequence of feature maps and return one. Knows nothing of
networks or data.
"""

from __future__ import annotations

from typing import Any

from segweave import registry
from segweave.context.base import ContextModule, Prepared

__all__ = ["ContextModule", "Prepared", "create_context", "list_contexts"]


def list_contexts() -> list[str]:
    """Names of all context modules, ablations and controls, plug-ins included."""
    return list(registry.contexts.cards())
