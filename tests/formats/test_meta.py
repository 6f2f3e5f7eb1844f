from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from segweave.errors import InputError, MissingExtraError
from segweave.formats import label_name, read_case, read_label, write_label

KINDS = (".mha", ".nrrd")
ANGLE = np.radians(20)
DIRECTION = (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, 1)


def write(
    path: Path, values: np.ndarray, *, packed: bool = True, vector: bool = False, **geometry: Any
) -> Any:
    """Write (z, y, x) with an oblique geometry."""
    image = sitk.GetImageFromArray(values, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing(geometry.get("spacing", (0.7, 0.8, 3.0)))
        image.SetOrigin(geometry.get("origin", (11.0, -12.0, 13.0)))
        image.SetDirection(geometry.get("direction", DIRECTION))
    sitk.WriteImage(image, str(path), packed)
    return image


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, (4, 6, 7)).astype(np.int16)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_case(path)
    for word in (str(path), *words):
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_image_as_nifti_is_the_same_case(
    tmp_path: Path, values: np.ndarray, kind: str, packed: bool
) -> None:
    for direction in (DIRECTION, (1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 1, -1, 0, 0, 0, -1, 0)):
        image = write(tmp_path / f"a{kind}", values, packed=packed, direction=direction)
        sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
        ours, nifti = read_case(tmp_path / f"a{kind}"), read_case(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(ours.image, nifti.image)
        assert ours.image.dtype == np.int16
        np.testing.assert_allclose(ours.affine, nifti.affine, atol=1e-4)  # type: ignore[arg-type]
        assert ours.source_grid == nifti.source_grid
        assert ours.spacing == pytest.approx(nifti.spacing, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_keep_the_geometry_and_go_to_nifti_too(
    tmp_path: Path, values: np.ndarray, kind: str
) -> None:
    image = write(tmp_path / f"a{kind}", values)
    case = read_case(tmp_path / f"a{kind}")
    labels = (case.image[:, 0] > 0).astype(np.uint8)
    assert label_name(f"a{kind}") == f"a{kind}"
    written = tmp_path / f"label{kind}"
    write_label(labels, case, written)
    back = sitk.ReadImage(str(written))
    for ours, theirs in (
        (back.GetSpacing(), image.GetSpacing()),
        (back.GetOrigin(), image.GetOrigin()),
        (back.GetDirection(), image.GetDirection()),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), values > 0)
    np.testing.assert_array_equal(read_label(written, case), labels)
    write_label(labels, case, tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii.gz", case), labels)
    assert nibabel.load(tmp_path / "label.nii.gz").shape == (7, 6, 4)
    other = write(tmp_path / f"b{kind}", values, origin=(0.0, 0.0, 0.0))
    sitk.WriteImage(sitk.Cast(other > 0, sitk.sitkUInt8), str(tmp_path / f"away{kind}"))
    with pytest.raises(InputError, match="mm away"):
        read_label(tmp_path / f"away{kind}", case)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_and_single_images(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(1).normal(size=(4, 6, 7, 2)).astype(np.float32)
    write(tmp_path / f"v{kind}", values, vector=True, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    case = read_case(tmp_path / f"v{kind}")
    np.testing.assert_array_equal(case.image, np.moveaxis(values, -1, 1))
    write(tmp_path / f"s{kind}", values[0, ..., 0])
    single = read_case(tmp_path / f"s{kind}")
    assert (single.stack, single.size) == ("single", (6, 7))
    np.testing.assert_array_equal(single.image[0, 0], values[0, ..., 0])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated(
    tmp_path: Path, values: np.ndarray, kind: str, share: float, packed: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / f"a{kind}"
    write(path, values, packed=packed)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)
    assert capfd.readouterr().err == "", "the library prints nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_declares_too_much(tmp_path: Path, values: np.ndarray, kind: str) -> None:
    path = tmp_path / f"a{kind}"
    write(path, values, packed=True)
    key = b"DimSize = 7 6 4" if kind == ".mha" else b"sizes: 7 6 4"
    content = path.read_bytes()
    assert key in content
    path.write_bytes(content.replace(key, key.replace(b"7 6 4", b"9000 9000 900")))
    refused(path, "declares")


def test_pixels_in_another_file_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    for kind, line, other in (
        (".mha", b"ElementDataFile = LOCAL", b"ElementDataFile = /etc/passwd"),
        (".nrrd", b"encoding: gzip", b"encoding: gzip\ndata file: /etc/passwd"),
    ):
        path = tmp_path / f"a{kind}"
        write(path, values)
        content = path.read_bytes()
        assert line in content
        path.write_bytes(content.replace(line, other))
        refused(path, "pixels in another file")


@pytest.mark.parametrize("kind", KINDS)
def test_unusual_content_is_refused(tmp_path: Path, values: np.ndarray, kind: str) -> None:
    path = tmp_path / f"a{kind}"
    write(path, np.where(values > 800, np.nan, values).astype(np.float32))
    refused(path, "NaN")
    sitk.WriteImage(sitk.Image([3, 3, 3, 2], sitk.sitkUInt8), str(path))
    refused(path, "2")
    path.write_bytes(b"GIF89a" + bytes(99))
    refused(path, "the header")
    path.write_bytes(b"NRRD0004\n" + b"a: b\n" * 20000)
    refused(path)


def test_an_extra_that_is_not_installed_is_named(
    tmp_path: Path, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.nrrd", values)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingExtraError, match=r"segweave\[formats\]"):
        read_case(tmp_path / "a.nrrd")
