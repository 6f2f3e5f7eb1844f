"""Scoring label maps in files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import segweave
from segweave.errors import UsageError


def test_folders_of_any_origin(made: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for path in (made / "raw").glob("*/*_gt.nii.gz"):
        shutil.copy(path, truth / path.name)
    seen: list[tuple[float, float]] = []
    found = segweave.score(
        truth,
        truth,
        tmp_path / "scores",
        classes=["RV", "myocardium", "LV"],
        geometry="pixdim",
        progress=lambda done, total, name: seen.append((done, total)),
    )
    dice = [row.score.value for row in found.rows if row.score.metric == "dice"]
    assert set(dice) == {1.0}
    assert seen[-1] == (8, 8)
    assert "nsd" not in {row.score.metric for row in found.rows}
    options = {"classes": ["RV", "myocardium", "LV"], "geometry": "pixdim"}
    more = segweave.score(truth, truth, tmp_path / "more", metrics=["nsd"], **options)
    assert {row.score.value for row in more.rows if row.score.metric == "nsd"} == {1.0}
    with pytest.raises(UsageError, match="probabilities"):
        segweave.score(truth, truth, tmp_path / "none", metrics=["ece"], **options)
    with pytest.raises(UsageError, match="an empty or a new folder"):
        segweave.score(truth, truth, tmp_path / "scores", geometry="pixdim")
