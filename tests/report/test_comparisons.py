"""The page of a comparison, with pictures where label maps and images are still there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave.evaluation import evaluate_folders
from segweave.evaluation.comparison import compare
from segweave.report import difference_dots, write_comparison
from segweave.report.comparisons import telling_cases
from segweave.report.figures import as_png
from tests.evaluation.comparison.made import arms, level, shifted

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
    assert "<script" not in page


def test_without_label_maps_the_page_says_so(tmp_path: Path) -> None:
    result = compare(arms(tmp_path, {"a": level, "b": shifted(0.02)}), "a")
    page = write_comparison(result, tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 1
    assert "No picture: the label maps of a are not where its evaluation says" in page


def test_telling_cases(scored: list[Path]) -> None:
    result = compare(scored, "far")
    chosen = telling_cases(result)
    (near,) = result.arms
    worst = min(near.by_case, key=lambda case: near.by_case[case][0])
    assert "worst (near" in chosen[worst]
    gained = max(near.by_case, key=lambda case: near.by_case[case][0] - near.by_case[case][1])
    assert "gained most" in chosen[gained]
    assert len(chosen) <= 8


def test_other_endings(scored: list[Path], tmp_path: Path) -> None:
    result = compare(scored, "far")
    assert write_comparison(result, tmp_path / "t.csv").read_text().startswith("arm,reference,")


def test_difference_dots() -> None:
    arms = {"a": ([0.1, -0.2, 0.3], (0.07, -0.1, 0.2)), "b": ([0.1], (0.1, None, None))}
    assert as_png(difference_dots(arms)).startswith(b"\x89PNG")
