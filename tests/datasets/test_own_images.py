"""Own images as scanners, phones and office programs leave them: series, turned pictures, paths."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segweave.checking import check
from segweave.cli import main
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import InputError
from segweave.formats import read_case, write_label
from tests.formats.test_dicom import VOLUME, write_series, write_slice


def _scans(folder: Path) -> tuple[Path, Path]:
    """Three series, and label maps of what is bright in them."""
    for k in range(3):
        series = write_series(folder / "im" / f"c{k}", np.roll(VOLUME, k, axis=1))
        case = read_case(series)
        label = (case.image[:, 0] > 300).astype(np.uint8)
        write_label(label, case, folder / "ma" / f"c{k}.nii.gz")
    return folder / "im", folder / "ma"


def test_a_folder_of_series_is_prepared(tmp_path: Path) -> None:
    images, masks = _scans(tmp_path)
    report = prepare("folder", images, tmp_path / "s", masks=masks)
    assert (report.cases, report.slices) == (3, 15)
    store = Store(tmp_path / "s")
    for id in store.ids:
        case = store.case(id)
        np.testing.assert_array_equal(case.label > 0, case.image[:, 0] > 300)  # type: ignore[operator]
    # The slices' content identifies a case: a changed one is read again.
    first = next(iter(sorted((images / "c0").iterdir())))
    first.write_bytes(first.read_bytes()[:-2] + b"\x01\x02")
    again = prepare("folder", images, tmp_path / "s", masks=masks, overwrite=True)
    assert again.checksum != report.checksum


@pytest.mark.parametrize("alone", [False, True])
def test_the_slices_of_a_series_are_files_of_a_case(tmp_path: Path, alone: bool) -> None:
    images, masks = _scans(tmp_path)
    if alone:
        report = check(images)
        assert report.name == "images"
    else:
        report = check(images, "folder", masks=masks)
    assert report.cases == 3
    assert not [p for p in report.problems if p.severity != "note"], report.problems


def test_a_series_with_a_damaged_slice_names_the_slice(tmp_path: Path) -> None:
    images, _ = _scans(tmp_path)
    broken = sorted((images / "c1").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:300])
    report = check(images)
    assert report.cases == 2
    assert {p.file for p in report.errors} == {broken}


def test_single_pictures_of_dicom_are_cases(tmp_path: Path) -> None:
    for k in range(3):
        write_slice(tmp_path / "im" / f"x{k}.dcm", VOLUME[k], Modality="DX")
        (tmp_path / "ma").mkdir(exist_ok=True)
        Image.fromarray((VOLUME[k] > 300).astype(np.uint8) * 255).save(
            tmp_path / "ma" / f"x{k}.png"
        )
    assert prepare("folder", tmp_path / "im", tmp_path / "s", masks=tmp_path / "ma").cases == 3
    assert check(tmp_path / "im").cases == 3


def _phone(folder: Path, turn: int, shape: tuple[int, int]) -> tuple[Path, Path]:
    exif = Image.Exif()
    exif[274] = turn
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for k in range(3):
        picture = np.random.default_rng(k).integers(0, 255, (20, 30), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"p{k}.jpg", exif=exif)
        mask = np.zeros(shape, np.uint8)
        mask[3:9, 4:9] = 255
        Image.fromarray(mask).save(folder / "masks" / f"p{k}.png")
    return folder / "images", folder / "masks"


def test_an_orientation_that_is_not_applied_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = _phone(tmp_path, 3, (20, 30))
    report = prepare("folder", images, tmp_path / "s", masks=masks)
    assert any("3 pictures have an EXIF orientation" in line for line in report.warnings)
    main_arguments = ["check", str(images), "--as", "folder", "--option", f"masks={masks}", "-q"]
    with pytest.raises(SystemExit):
        main(main_arguments)
    out = capsys.readouterr().out
    assert "nothing is wrong" not in out
    assert "3 warnings" in out


def test_a_mask_that_was_drawn_on_the_turned_picture_is_told_by_its_size(tmp_path: Path) -> None:
    images, masks = _phone(tmp_path, 6, (30, 20))
    with pytest.raises(InputError, match="EXIF orientation is not applied"):
        prepare("folder", images, tmp_path / "s", masks=masks)


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_a_table_of_paths_that_lead_nowhere_names_them(tmp_path: Path, separator: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"image,mask\nimgs{separator}a.nii.gz,imgs{separator}b.nii.gz\n")
    for act in (lambda: prepare("table", table, tmp_path / "s"), lambda: check(table, "table")):
        with pytest.raises(InputError) as caught:
            act()
        assert f"imgs{separator}a.nii.gz" in str(caught.value)
        assert ("is a letter of a name" in str(caught.value)) == (separator == "\\")


@pytest.mark.parametrize("kind", ["image", "mask", "table"])
def test_a_pipe_is_refused_not_waited_for(tmp_path: Path, kind: str) -> None:
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii")
    nib.save(nib.Nifti1Image((VOLUME > 0).astype(np.uint8), np.eye(4)), tmp_path / "b.nii")
    table = tmp_path / "t.csv"
    names = {"image": "a.nii", "mask": "b.nii", kind: "pipe.nii"}
    os.mkfifo(tmp_path / "pipe.nii")
    table.write_text(f"image,mask\n{names['image']},{names['mask']}\n")
    source = tmp_path / "pipe.nii" if kind == "table" else table
    with pytest.raises(InputError, match=r"pipe|nothing there|a file"):
        prepare("table", source, tmp_path / "s")


@pytest.mark.parametrize(("black", "noted"), [(True, True), (False, False)])
def test_masks_in_which_black_is_the_foreground_are_noted(
    tmp_path: Path, black: bool, noted: bool
) -> None:
    images, masks = _phone(tmp_path, 1, (20, 30))
    for path in masks.iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(255 - mask if black else mask).save(path)
    report = prepare("folder", images, tmp_path / "s", masks=masks)
    assert any("black and white exchanged" in line for line in report.warnings) == noted
    problems = check(images, "folder", masks=masks).problems
    assert any("black and white exchanged" in problem.found for problem in problems) == noted
