"""The letters at the edges of a slice, from where things really are in the patient."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from segweave.formats import read_case
from segweave.prediction import direction_letters

from .tiny import volume_case

OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
# The first letter of each is the direction of the axis of the slices.
DIRECTIONS = ("SRA", "IRA", "SLP", "ILA", "RPS", "LSA", "ARS", "PIL")


@pytest.mark.parametrize("codes", DIRECTIONS)
def test_letters_are_where_the_patient_is(tmp_path: Path, codes: str) -> None:
    # Values grow towards the patient's right, towards the front, and upwards, each in its own file.
    thick = ["RL", "AP", "SI"].index(next(two for two in ("RL", "AP", "SI") if codes[0] in two))
    steps = np.where(np.arange(3) == thick, 6.0, 1.0)
    world = np.diag([*steps, 1.0])
    ramps = np.meshgrid(*map(np.arange, (5, 6, 7)), indexing="ij")
    brightest: dict[str, str] = {}
    for axis, letter in enumerate("RAS"):
        plain = nibabel.Nifti1Image(ramps[axis].astype(np.int16), world)
        turn = ornt_transform(io_orientation(world), axcodes2ornt((*codes[1:], codes[0])))
        file = tmp_path / f"{letter}.nii.gz"
        nibabel.save(plain.as_reoriented(turn), file)
        case = read_case(file)
        middle = case.image[case.slices // 2, 0].astype(float)
        for edge, step in (
            ("horizontal", middle[:, -1].mean() - middle[:, 0].mean()),
            ("vertical", middle[-1].mean() - middle[0].mean()),
        ):
            if step:
                brightest[edge] = letter if step > 0 else OPPOSITE[letter]
    left, right, top, bottom = direction_letters(case)
    assert (right, bottom) == (brightest["horizontal"], brightest["vertical"])
    assert (left, top) == (OPPOSITE[right], OPPOSITE[bottom])


@pytest.mark.parametrize("degrees", [0, 20, 44.9, 45, 46, 70])
def test_the_axes_of_oblique_slices_never_share_letters(degrees: float) -> None:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, c, s], [0, s, -c], [5, 0, 0]])
    letters = direction_letters(volume_case(affine=affine, spacing=(5.0, 1.0, 1.0)))
    assert letters is not None
    assert len(set(letters)) == 4
    assert set(letters) == set("RLAP")


def test_a_header_without_direction_gives_no_letters(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 3), np.int16), None)
    image.header.set_zooms((1, 1, 5))
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(image, tmp_path / "a.nii.gz")
    # Its affine is the one that the format assumes.
    assert direction_letters(read_case(tmp_path / "a.nii.gz")) is None
    nibabel.save(nibabel.Nifti1Image(image.dataobj, np.diag([-1, 1, 5, 1])), tmp_path / "b.nii")
    assert direction_letters(read_case(tmp_path / "b.nii")) is not None
