"""What a check says of the whole: counts beside the card's, splits beside the groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segweave.checking import check
from segweave.cli import main
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import UsageError
from segweave.phantoms.polyp import write_polyps
from tests.datasets.broken import truncate
from tests.datasets.layouts import label_of, pixels, save

ABOUT = {
    "channel_names": {"0": "grey"},
    "labels": {"background": 0, "x": 1},
    "numTraining": 6,
    "file_ending": ".png",
}


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """An nnU-Net data set of two images a patient, whose folds are by image."""
    folder = tmp_path / "Dataset001_cut"
    ids = [f"p{n // 2}_{n}" for n in range(6)]
    for n, id in enumerate(ids):
        save(folder / "imagesTr" / f"{id}_0000.png", pixels(n, (20, 24)))
        save(folder / "labelsTr" / f"{id}.png", label_of((20, 24)))
    (folder / "dataset.json").write_text(json.dumps(ABOUT), encoding="utf-8")
    folds = [{"train": ids[1:], "val": ids[:1]}, {"train": ids[2:], "val": ids[:2]}]
    (folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    return folder


def test_folds_that_cut_patients_are_kept_under_a_name_that_says_so(
    cut: Path, tmp_path: Path
) -> None:
    report = prepare("nnunet", cut, tmp_path / "s", group=r"^(p\d)_")
    assert set(report.splits) == {"seed-0", "fold-0-leaks", "fold-1"}
    (warning,) = [line for line in report.warnings if "leaks" in line]
    assert warning.startswith("fold-0-leaks: patients")
    assert Store(tmp_path / "s").splits["fold-0-leaks"]["valid"] == ["p0_0"]
    checked = check(cut, group=r"^(p\d)_")
    assert checked.ok
    assert warning in [p.found for p in checked.problems]
    assert set(prepare("nnunet", cut, tmp_path / "t").splits) == {"seed-0", "fold-0", "fold-1"}


def test_splits_that_prepare_refuses_are_reported_before_a_conversion(
    cut: Path, tmp_path: Path
) -> None:
    file = cut / "splits_final.json"
    both = [{"train": ["p0_0", "p1_2"], "val": ["p1_2"]}]
    file.write_text(json.dumps(both), encoding="utf-8")
    seen: list[str] = []
    with pytest.raises(UsageError, match="every case in one part"):
        prepare("nnunet", cut, tmp_path / "s", progress=lambda d, n, case: seen.append(case))
    assert not seen, "nothing is converted before"
    (problem,) = [p for p in check(cut).errors if p.kind == "split"]
    assert "'p1_2' in train and in valid" in problem.found
    assert any(p.kind == "split" for p in check(cut, fractions=(0.5, 0.2)).errors)


def test_counts_below_those_of_the_card_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_polyps(tmp_path / "Kvasir-SEG", 2, 3, layout="kvasir-seg", size=(24, 32))
    said = "1000 cases are expected, 6 are there"
    assert [p.found for p in check(folder).errors] == [said]
    assert prepare("kvasir-seg", folder, tmp_path / "s").missing == [said]
    for arguments, code in ((["-q"], 0), (["-q", "--strict"], 2)):
        with pytest.raises(SystemExit) as left:
            main(["check", str(folder), *arguments])
        assert left.value.code == code
        assert said in capsys.readouterr().out
    # A case that can't be read is there all the same.
    truncate(sorted((folder / "images").iterdir())[0])
    assert said not in [p.found for p in check(folder).errors]
