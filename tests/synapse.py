"""Scans in the raw layout of Synapse, for the tests of data sets and of `check`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.phantoms.abdomen import write_abdomen


@pytest.fixture(scope="session")
def abdomens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine synthetic scans in the raw layout of Synapse."""
    return write_abdomen(tmp_path_factory.mktemp("raw") / "Training", cases=9, size=40, slices=5)


@pytest.fixture
def raw(abdomens: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return shutil.copytree(abdomens, tmp_path / "RawData" / "Training")


@pytest.fixture(scope="session")
def synapse(abdomens: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of them."""
    out = tmp_path_factory.mktemp("stores") / "synapse"
    prepare("synapse", abdomens, out)
    return Store(out)
