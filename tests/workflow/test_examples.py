"""The examples in the docstrings of the public functions run as they are written."""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.small import write_volume

MODULES = {
    "train": "segweave.workflow.train",
    "evaluate": "segweave.workflow.evaluate",
    "score": "segweave.workflow.score",
    "load": "segweave.prediction.predictor",
    "predict": "segweave.prediction.predictor",
    "Evaluation": "segweave.evaluation.rows",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "run", tmp_path / "runs" / "a")
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "acdc").symlink_to(made / "store")
    write_volume(tmp_path / "scan.nii.gz")
    for folder in ("labels", "truth"):
        (tmp_path / folder).mkdir()
        values = np.arange(4 * 6 * 5).reshape(4, 6, 5).astype(np.uint8) % 4
        image = nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 8.0, 1.0]))
        nibabel.save(image, tmp_path / folder / "a.nii.gz")
    (test,) = (
        found
        for found in doctest.DocTestFinder(recurse=False).find(
            getattr(importlib.import_module(MODULES[name]), name), name
        )
        if found.examples
    )
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
