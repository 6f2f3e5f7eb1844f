"""The examples in the docstrings of these packages run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "segweave.author_weights",
    "segweave.data.case",
    "segweave.data.store_writer",
    "segweave.runs.run_folder",
    "segweave.runs.save_model",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
