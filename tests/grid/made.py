"""Grid files of a small store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.small import SETS


def write(folder: Path, store: Path, **changes: Any) -> Path:
    narrow = {"recipe": "demo", "arm": "narrow", "set": {"network": {"options": {"width": 1}}}}
    values = {
        "format": 1,
        "store": str(store),
        "out": "runs",
        "recipes": ["demo", narrow],
        "set": list(SETS),
        "seeds": [0, 1],
        "device": "cpu",
    }
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(values | changes))
    return file
