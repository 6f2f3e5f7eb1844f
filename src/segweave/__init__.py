"""segweave: context modules woven into medical image segmentation networks, and honest tables of
whether they help.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Case": "segweave.data.case",
    "compare": "segweave.comparison",
    "create_context": "segweave.context",
    "create_network": "segweave.networks",
    "evaluate": "segweave.workflow.evaluate",
    "list_contexts": "segweave.context",
    "list_networks": "segweave.networks",
    "load": "segweave.prediction",
    "load_released": "segweave.author_weights",
    "plan": "segweave.workflow.plan",
    "predict": "segweave.prediction",
    "prepare": "segweave.datasets",
    "save_model": "segweave.runs.save_model",
    "score": "segweave.workflow.score",
    "train": "segweave.workflow.train",
    "weave": "segweave.weaving",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    # Lazy, so that importing segweave (and each start of the command) imports no torch.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'segweave' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
