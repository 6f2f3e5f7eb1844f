"""NIfTI headers that say two things, labels that a header broke, and masks made by a threshold."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segweave.checking import check
from segweave.errors import InputError
from segweave.formats import read_case, read_label, write_label

VALUES = np.random.default_rng(0).integers(0, 900, (20, 16, 4)).astype(np.int16)
A = np.diag([1.5, 1.5, 6.0, 1.0])
MIRRORED = A.copy()
MIRRORED[0, 0], MIRRORED[0, 3] = -1.5, 1.5 * 19
SHIFTED = A.copy()
SHIFTED[:3, 3] = 3.0


def _save(path: Path, values: np.ndarray, sform: object, qform: object) -> Path:
    image = nib.Nifti1Image(values, A)
    image.set_sform(sform, 0 if sform is None else 1)
    image.set_qform(qform, 0 if qform is None else 1)
    if sform is None and qform is None:
        image.header["pixdim"][1:4] = (1.5, 1.5, 6)
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("qform", [MIRRORED, SHIFTED])
def test_sform_and_qform_that_disagree_are_refused_until_geometry_decides(
    tmp_path: Path, qform: np.ndarray
) -> None:
    path = _save(tmp_path / "a.nii.gz", VALUES, A, qform)
    with pytest.raises(InputError, match=r"--geometry affine .* or --geometry qform") as caught:
        read_case(path)
    assert caught.value.kind == "header"
    assert [p.kind for p in check(tmp_path).problems if p.severity == "error"] == ["header"]
    for geometry, only in (("affine", {"sform": A}), ("qform", {"qform": qform})):
        forms = {"sform": None, "qform": None, **only}
        plain = _save(tmp_path / "plain" / "a.nii.gz", VALUES, **forms)  # type: ignore[arg-type]
        ours, wanted = read_case(path, geometry=geometry), read_case(plain)  # type: ignore[arg-type]
        np.testing.assert_array_equal(ours.image, wanted.image)
        np.testing.assert_allclose(ours.affine, wanted.affine, atol=1e-4)  # type: ignore[arg-type]


def test_forms_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    angle = np.radians(17)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.71, 0.71, 3.3])
    image = nib.Nifti1Image(VALUES, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_case(tmp_path / "a.nii").spacing, (3.3, 0.71, 0.71), rtol=1e-4)


def test_an_empty_sform_gives_way_to_the_qform(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii", VALUES, A, MIRRORED)
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)
    path.write_bytes(content)
    wanted = read_case(_save(tmp_path / "b.nii", VALUES, None, MIRRORED))
    np.testing.assert_array_equal(read_case(path).image, wanted.image)


@pytest.mark.parametrize("name", ["A.NII.GZ", "a.nii.GZ", "a.Nii.Gz"])
def test_an_ending_in_capitals_is_packed_too(tmp_path: Path, name: str) -> None:
    path = _save(tmp_path / "a.nii.gz", VALUES, A, A)
    case = read_case(path.rename(tmp_path / name))
    out = tmp_path / "out" / name
    write_label((case.image[:, 0] > 400).astype(np.uint8), case, out)
    np.testing.assert_array_equal(
        nib.load(out.rename(tmp_path / "b.nii.gz")).get_fdata() > 0, VALUES > 400
    )


@pytest.mark.parametrize("highest", [1, 2, 5, 100, 255])
def test_ids_that_a_slope_broke_are_whole_again(tmp_path: Path, highest: int) -> None:
    ids = np.random.default_rng(1).integers(0, highest + 1, VALUES.shape).astype(np.float64)
    ids.flat[0] = highest
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    image = read_case(_save(tmp_path / "a.nii", VALUES, A, A))
    nib.save(nib.Nifti1Image(ids, A, header), tmp_path / "gt.nii")
    nib.save(nib.Nifti1Image(ids.astype(np.uint8), A), tmp_path / "plain.nii")
    wanted = read_label(tmp_path / "plain.nii", image)
    np.testing.assert_array_equal(read_label(tmp_path / "gt.nii", image), wanted)


def test_a_slope_that_no_rounding_repairs_is_named(tmp_path: Path) -> None:
    image = read_case(_save(tmp_path / "a.nii", VALUES, A, A))
    label = nib.Nifti1Image((VALUES > 400).astype(np.uint8), A)
    nib.save(label, tmp_path / "gt.nii")
    content = bytearray((tmp_path / "gt.nii").read_bytes())
    content[112:116] = np.float32(0.3).tobytes()
    (tmp_path / "gt.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"the slope 0\.3"):
        read_label(tmp_path / "gt.nii", image)


SOFT = np.where(VALUES > 400, 200, 20).astype(np.uint8)


@pytest.mark.parametrize("kind", ["same", "turned", "no header", "shifted"])
def test_a_threshold_leaves_the_check_of_the_place_in_force(tmp_path: Path, kind: str) -> None:
    image = read_case(_save(tmp_path / "a.nii", VALUES, A, A))
    forms = {"same": (SOFT, A), "turned": (SOFT[::-1], MIRRORED), "shifted": (SOFT, SHIFTED)}
    values, affine = forms.get(kind, (SOFT, None))
    path = _save(tmp_path / "soft.nii", np.ascontiguousarray(values), affine, affine)
    if kind == "shifted":
        with pytest.raises(InputError, match="mm away"):
            read_label(path, image, threshold=127)
        return
    np.testing.assert_array_equal(read_label(path, image, threshold=127), image.image[:, 0] > 400)


def test_a_label_without_geometry_is_named_as_such(tmp_path: Path) -> None:
    image = read_case(_save(tmp_path / "a.nii", VALUES, A, A))
    nib.save(nib.Nifti1Image((VALUES > 400).astype(np.uint8), np.eye(4)), tmp_path / "p.nii")
    with pytest.raises(InputError, match="with the image's header"):
        read_label(tmp_path / "p.nii", image)


@pytest.mark.parametrize("bare", ["image", "label"])
def test_where_one_header_has_no_orientation_the_voxels_are_in_one_order(
    tmp_path: Path, bare: str
) -> None:
    image = _save(tmp_path / "a.nii", VALUES, *((None, None) if bare == "image" else (A, A)))
    mask = (VALUES > 400).astype(np.uint8)
    label = _save(
        tmp_path / "gt.nii", mask, *((None, None) if bare == "label" else (MIRRORED,) * 2)
    )
    case = read_case(image, label=label)
    np.testing.assert_array_equal(case.label, case.image[:, 0] > 400)
