"""The images that the demo leaves for the page are readable, and the same in both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segweave.formats import read_case
from segweave.phantoms.cardiac import write_cardiac
from segweave.phantoms.examples import DICOM, NIFTI, write_examples
from tests.small import files_of

SMALL = {"size": (40, 36), "slices": 4}


def test_both_formats_hold_the_same_voxels_at_the_same_places(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    write_examples(tmp_path, **SMALL)
    one, other = read_case(tmp_path / NIFTI), read_case(tmp_path / DICOM)
    assert one.affine is not None
    assert other.affine is not None
    assert one.spacing == pytest.approx(other.spacing, rel=1e-5)
    assert one.size == other.size
    # Every voxel of the one is found by its place in the other.
    index = np.stack(np.meshgrid(*map(np.arange, one.image[:, 0].shape), indexing="ij"))
    places = one.affine[:3, :3] @ index.reshape(3, -1) + one.affine[:3, 3:]
    inverse = np.linalg.inv(other.affine)
    found = inverse[:3, :3] @ places + inverse[:3, 3:]
    there = np.rint(found).astype(int)
    np.testing.assert_allclose(found, there, atol=1e-3)
    np.testing.assert_array_equal(other.image[:, 0][tuple(there)], one.image[:, 0].ravel())


def test_the_same_arguments_give_the_same_bytes_and_no_patient_of_the_demo(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        write_examples(tmp_path / name, seed=2 if name == "c" else 1, **SMALL)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b") != files_of(tmp_path / "c")
    demo = write_cardiac(tmp_path / "demo", 5, 0, **SMALL)
    new = read_case(tmp_path / "a" / NIFTI).image
    for file in demo.glob("*/*_frame??.nii.gz"):
        image = read_case(file, geometry="pixdim", with_label=False).image
        assert image.shape != new.shape or not np.array_equal(image, new)
