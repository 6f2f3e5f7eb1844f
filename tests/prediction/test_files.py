"""Files and folders in, label maps and overlays out; nothing that exists is ever harmed."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import SegweaveError, UsageError
from segweave.formats import label_format, label_formats, read_case, read_label
from segweave.prediction import Predictor, predict_files
from tests.formats.test_nifti import KEPT, ORIENTATIONS, affine_of, in_ras, raw_header, turned
from tests.prediction.tiny import (
    BINARY,
    OVERLAPPING,
    RNG,
    TARGET,
    VOLUME,
    ByBrightness,
    by_brightness,
    save_nifti,
    unet,
)


def test_a_folder_of_every_kind(images, tmp_path):
    seen = []
    predictor = by_brightness((16, 16))
    report = predict_files(
        predictor, images, tmp_path / "out", progress=lambda *event: seen.append(event)
    )
    assert not report.failures
    out = tmp_path / "out"
    written = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert written == [
        "b.npz",
        "c.npz",
        "d.png",
        "overlays/b.png",
        "overlays/c.png",
        "overlays/d.png",
        "overlays/p1/heart.png",
        "p1/heart.nii.gz",
        "predictions.json",
    ]
    for row in report.files:
        case = read_case(row.file, with_label=False)
        labels = read_label(row.labels, case)
        assert row.size == labels.shape
        assert [row.classes[name][0] for name in ("left", "right")] == [
            int((labels == value).sum()) for value in (1, 2)
        ]
    summary = json.loads(report.summary.read_text())
    heart = next(case for case in summary["cases"] if case["case"] == "heart")
    voxels = heart["classes"]["right"]["pixels"]
    assert heart["classes"]["right"]["ml"] == pytest.approx(voxels * 1.5 * 1.5 * 8 / 1000, abs=1e-4)
    assert heart["size"] == [3, 16, 16]
    picture = next(case for case in summary["cases"] if case["case"] == "d")
    assert "ml" not in picture["classes"]["right"]
    done = [event[0] for event in seen]
    assert done == sorted(done)
    assert seen[-1] == (4, 4, "")


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 8.0), (2.0, 2.0, 2.0)])
def test_every_orientation_gives_the_same_labels_in_the_patient(tmp_path, spacing):
    volume = RNG.normal(0, 1, (4, 6, 5)).astype(np.float32)
    affine = affine_of(spacing)
    expected = None
    for number, (axes, flips) in enumerate(ORIENTATIONS):
        stored, own = turned(volume, affine, axes, flips)
        save_nifti(tmp_path / f"in/{number:02}.nii", stored, own)
    # The network reads (row, column) of the axial slice: 6 × 4.
    predict_files(by_brightness((6, 4)), tmp_path / "in", tmp_path / "out", overlays=False)
    for number in range(len(ORIENTATIONS)):
        source, found = tmp_path / f"in/{number:02}.nii", tmp_path / f"out/{number:02}.nii"
        before, after = raw_header(source), raw_header(found)
        for field in KEPT:
            np.testing.assert_array_equal(before[field], after[field], err_msg=field)
        values, where = in_ras(found)
        expected = values if expected is None else expected
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_allclose(where, in_ras(source)[1], atol=1e-4)
    assert set(np.unique(expected)) == {0, 1, 2}


@pytest.mark.parametrize("name", label_formats())
def test_label_maps_in_a_format_by_name(images, tmp_path, name):
    predictor = by_brightness((16, 16))
    plain = predict_files(predictor, images, tmp_path / "plain", overlays=False)
    report = predict_files(predictor, images, tmp_path / "out", overlays=False, format=name)
    cases = {row.case: read_case(row.file, with_label=False) for row in plain.files}
    expected = {row.case: read_label(row.labels, cases[row.case]) for row in plain.files}
    suffix = label_format(name).suffixes[0]
    for row in report.files:
        assert row.labels.name == f"{row.case}{suffix}"
        labels = read_label(row.labels, cases[row.case])
        np.testing.assert_array_equal(labels, expected[row.case])
    # A picture holds one slice, and a geometry can be written where the image has one.
    held = {"png": {"c", "d"}, "npz": {"heart", "b", "c", "d"}, "h5": {"heart", "b", "c", "d"}}
    assert {row.case for row in report.files} == held.get(name, {"heart"})
    failed = {failure.file.name.split(".")[0] for failure in report.failures}
    assert failed == {"heart", "b", "c", "d"} - held.get(name, {"heart"})
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.split(".")[0] in failed]


def test_an_unknown_format_is_refused_before_anything_is_read(images, tmp_path):
    with pytest.raises(UsageError, match="did you mean nifti"):
        predict_files(by_brightness((16, 16)), images, tmp_path / "out", format="nift")
    assert not (tmp_path / "out").exists()


def test_a_failing_file_is_reported_and_the_others_continue(images, tmp_path):
    (images / "a_broken.nii.gz").write_bytes(b"\x1f\x8b nothing")
    VOLUME[0].tofile(images / "e_broken.npz")
    report = predict_files(by_brightness((16, 16)), images, tmp_path / "out", overlays=False)
    assert [f.file.name for f in report.failures] == ["a_broken.nii.gz", "e_broken.npz"]
    assert len(report.files) == 4
    summary = json.loads(report.summary.read_text())
    assert "a_broken.nii.gz" in summary["failures"][0]["message"]
    assert not (tmp_path / "out/a_broken.nii.gz").exists()


def test_a_full_disk_harms_nothing(images, tmp_path, monkeypatch):
    predictor, out = by_brightness((16, 16)), tmp_path / "out"
    predict_files(predictor, images / "d.png", out)
    before = (out / "d.png").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segweave.storage.os.fsync", full)
    with pytest.raises(SegweaveError, match="No space left"):
        predict_files(predictor, images / "d.png", out, force=True)
    assert (out / "d.png").read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == ["d.png", "overlays", "predictions.json"]


def test_contradicting_headers_are_decided_by_the_option(tmp_path):
    image = nib.Nifti1Image(VOLUME.T, np.diag([-1.0, -1, 1, 1]))
    image.header["pixdim"][1:4] = (1.5, 1.5, 10)
    nib.save(image, tmp_path / "a.nii")
    predictor = by_brightness((16, 16))
    report = predict_files(predictor, tmp_path / "a.nii", tmp_path / "out")
    assert "--geometry pixdim" in str(report.failures[0].error)
    report = predict_files(predictor, tmp_path / "a.nii", tmp_path / "out", geometry="pixdim")
    assert report.files[0].spacing == pytest.approx((10, 1.5, 1.5))


def test_binary_pictures_are_masks_that_people_can_see(images, tmp_path):
    predictor = unet("mean", target=BINARY)
    predict_files(predictor, images / "d.png", tmp_path / "out")
    found = np.asarray(Image.open(tmp_path / "out/d.png"))
    assert set(np.unique(found)) <= {0, 255}
    case = read_case(images / "d.png")
    assert read_label(tmp_path / "out/d.png", case).max() <= 1


def test_overlapping_classes_and_probabilities(images, tmp_path):
    predictor = unet("mean", target=OVERLAPPING)
    inputs = [images / "d.png", images / "p1/heart.nii.gz"]
    report = predict_files(predictor, inputs, tmp_path / "out", probabilities=True)
    assert not report.failures
    assert np.load(tmp_path / "out/d.npz")["label"].shape == (1, 2, 20, 30)
    assert nib.load(tmp_path / "out/heart.nii.gz").shape == (16, 16, 3, 2)
    maps = np.load(tmp_path / "out/probabilities/d.npz")["probabilities"]
    assert maps.shape == (1, 2, 20, 30)
    assert maps.dtype == np.float32
    # A viewer opens those of a NIfTI image, in its geometry.
    for file in (
        images / "p1/heart.nii.gz",
        other_byte_order(images / "p1/heart.nii.gz", tmp_path),
    ):
        case = read_case(file)
        expected = predictor.session().predict(case, probabilities=True).probabilities
        if not (tmp_path / "out/probabilities" / file.name).exists():
            predict_files(predictor, file, tmp_path / "out", probabilities=True)
        kept = nib.load(tmp_path / "out/probabilities" / file.name)
        assert kept.get_data_dtype().newbyteorder("=") == np.float32
        np.testing.assert_array_equal(kept.affine, nib.load(file).affine)
        for number in range(2):
            plane = case.source_grid.to_case(np.asarray(kept.dataobj)[..., number])
            np.testing.assert_array_equal(plane, expected[:, number])


def other_byte_order(file, folder):
    """The same image as a file of the other byte order."""
    image = nib.load(file)
    header = image.header.as_byteswapped(">" if image.header.endianness == "<" else "<")
    swapped = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header)
    nib.save(swapped, folder / "swapped.nii.gz")
    return folder / "swapped.nii.gz"


def test_colour_pictures(tmp_path):
    colour = RNG.integers(0, 255, (16, 16, 3)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(colour).save(tmp_path / "in/a.jpg")
    spec = InputSpec(channels=("red", "green", "blue"), colour_order="rgb", size=(16, 16), slices=1)
    report = predict_files(
        Predictor(ByBrightness(), spec, TARGET), tmp_path / "in", tmp_path / "out"
    )
    assert (tmp_path / "out/a.png").exists()
    assert report.files[0].spacing is None
    grey = by_brightness((16, 16))
    report = predict_files(grey, tmp_path / "in", tmp_path / "grey")
    assert "expected: 1" in str(report.failures[0].error)


@pytest.mark.real
def test_real_heart(real_data, tmp_path):
    folder = real_data / "acdc/nifti/training/patient094"
    target = TargetSpec(names=("background", "rv", "myo", "lv"))
    predictor = unet("mean", target=target)
    report = predict_files(predictor, folder, tmp_path / "out", geometry="pixdim")
    assert not report.failures
    assert [row.case for row in report.files] == ["patient094_frame01", "patient094_frame07"]
    for row in report.files:
        before, after = raw_header(row.file), raw_header(row.labels)
        for field in KEPT:
            np.testing.assert_array_equal(before[field], after[field], err_msg=field)


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), MemoryError(), UnicodeDecodeError("utf-8", b"", 0, 1, "odd")]
)
def test_one_unusual_file_never_ends_the_others(images, tmp_path, monkeypatch, error):
    real = read_case

    def reads(file, **options):
        if file.name == "c.npz":
            raise error
        return real(file, **options)

    monkeypatch.setattr("segweave.prediction.files.read_case", reads)
    report = predict_files(by_brightness((16, 16)), images, tmp_path / "out")
    assert [file.case for file in report.files] == ["b", "d", "heart"]
    assert [failure.file.name for failure in report.failures] == ["c.npz"]
    assert "memory" in str(report.failures[0].error) or "unexpected" in str(
        report.failures[0].error
    )


def test_an_overlay_that_fails_takes_no_label_map_away(images, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no such font")

    monkeypatch.setattr("segweave.prediction.files.draw_overlay", fails)
    report = predict_files(by_brightness((16, 16)), images, tmp_path / "out")
    assert not report.failures
    assert all("no such font" in file.note and file.overlay is None for file in report.files)
    listed = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]
    assert all("no such font" in case["note"] for case in listed)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "$\\frac{$", "caf\udce9", "[red]", "<b>"])
def test_names_of_any_kind(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    np.savez(folder / "plain.npz", img=VOLUME[0])
    np.savez(folder / f"{name}.npz", img=VOLUME[0])
    report = predict_files(by_brightness((16, 16)), folder, tmp_path / "out")
    assert not report.failures
    assert not any(file.note for file in report.files)
    listed = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]
    assert {case["case"] for case in listed} == {"plain", name}
