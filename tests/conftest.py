"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SEGWEAVE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder} (set SEGWEAVE_REAL_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side, so each keeps to one thread."""
    import torch

    torch.set_num_threads(1)
