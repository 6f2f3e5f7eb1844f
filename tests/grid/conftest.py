"""The store of the grids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("grid"))
