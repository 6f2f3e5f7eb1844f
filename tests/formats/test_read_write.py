"""Arrays and pictures in and out, and which files count as images."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from PIL import Image

from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.formats import (
    case_name,
    find_images,
    label_name,
    read_array,
    read_case,
    read_label,
    write_label,
)

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 200, (3, 6, 7)).astype(np.uint8)
LABEL = (VOLUME % 4).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 7, 3)).astype(np.uint8)


def write_h5(path, **extra):
    with h5py.File(path, "w") as file:
        file["image"] = VOLUME
        file["label"] = LABEL.astype(np.float32)
        file.attrs["spacing_zyx_mm"] = np.array([10, 1.5, 1.5], np.float32)
        for name, value in extra.items():
            file.attrs[name] = value
    return path


def test_h5_volume_with_label_and_spacing(tmp_path):
    case = read_case(write_h5(tmp_path / "p1.h5", phase="ED", frame=np.int64(3)), group="p1")
    np.testing.assert_array_equal(case.image[:, 0], VOLUME)
    np.testing.assert_array_equal(case.label, LABEL)
    assert (case.id, case.group, case.stack) == ("p1", "p1", "space")
    assert case.spacing == (10.0, 1.5, 1.5)
    assert case.attributes["phase"] == "ED"
    assert type(case.attributes["frame"]) is int
    assert len(case.provenance.sha256) == 64
    assert read_case(tmp_path / "p1.h5", with_label=False).label is None


@pytest.mark.parametrize("name", ["image", "img"])
def test_npz_slice(tmp_path, name):
    np.savez_compressed(
        tmp_path / "a.npz", **{name: VOLUME[0].astype(np.float32), "label": LABEL[0]}
    )
    case = read_case(tmp_path / "a.npz")
    assert case.stack == "single"
    np.testing.assert_array_equal(case.image[0, 0], VOLUME[0])
    np.testing.assert_array_equal(case.label[0], LABEL[0])


@pytest.mark.parametrize(
    ("values", "shape", "stack"),
    [
        (VOLUME, (3, 1, 6, 7), "space"),
        (VOLUME[0], (1, 1, 6, 7), "single"),
        (COLOUR, (1, 3, 6, 7), "single"),
        (np.stack([COLOUR] * 5), (5, 3, 6, 7), "space"),
        (VOLUME[:, None].repeat(2, 1), (3, 2, 6, 7), "space"),
        (COLOUR[..., :1], (1, 1, 6, 7), "single"),
        (np.stack([COLOUR[..., :1]] * 5), (5, 1, 6, 7), "space"),
        (np.dstack([COLOUR, COLOUR[..., 0]]), (1, 4, 6, 7), "single"),
        (np.stack([np.dstack([COLOUR, COLOUR[..., 0]])] * 5), (5, 4, 6, 7), "space"),
    ],
)
def test_npy_axes(tmp_path, values, shape, stack):
    np.save(tmp_path / "a.npy", values)
    case = read_case(tmp_path / "a.npy")
    assert (case.image.shape, case.stack) == (shape, stack)
    assert read_array(tmp_path / "a.npy").shape == shape
    assert read_case(tmp_path / "a.npy", stack="time").stack == "time"


@pytest.mark.parametrize("slices", [1, 5])
def test_channels_last_of_image_and_label(tmp_path, slices):
    image, label = np.stack([COLOUR[..., :1]] * slices), np.stack([LABEL[0][..., None]] * slices)
    image, label = (image[0], label[0]) if slices == 1 else (image, label)
    np.savez(tmp_path / "a.npz", image=image, label=label)
    np.save(tmp_path / "b.npy", label)
    case = read_case(tmp_path / "a.npz")
    assert case.image.shape == (slices, 1, 6, 7)
    for read in (case.label, read_label(tmp_path / "b.npy", case)):
        np.testing.assert_array_equal(read, np.stack([LABEL[0]] * slices))


def test_array_labels_are_written_as_npz(tmp_path):
    case = read_case(write_h5(tmp_path / "a.h5"))
    path = tmp_path / label_name("a.h5")
    write_label(case.label, case, path)
    assert path.name == "a.npz"
    np.testing.assert_array_equal(read_label(path, case), LABEL)
    assert np.load(path)["spacing_zyx_mm"].tolist() == [10, 1.5, 1.5]


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
@pytest.mark.parametrize("values", [VOLUME[0], COLOUR], ids=["grey", "colour"])
def test_lossless_pictures(tmp_path, ending, values):
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    case = read_case(tmp_path / f"a.{ending}")
    expected = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    np.testing.assert_array_equal(case.image[0], expected)
    assert (case.stack, case.spacing) == ("single", None)


def test_jpeg_ignores_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "a.JPG", exif=exif)
    assert read_case(tmp_path / "a.JPG").size == (6, 7)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey(tmp_path, ending):
    values = VOLUME[0].astype(np.uint16) * 300
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    case = read_case(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(case.image[0, 0], values)
    assert case.image.dtype.isnative


def test_palette_is_colour_in_an_image_and_ids_in_a_label(tmp_path):
    picture = Image.fromarray(LABEL[0])
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    case = read_case(tmp_path / "a.png")
    np.testing.assert_array_equal(case.image[0, 0] == 255, LABEL[0] == 1)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png", case)[0], LABEL[0])


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    opaque = np.dstack([COLOUR, np.full((6, 7), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_array(tmp_path / "a.png")[0], np.moveaxis(COLOUR, -1, 0))
    opaque[2, 3, 3] = 7
    Image.fromarray(opaque).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="1 pixels that are transparent"):
        read_case(tmp_path / "b.png")


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_masks_of_0_and_255_are_0_and_1(tmp_path, mode):
    mask = LABEL[0] > 1
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode, dither=0).save(tmp_path / "a.png")
    case = read_case(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png", case)[0], mask)


def test_picture_labels_in_and_out(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg")
    case = read_case(tmp_path / "a.jpg")
    write_label(LABEL[:1], case, tmp_path / "ids.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "ids.png")), LABEL[0])
    np.testing.assert_array_equal(read_label(tmp_path / "ids.png", case), LABEL[:1])
    write_label(
        LABEL[:1] // 2,
        case,
        tmp_path / "mask.png",
        target=TargetSpec(names=("background", "polyp"), kind="binary"),
    )
    assert set(np.unique(Image.open(tmp_path / "mask.png"))) == {0, 255}
    np.testing.assert_array_equal(read_label(tmp_path / "mask.png", case), LABEL[:1] // 2)
    with pytest.raises(UsageError, match="one of the formats"):
        write_label(LABEL[:1], case, tmp_path / "mask.jpg")
    with pytest.raises(InputError, match="1 × 6 × 7"):
        write_label(LABEL[:1, :5], case, tmp_path / "mask.png")


def test_a_case_that_was_no_nifti_cannot_be_written_as_one(tmp_path):
    case = read_case(write_h5(tmp_path / "a.h5"))
    with pytest.raises(InputError, match="without a NIfTI header"):
        write_label(LABEL, case, tmp_path / "a.nii.gz")
    assert not (tmp_path / "a.nii.gz").exists()


def test_names():
    assert case_name("x/p1.frame.nii.gz") == "p1.frame"
    assert case_name("case1.npy.h5") == "case1"
    assert label_name("x/p1.nii.gz") == "p1.nii.gz"
    assert label_name("photo.JPG") == "photo.png"
    assert label_name("photo.JPG", overlapping=True) == "photo.npz"


def test_images_of_a_folder(tmp_path):
    for name in ("b.nii.gz", "b_gt.nii.gz", "sub/a.png", "sub/c_mask.png", ".hidden.png", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == ["b.nii.gz", "sub/a.png", "sub/c_mask.png"]
    assert find_images(tmp_path / "sub/a.png") == [tmp_path / "sub/a.png"]


@pytest.mark.real
def test_real_layouts(real_data):
    volume = read_case(real_data / "acdc/ACDC_training_volumes/patient041_frame01.h5")
    nifti = read_case(
        real_data / "acdc/nifti/training/patient041/patient041_frame01.nii.gz", geometry="pixdim"
    )
    np.testing.assert_array_equal(volume.image, nifti.image)
    assert volume.spacing == pytest.approx(nifti.spacing)
    slice_ = read_case(real_data / "acdc/npz_layout/valid/case_041_sliceED_1.npz")
    np.testing.assert_array_equal(slice_.label[0], volume.label[1])
    synapse = read_case(real_data / "synapse-layout/test_vol_h5/case9001.npy.h5")
    assert (synapse.id, synapse.label.max()) == ("case9001", 8)
    polyp = read_case(
        real_data / "cvc-clinicdb/Original/1.jpg",
        label=real_data / "cvc-clinicdb/Ground Truth/1.png",
    )
    assert set(np.unique(polyp.label)) == {0, 1}
