"""Training: losses, schedule, the loop, the run folder, resuming."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Run": "segweave.runs.run_folder",
    "Score": "segweave.training.session",
    "TrainingStoppedError": "segweave.training.session",
    "train": "segweave.training.run_training",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # Lazy, so that reading a run imports no torch.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'segweave.training' has no attribute {name!r}")
