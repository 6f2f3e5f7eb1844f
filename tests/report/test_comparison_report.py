"""The page of a comparison, with pictures where label maps and images are still there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import segweave
from segweave.comparison import compare
from segweave.comparison.results import ScoredRun
from segweave.data.specs import TargetSpec
from segweave.evaluation import evaluate_folders
from segweave.prediction import class_colours, load
from segweave.report import comparison_report, difference_dots, prediction_panel, write_comparison
from segweave.report.comparison_report import notable_cases
from segweave.report.figures import as_png
from tests.comparison.made import arms, level, shifted
from tests.small import make_run, make_store

CASES = 7


@pytest.fixture
def scored(tmp_path: Path) -> list[Path]:
    """Discs as references, and two arms that miss them by more and by less."""
    rows, columns = np.mgrid[:40, :48]
    for k in range(CASES):
        for name, shift in (("truth", 0), ("near", 1 + k % 2), ("far", 2 + k % 3)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            disc = (rows - 18) ** 2 + (columns - 20 - shift) ** 2 < (7 + k) ** 2
            Image.fromarray(disc.astype(np.uint8)).save(folder / f"image{k}.png")
    for arm in ("near", "far"):
        evaluate_folders(tmp_path / arm, tmp_path / "truth", tmp_path / "scores" / arm, arm=arm)
    return sorted((tmp_path / "scores").iterdir())


def test_a_page_with_pictures(scored: list[Path], tmp_path: Path) -> None:
    result = compare(scored, "far")
    page = write_comparison(result, tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 2
    for words in ("Holds for these weights only", "Exploratory", "gained most (near ", "hd95"):
        assert words in page
    assert "No picture" not in page
    (panel, *_) = comparison_report._rows(result, "image0", comparison_report._target(result))
    figure = prediction_panel([panel], comparison_report._target(result))
    assert [axis.get_title() for axis in figure.axes] == ["truth", "far", "near"]
    assert "<script" not in page


def test_the_facts_count_in_words(scored: list[Path], tmp_path: Path) -> None:
    result = compare(scored, "far")
    result.groups = 1
    assert f"{CASES} from 1 group<" in write_comparison(result, tmp_path / "page.html").read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of two arms on one store."""
    folder = tmp_path_factory.mktemp("runs")
    make_store(folder)
    rates = {"a": "0.003", "b": "0.002"}
    return [
        make_run(folder, f"arm={name}", f"seed={k}", f"training.optimiser.rate={rate}", name=name)
        for k, (name, rate) in enumerate(rates.items())
    ]


def test_a_class_has_the_colour_of_the_target_of_the_run(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(rows: object, target: TargetSpec) -> Figure:
        drawn.append(class_colours(target))
        return prediction_panel(rows, target)  # type: ignore[arg-type]

    monkeypatch.setattr(comparison_report, "prediction_panel", draw)
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    card_file = copies[0] / "model" / "card.json"
    card = json.loads(card_file.read_text())
    card["target"]["colours"] = ["#000000", "#112233", "#445566", "#778899"]
    card_file.write_text(json.dumps(card))
    made = [segweave.evaluate(run, part="validation", device="cpu") for run in copies]
    write_comparison(compare(made, "a"), tmp_path / "page.html")
    assert drawn == [class_colours(load(copies[0], device="cpu").target)]
    assert drawn[0][1] == "#112233"


def test_pictures_are_of_the_label_maps_that_were_scored(runs: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    options: dict[str, Any] = {"part": "validation", "device": "cpu"}
    made = [
        segweave.evaluate(copies[0], **options),
        segweave.evaluate(copies[0], members=[copies[1]], out=tmp_path / "mean", **options),
        segweave.evaluate(copies[0], flips="both", **options),
    ]
    result = compare(made, "a")
    page = write_comparison(result, tmp_path / "page.html").read_text()
    assert "No picture" not in page
    folders = {p.arm: comparison_report._label_folders(p, "clean") for p in result.scored_runs}
    held = copies[0] / "predictions"
    assert folders["a"] == [held / "clean-validation"]
    assert folders["a-flips-both"] == [held / "clean-validation-flips-both"]
    (mean,) = folders["a-mean-of-2-seeds-0-b-seeds-1"]
    assert mean == tmp_path / "mean" / "predictions"
    # A run that was moved takes its label maps along; an evaluation that was copied finds them.
    moved = Path(shutil.move(copies[0], tmp_path / "moved"))
    scored = result.scored_runs[0].model_copy(
        update={"folder": str(moved / "evaluation" / "clean-validation")}
    )
    assert comparison_report._label_folders(scored, "clean") == [
        moved / "predictions/clean-validation"
    ]


def test_older_evaluations_of_averages_find_their_label_maps(tmp_path: Path) -> None:
    held = tmp_path / "a" / "predictions" / "clean-mean-of-2"
    held.mkdir(parents=True)
    (tmp_path / "a" / "recipe.yaml").write_text("")
    scored = ScoredRun(
        arm="a", seed=0, fold=0, folder="elsewhere/clean-mean-of-2",
        sources={"run": f"{tmp_path / 'a'}, {tmp_path / 'b'}", "part": "test"},
    )  # fmt: skip
    assert comparison_report._label_folders(scored, "clean") == [held]


def test_without_label_maps_the_page_has_a_line_about_it(tmp_path: Path) -> None:
    result = compare(arms(tmp_path, {"a": level, "b": shifted(0.02)}), "a")
    page = write_comparison(result, tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 1
    assert "No picture: the label maps of a that its evaluation names are gone" in page


def test_notable_cases(scored: list[Path]) -> None:
    result = compare(scored, "far")
    chosen = notable_cases(result)
    (near,) = result.arms
    worst = min(near.by_case, key=lambda case: near.by_case[case][0])
    assert "worst (near" in chosen[worst]
    gained = max(near.by_case, key=lambda case: near.by_case[case][0] - near.by_case[case][1])
    assert "gained most" in chosen[gained]
    assert len(chosen) <= 8


def test_where_all_cases_are_equal_none_is_the_best(scored: list[Path]) -> None:
    result = compare(scored, "far")
    (near,) = result.arms
    zero = near.model_copy(update={"by_case": dict.fromkeys(near.by_case, (0.0, 0.0))})
    (why,) = notable_cases(result.model_copy(update={"arms": [zero]})).values()
    assert "worst" in why
    assert "best" not in why


def test_other_endings(scored: list[Path], tmp_path: Path) -> None:
    result = compare(scored, "far")
    assert write_comparison(result, tmp_path / "t.csv").read_text().startswith("arm,reference,")


def test_difference_dots() -> None:
    arms = {"a": ([0.1, -0.2, 0.3], (0.07, -0.1, 0.2)), "b": ([0.1], (0.1, None, None))}
    assert as_png(difference_dots(arms)).startswith(b"\x89PNG")
