"""NIfTI in and out: geometry, header, units, and headers that contradict themselves."""

from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from segweave.errors import InputError
from segweave.formats import read_case, read_label, read_label_case, write_label

ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
KEPT = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "dim_info", "descrip", "toffset"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


def affine_of(spacing, rotation=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation.as_matrix()) @ np.diag(spacing)
    affine[:3, 3] = (12.5, -40.25, 3.0)
    return affine


def turned(volume, affine, axes, flips):
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        move[old, new] = -1 if flip else 1
        move[old, 3] = volume.shape[old] - 1 if flip else 0
    stored = np.transpose(volume, axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    return stored, affine @ move


def save(path, volume, affine, *, sform=1, qform=1, units=("mm", "sec"), kind=nib.Nifti1Image):
    image = kind(volume, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_xyzt_units(*units)
    image.header["descrip"] = b"kept"
    nib.save(image, path)
    return path


def in_ras(path):
    """Values and affine after nibabel has brought the file to RAS."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj), image.affine


def raw_header(path):
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return nib.Nifti1Header(data[:348], check=False)


def label_by_brightness(case):
    """Stands for a predictor: what it says depends on the voxel alone."""
    return (case.image[:, 0] % 5).astype(np.uint8)


VOLUME = np.random.default_rng(0).permutation(3 * 4 * 5).reshape(3, 4, 5).astype(np.int16)


@pytest.mark.parametrize(
    ("spacing", "rotation"),
    [
        ((1.25, 1.25, 8.0), None),
        ((1.0, 1.0, 1.0), None),
        ((1.25, 1.25, 8.0), Rotation.from_euler("xyz", (20, -30, 40), degrees=True)),
        ((0.9, 5.0, 0.9), Rotation.from_euler("xyz", (-8, 12, 5), degrees=True)),
    ],
    ids=["straight", "cube", "oblique", "oblique coronal"],
)
def test_all_orientations_in_and_out(tmp_path, spacing, rotation):
    affine = affine_of(spacing, rotation)
    first = read_case(save(tmp_path / "first.nii", VOLUME, affine))
    write_label(label_by_brightness(first), first, tmp_path / "first_label.nii")
    expected, expected_affine = in_ras(tmp_path / "first_label.nii")
    for number, (axes, flips) in enumerate(ORIENTATIONS):
        stored, own = turned(VOLUME, affine, axes, flips)
        codes = ((1, 1), (2, 0), (0, 1), (4, 1))[number % 4]
        path = save(tmp_path / "in.nii", stored, own, sform=codes[0], qform=codes[1])
        case = read_case(path)
        np.testing.assert_array_equal(case.image, first.image)
        np.testing.assert_allclose(case.affine, first.affine, atol=1e-4)
        out = tmp_path / "out.nii"
        write_label(label_by_brightness(case), case, out)
        before, after = raw_header(path), raw_header(out)
        for field in KEPT:
            np.testing.assert_array_equal(before[field], after[field], err_msg=field)
        np.testing.assert_array_equal(nib.load(path).affine, nib.load(out).affine)
        assert nib.load(out).get_data_dtype() == np.uint8
        found, found_affine = in_ras(out)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found_affine, expected_affine, atol=1e-4)
        np.testing.assert_array_equal(read_label(out, case), label_by_brightness(case))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_both_versions_plain_and_packed(tmp_path, kind, name):
    path = save(tmp_path / name, VOLUME, affine_of((1, 1, 4)), kind=kind)
    case = read_case(path)
    out = tmp_path / ("label_" + name)
    write_label(label_by_brightness(case), case, out)
    assert isinstance(nib.load(out), kind)
    assert nib.load(out).shape == VOLUME.shape
    again = out.read_bytes()
    write_label(label_by_brightness(case), case, out)
    assert out.read_bytes() == again, "the same labels give the same bytes"


def test_big_endian_and_scaled_values(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(VOLUME, affine_of((1, 1, 4)), header)
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "a.nii")
    case = read_case(tmp_path / "a.nii")
    assert case.image.dtype.isnative
    expected = np.asarray(nib.load(tmp_path / "a.nii").dataobj)
    np.testing.assert_allclose(np.sort(case.image.ravel()), np.sort(expected.ravel()), atol=1e-5)
    write_label(label_by_brightness(case), case, tmp_path / "b.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").affine, image.affine)
    assert set(np.unique(nib.load(tmp_path / "b.nii").dataobj)) <= set(range(5))


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_units_become_millimetres_and_stay_in_the_file(tmp_path, unit, factor):
    path = save(tmp_path / "a.nii", VOLUME, affine_of((1, 1, 4)), units=(unit, "sec"))
    case = read_case(path)
    assert case.spacing == pytest.approx((4 * factor, factor, factor))
    write_label(label_by_brightness(case), case, tmp_path / "b.nii")
    assert nib.load(tmp_path / "b.nii").header.get_xyzt_units() == (unit, "sec")


def test_steps_that_disagree_name_the_option_that_decides(tmp_path):
    """As in ACDC: unit steps in the sform, millimetres in pixdim alone."""
    image = nib.Nifti1Image(VOLUME, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.set_sform(image.affine, 2)
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = (1.5, 1.5, 10)
    nib.save(image, tmp_path / "a.nii.gz")
    assert raw_header(tmp_path / "a.nii.gz")["pixdim"][3] == 10
    with pytest.raises(InputError, match="--geometry pixdim") as caught:
        read_case(tmp_path / "a.nii.gz")
    assert "1 × 1 × 1" in str(caught.value)
    assert "1.5 × 1.5 × 10" in str(caught.value)
    millimetres = read_case(tmp_path / "a.nii.gz", geometry="pixdim")
    assert millimetres.spacing == pytest.approx((10, 1.5, 1.5))
    np.testing.assert_array_equal(millimetres.image[:, 0], VOLUME.transpose(2, 1, 0))
    steps = read_case(tmp_path / "a.nii.gz", geometry="affine")
    assert steps.spacing == pytest.approx((1, 1, 1))
    write_label(label_by_brightness(millimetres), millimetres, tmp_path / "b.nii.gz")
    before, after = raw_header(tmp_path / "a.nii.gz"), raw_header(tmp_path / "b.nii.gz")
    for field in KEPT:
        np.testing.assert_array_equal(before[field], after[field], err_msg=field)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 1, 1)])
def test_flat_images_keep_their_number_of_axes(tmp_path, shape):
    values = np.arange(30, dtype=np.uint8).reshape(shape)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "a.nii")
    case = read_case(tmp_path / "a.nii")
    np.testing.assert_array_equal(case.image[0, 0], values.reshape(6, 5).T)
    assert case.stack == ("single" if len(shape) == 2 else "space")
    write_label(case.image[:, 0], case, tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "b.nii").dataobj), values)


def test_a_time_series_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 6), np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"3 × 4 × 5 × 6.*\n.*each frame"):
        read_case(tmp_path / "a.nii")


def test_overlapping_classes_are_a_fourth_axis(tmp_path):
    case = read_case(save(tmp_path / "a.nii", VOLUME, affine_of((1, 1, 4))))
    labels = np.random.default_rng(1).integers(0, 2, (5, 2, 4, 3)).astype(np.uint8)
    write_label(labels, case, tmp_path / "b.nii.gz")
    assert nib.load(tmp_path / "b.nii.gz").shape == (3, 4, 5, 2)
    np.testing.assert_array_equal(read_label(tmp_path / "b.nii.gz", case), labels)


def test_a_label_on_other_axes_is_brought_to_its_image(tmp_path):
    affine = affine_of((1.25, 1.25, 8.0))
    case = read_case(save(tmp_path / "a.nii", VOLUME, affine))
    stored, own = turned(VOLUME % 5, affine, (2, 0, 1), (True, False, True))
    save(tmp_path / "b.nii", stored.astype(np.float32), own)
    np.testing.assert_array_equal(read_label(tmp_path / "b.nii", case), label_by_brightness(case))
    whole = read_case(tmp_path / "a.nii", label=tmp_path / "b.nii")
    np.testing.assert_array_equal(whole.label, label_by_brightness(case))


def test_a_label_without_orientation_lies_on_its_images_voxels(tmp_path):
    affine = affine_of((8.0, 1.25, 1.25))
    case = read_case(save(tmp_path / "a.nii", VOLUME, affine))
    image = nib.Nifti1Image((VOLUME % 5).astype(np.uint8), None)
    nib.save(image, tmp_path / "b.nii")
    assert raw_header(tmp_path / "b.nii")["sform_code"] == 0
    np.testing.assert_array_equal(read_label(tmp_path / "b.nii", case), label_by_brightness(case))


def test_a_label_of_another_place_is_refused(tmp_path):
    affine = affine_of((1.25, 1.25, 8.0))
    case = read_case(save(tmp_path / "a.nii", VOLUME, affine))
    shifted = affine.copy()
    shifted[0, 3] += 5
    path = save(tmp_path / "b.nii", (VOLUME % 5).astype(np.uint8), shifted)
    with pytest.raises(InputError, match="5 mm away"):
        read_label(path, case)


def test_a_label_map_alone_is_a_case(tmp_path):
    path = save(tmp_path / "b.nii", (VOLUME % 5).astype(np.uint8), affine_of((1.25, 1.25, 8.0)))
    reference = read_label_case(path)
    assert reference.spacing == pytest.approx((8, 1.25, 1.25))
    np.testing.assert_array_equal(read_label(path, reference), reference.label)


@pytest.mark.real
@pytest.mark.parametrize(
    "frame", ["patient041/patient041_frame01", "patient094/patient094_frame07"]
)
def test_acdc_keeps_its_header(real_data, tmp_path, frame):
    path = real_data / "acdc/nifti/training" / f"{frame}.nii.gz"
    truth = path.with_name(path.name.replace(".nii", "_gt.nii"))
    with pytest.raises(InputError, match="pixdim"):
        read_case(path)
    case = read_case(path, label=truth, geometry="pixdim")
    assert case.spacing[0] in (5.0, 10.0)
    write_label(case.label, case, tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(
        np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj), np.asarray(nib.load(truth).dataobj)
    )
    for field in KEPT:
        np.testing.assert_array_equal(
            raw_header(path)[field], raw_header(tmp_path / "out.nii.gz")[field], err_msg=field
        )
