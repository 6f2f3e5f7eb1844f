"""Every row of the table of formats: names, endings, and label maps that come back as they were."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.formats import (
    case_name,
    label_formats,
    label_name,
    read_case,
    read_label,
    read_label_case,
    suitable_format,
    write_label,
)
from segweave.formats.table import FORMATS, format_of, label_format, suffix_of

AFFINE = np.array([[0, -0.8, 0, 4], [1.1, 0, 0, -3], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
TARGET = TargetSpec(names=("background", "a", "b", "c"))
# Objects that refer to DICOM images have separate tests.
WRITTEN = [format for format in FORMATS if format.write is not None and not format.refers]


def _case(folder: Path, slices: int):  # type: ignore[no-untyped-def]
    values = np.random.default_rng(slices).integers(0, 99, (6, 7, slices)).astype(np.int16)
    image = nib.Nifti1Image(values, AFFINE)
    image.set_sform(AFFINE, code=1)
    nib.save(image, folder / "image.nii.gz")
    return read_case(folder / "image.nii.gz")


def test_names_and_endings_belong_to_one_format() -> None:
    names = [format.name for format in FORMATS]
    assert len(set(names)) == len(names)
    for format in FORMATS:
        for suffix in format.suffixes:
            assert suffix == suffix.lower()
            if format.read is not None:
                assert format_of(f"p1{suffix.upper()}") is format
                assert suffix_of(f"p1{suffix}") == suffix
                assert case_name(f"x/p1{suffix}") == "p1"
        assert all(label_format(name).write is not None for name in format.labels)
        # Whatever a label map holds, some format of an image takes it.
        for slices in (1, 3):
            for overlapping in (False, True):
                name = label_name(f"p1{format.suffixes[0]}", slices=slices, overlapping=overlapping)
                chosen = format_of(name)
                assert chosen is not None
                assert chosen.holds(slices=slices, overlapping=overlapping)


@pytest.mark.parametrize("format", WRITTEN, ids=lambda format: format.name)
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("classes", [None, 2])
def test_a_label_map_comes_back_as_it_was_written(
    format, slices: int, classes: int | None, tmp_path: Path
) -> None:
    case = _case(tmp_path, slices)
    highest = 4 if classes is None else 2
    shape = (case.slices, *case.size) if classes is None else (case.slices, classes, *case.size)
    labels = np.random.default_rng(1).integers(0, highest, shape).astype(np.uint8)
    overlapping = classes is not None
    if not format.holds(slices=case.slices, overlapping=overlapping):
        with pytest.raises(UsageError) as caught:
            write_label(labels, case, tmp_path / "l", format=format.name)
        fits = [f for f in WRITTEN if f.holds(slices=case.slices, overlapping=overlapping)]
        assert all(f"{f.name} (" in str(caught.value) for f in fits)
        assert f"{format.name} (" not in str(caught.value)
        with pytest.raises(UsageError):
            label_name("a.nii", format=format.name, slices=case.slices, overlapping=overlapping)
        return
    name = label_name("labels.png", format=format.name, slices=case.slices, overlapping=overlapping)
    for suffix in format.suffixes:
        path = tmp_path / f"by-ending{suffix}"
        write_label(labels, case, path, target=TARGET)
        np.testing.assert_array_equal(read_label(path, case, scaled=False), labels)
        alone = read_label_case(path, scaled=False)
        if format.family == "volume":
            assert alone.affine is not None
            np.testing.assert_allclose(alone.affine, case.affine, atol=1e-6)
        elif format.family == "array":
            assert alone.spacing == pytest.approx(case.spacing)
    write_label(labels, case, tmp_path / name, format=format.name)
    np.testing.assert_array_equal(read_label(tmp_path / name, case, scaled=False), labels)


def test_names_for_the_command() -> None:
    plain = ("nifti", "mha", "nrrd", "npz", "h5", "png")
    assert label_formats() == (*plain, "dicom-seg", "rtstruct")
    assert label_name("scans/p1.nrrd", format="nifti") == "p1.nii.gz"
    assert label_name("scans/p1.nii", format="nifti") == "p1.nii"
    assert label_name("p1.JPG", format="npz") == "p1.npz"
    with pytest.raises(UsageError, match="did you mean nifti"):
        label_name("p1.nii", format="nifty")
    with pytest.raises(UsageError, match="did you mean png"):
        label_format("jpeg")


def test_the_format_that_keeps_the_most(tmp_path: Path) -> None:
    assert suitable_format(_case(tmp_path, 3)) == "nifti"
    from PIL import Image

    Image.fromarray(np.zeros((6, 7), np.uint8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", image=np.zeros((3, 6, 7), np.uint8))
    assert suitable_format(read_case(tmp_path / "a.png")) == "png"
    assert suitable_format(read_case(tmp_path / "a.png"), overlapping=True) == "npz"
    assert suitable_format(read_case(tmp_path / "a.npz")) == "npz"
