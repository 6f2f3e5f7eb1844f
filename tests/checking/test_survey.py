"""Whose images a folder is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from segweave.checking import check
from segweave.datasets import prepare
from segweave.errors import InputError, UsageError
from segweave.phantoms.cardiac import write_cardiac
from tests.datasets.broken import truncate
from tests.datasets.layouts import label_of, pixels, save


def _photos(folder: Path, name: str) -> Path:
    for n in range(4):
        save(folder / "images" / f"{name.format(n=n)}.png", pixels(n, (20, 24, 3)))
        save(folder / "masks" / f"{name.format(n=n)}.png", label_of((20, 24)) * 255)
    return folder


def test_your_own_images_are_not_taken_for_a_public_data_set(tmp_path: Path) -> None:
    mine = _photos(tmp_path / "mine", "knee{n}")
    report = check(mine)
    assert (report.name, report.cases, report.ok) == ("folder", 4, True)
    (note,) = [p for p in report.problems if p.what_to_do.endswith("--as kvasir-seg")]
    assert note.severity == "note"
    assert check(mine, "kvasir-seg").name == "kvasir-seg"
    assert check(mine.rename(tmp_path / "Kvasir-SEG_sample")).name == "kvasir-seg"


def test_the_folder_of_masks_is_found_where_it_is_asked_for(tmp_path: Path) -> None:
    mine = _photos(tmp_path / "mine", "{n}")
    with pytest.raises(UsageError, match=r"--as cvc-clinicdb .*--as folder"):
        check(mine)
    report = check(mine, "folder", group=r"(\d)")
    assert (report.name, report.cases, report.ok) == ("folder", 4, True)
    with pytest.raises(UsageError, match="masks=FOLDER"):
        check(mine / "images", "folder")
    assert check(mine / "images", "folder", masks=mine / "masks").cases == 4


def test_an_option_that_no_data_set_takes_is_not_passed_over(tmp_path: Path) -> None:
    write_cardiac(tmp_path / "made", 1, size=(40, 36), slices=3)
    with pytest.raises(UsageError, match="did you mean layout"):
        check(tmp_path / "made", layuot="raw")
    with pytest.raises(UsageError, match="--as NAME"):
        check(tmp_path / "made", mask_threshold=3)
    assert check(tmp_path / "made", layout="raw").name == "acdc"


def test_a_damaged_table_hides_no_other_fault(tmp_path: Path) -> None:
    raw = tmp_path / "ACDC"
    write_cardiac(raw, 2, size=(40, 36), slices=3)
    tables = sorted(raw.rglob("Info.cfg"))
    for table in tables:
        table.write_text("ED: first\n", encoding="utf-8")
    image = next(path for path in sorted(raw.rglob("*_frame01*")) if "_gt" not in path.name)
    truncate(image)
    faults = {(p.kind, p.file) for p in check(raw).errors}
    assert {("layout", table) for table in tables} | {("damaged", image)} <= faults
    with pytest.raises(InputError, match=r"Info\.cfg"):
        prepare("acdc", raw, tmp_path / "store")
