"""Reports of runs: curves and scores are those in the files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import segweave
from segweave.data.store import Store
from segweave.errors import InputError
from segweave.evaluation import read_evaluation
from segweave.report import panels, write_report
from segweave.report.run_report import _far_below, curves_of, notable, values_by_case
from segweave.training import Run
from tests.small import make_run, make_store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report")
    make_store(folder)
    made = Run(make_run(folder, "training.epochs=2", "training.validate_every=1"))
    made.layout.report.rename(made.folder / "after-training.html")
    segweave.evaluate(made, part="validation", device="cpu")
    return made


def test_curves_are_the_means_of_the_epochs(run: Run) -> None:
    curves = curves_of({"a": run})
    rows = run.metrics
    first = [row["loss"] for row in rows if row["epoch"] == 1]
    assert curves["training loss"]["a"][0] == (1.0, pytest.approx(np.mean(first)))
    scored = [row["validation_dice"] for row in rows if "validation_dice" in row]
    assert [value for _, value in curves["validation Dice"]["a"]] == scored
    assert len(scored) == 2


def test_the_report_of_a_run_holds_its_recipe_scores_and_curves(run: Run) -> None:
    path = write_report(run)
    assert path == run.folder / "report.html"
    text = path.read_text(encoding="utf-8")
    assert "protocol clean, validation cases" in text
    assert re.search(r"acdc: \d+ training, \d+ validation, \d+ test cases<", text)
    assert "width: 2" in text
    assert text.count("data:image/png;base64,") == 3
    assert "Cases worst, median and best, clean, validation cases" in text
    assert "No picture" not in text
    scores = values_by_case(read_evaluation(run.layout.evaluation("clean-validation")).rows)
    for case, why in notable(scores).items():
        assert f"{case}: {why}, Dice {scores[case]:.3f}." in text
    assert f"{run.model_card['parameters']:,}" in text


def test_panels_show_the_shown_slice_and_its_dice(run: Run) -> None:
    store = Store(Path(str(run.recipe.data.store)))
    ids = store.split("70-10-20", "valid")
    folder = run.folder / "predictions" / "clean-validation"
    rows = panels(store, ids, {"net": folder}, store.target)
    assert len(rows) == len(ids)
    for row in rows:
        assert row.truth is not None
        assert set(np.unique(row.truth)) == {0, 1, 2, 3}, "the slice that holds every class"
        assert row.predictions["net"].shape == row.truth.shape == row.image.shape
        assert row.notes["net"].startswith("Dice 0.")


def test_a_missing_label_map_is_named(run: Run, tmp_path: Path) -> None:
    store = Store(Path(str(run.recipe.data.store)))
    with pytest.raises(InputError, match="a label map of"):
        panels(store, store.ids[:1], {"net": tmp_path}, store.target)


def test_after_the_training_the_report_shows_validation_cases(run: Run) -> None:
    before = (run.folder / "after-training.html").read_text(encoding="utf-8")
    assert "Validation cases: worst, median and best" in before
    assert before.count("data:image/png;base64,") == 2


def test_scores_without_their_store_are_reported_without_pictures(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(run: Run) -> None:
        raise InputError("opening the store", found="no such file")

    monkeypatch.setattr(Run, "open_store", gone)
    text = write_report(run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No pictures: opening the store" in text
    assert text.count("data:image/png;base64,") == 2


@pytest.mark.parametrize(
    ("values", "checkpoint", "words"),
    [
        ([0.2, 0.48, 0.33], "last", "0.330 (epoch 3), is far below the best, 0.480 (epoch 2)"),
        ([0.2, 0.48, 0.33], "last", "--checkpoint best"),
        ([0.2, 0.48, 0.33], "best", "The model has the weights of the best epoch"),
        ([0.2, 0.48, 0.44], "last", ""),
        ([float("nan")], "last", ""),
        ([], "last", ""),
    ],
)
def test_a_last_validation_far_below_the_best_is_remarked(
    values: list[float], checkpoint: str, words: str
) -> None:
    points = [(float(epoch), value) for epoch, value in enumerate(values, start=1)]
    line = _far_below("unet", points, checkpoint)
    assert words in line
    assert bool(line) == bool(words)
