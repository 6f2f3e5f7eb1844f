"""A store and a finished run that the tests of the workflows share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segweave.runs.run_folder import Run
from tests.small import make_run, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    make_store(folder)
    make_run(folder, "context.name=mean", "input.slices=3")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of the finished run, free to be scored."""
    return Run(shutil.copytree(made / "run", tmp_path / "run"))
