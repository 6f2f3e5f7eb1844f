"""Fixtures that several packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from segweave.registry import REGISTRIES

# In the suite hypothesis tries the same inputs on every machine, so that a run can be repeated;
# `make search` looks for new ones (profile search, a random seed, many more examples).
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")

pytest_plugins = ["tests.synapse"]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SEGWEAVE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder} (set SEGWEAVE_REAL_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _own_plugins() -> Iterator[None]:
    """What a test registers with --plugin is gone after it."""
    before = [(dict(one._found()), dict(one._plugin_hashes)) for one in REGISTRIES]
    yield
    for one, (cards, hashes) in zip(REGISTRIES, before, strict=True):
        one._cards, one._plugin_hashes = cards, hashes


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side, so each keeps to one thread."""
    import torch

    torch.set_num_threads(1)
