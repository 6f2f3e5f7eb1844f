"""The page of scored files, over their images where these are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave import score
from segweave.cli import main
from segweave.comparison import compare
from segweave.errors import InputError
from segweave.evaluation import Evaluation
from segweave.report import comparison_report, write_scores
from segweave.report.run_report import notable
from segweave.report.scored_files import ScoredFiles

CASES = 5


def write(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Discs, seen in colour, found with a growing shift by two programs."""
    rows, columns = np.mgrid[:40, :48]
    for k in range(CASES):
        for name, shift in (("truth", 0), ("near", k), ("far", 2 + 2 * k)):
            disc = (rows - 18) ** 2 + (columns - 18 - shift) ** 2 < 81
            ending = "_seg" if name == "truth" else ""
            write(tmp_path / name, f"case{k}{ending}.png", disc.astype(np.uint8))
        write(tmp_path / "images", f"case{k}_0000.png", np.full((40, 48, 3), 90, np.uint8))
    return tmp_path


def scored(folders: Path, name: str, **options: object) -> Evaluation:
    return score(folders / name, folders / "truth", folders / "scores" / name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [True, False])
def test_the_page_shows_the_worst_the_median_and_the_best(folders: Path, images: bool) -> None:
    options = {"images": folders / "images"} if images else {}
    found = scored(folders, "near", **options)
    page = write_scores(found, folders / "page.html").read_text()
    assert page.count("data:image/png") == 2
    for case, word in (("case4", "worst"), ("case2", "median"), ("case0", "best")):
        assert f"{case}: {word}, Dice" in page
    assert "No picture" not in page
    assert ("drawn on black" in page) == (not images)
    assert "Dice of each case" in page
    files = ScoredFiles(found.manifest.sources)
    assert files.seen == images
    case = files.case("case3")
    assert case.image.shape == ((1, 3, 40, 48) if images else (1, 1, 40, 48))
    assert files.prediction(case).sum() == np.asarray(case.label).sum()


def test_a_picture_that_cannot_be_drawn_is_a_line(folders: Path) -> None:
    found = scored(folders, "near", images=folders / "images")
    (folders / "images" / "case4_0000.png").unlink()
    write(folders / "images", "case0_0000.png", np.zeros((9, 9), np.uint8))
    page = write_scores(found, folders / "page.html").read_text()
    assert page.count("No picture") == 2
    assert "case4: worst" in page
    assert "an image of case4" in page


def test_a_comparison_draws_over_the_images(folders: Path) -> None:
    made = [scored(folders, name, images=folders / "images") for name in ("near", "far")]
    result = compare(made, "far")
    (panel, *_) = comparison_report._rows(result, "case1", comparison_report._target(result))
    assert panel.seen
    assert panel.image.shape[-1] == 3


def test_a_threshold_is_that_of_the_scores(folders: Path) -> None:
    for name in ("near", "truth"):
        for file in (folders / name).iterdir():
            Image.fromarray(np.asarray(Image.open(file)) * 200 + 20).save(file)
    found = scored(folders, "near", mask_threshold=127)
    page = write_scores(found, folders / "page.html").read_text()
    assert "No picture" not in page
    assert "Dice 1.000" in page


def test_the_command_writes_the_page(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", folders / "near", folders / "truth", "--out", folders / "e", "-q"]
    words += ["--images", folders / "images", "--page", folders / "p.html", "--group", "case[0-9]"]
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    assert left.value.code == 0
    assert (folders / "p.html").is_file()
    assert "p.html" in capsys.readouterr().out
    with pytest.raises(InputError, match="the images"):
        scored(folders, "far", images=folders / "nowhere")


def test_one_case_is_the_worst_and_the_best() -> None:
    assert notable({"a": 0.5}) == {"a": "the only case"}
    assert notable({"a": 0.0, "b": 0.0}) == {"a": "one of equal cases"}
    assert notable({}) == {}
