from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segweave.data.store import Store
from segweave.training import Run
from tests.training import toy


@pytest.fixture(scope="package", autouse=True)
def _on_the_cpu() -> Iterator[None]:
    """These trainings are compared bit for bit, which a GPU promises with `deterministic` only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the processes that tests start
        yield


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return toy.write_store(tmp_path_factory.mktemp("store") / "toy")


@pytest.fixture(scope="session")
def binary_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return toy.write_store(tmp_path_factory.mktemp("binary") / "toy", kind="binary")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return toy.run_of(store, tmp_path_factory.mktemp("finished") / "run", training__epochs=12)
