"""Damaged, lying and wrong files: one clear InputError each, never a library's own error."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segweave.errors import InputError
from segweave.formats import find_images, read_case, read_label

RNG = np.random.default_rng(0)
VALUES = RNG.integers(0, 256, (4, 24, 32)).astype(np.uint8)
KINDS = ("a.nii", "a.nii.gz", "a.h5", "a.npz", "a.npy", "a.png", "a.jpg", "a.tif", "a.bmp")


def make(path, values=VALUES):
    """Write `values` in the format that the name of `path` asks for."""
    name = path.name
    if ".nii" in name:
        nib.save(nib.Nifti1Image(values.transpose(2, 1, 0), np.diag([-1.0, -1, 8, 1])), path)
    elif name.endswith(".h5"):
        with h5py.File(path, "w") as file:
            file.create_dataset("image", data=values, chunks=(1, *values.shape[1:]), compression=9)
    elif name.endswith(".npz"):
        np.savez_compressed(path, image=values)
    elif name.endswith(".npy"):
        np.save(path, values)
    else:
        Image.fromarray(values[0]).save(path)
    return path


def refused(path, *words, read=read_case, **options):
    with pytest.raises(InputError) as caught:
        read(path, **options)
    text = str(caught.value)
    assert str(path) in text, "the file is named"
    assert caught.value.found, "the message names what was found"
    for word in words:
        assert word in text, text
    return text


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_truncated(tmp_path, name, share):
    path = make(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.h5", "a.npz"])
def test_cut_by_a_few_bytes(tmp_path, name):
    path = make(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-4])
    refused(path)


@pytest.mark.parametrize("name", KINDS)
def test_something_else_under_that_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is a text, not an image. " * 40)
    refused(path)


@pytest.mark.parametrize("name", KINDS)
def test_noise_in_the_file_never_gives_another_error(tmp_path, name):
    path = make(tmp_path / name)
    content = bytearray(path.read_bytes())
    for seed in range(25):
        damaged = bytearray(content)
        random = np.random.default_rng(seed)
        for place in random.integers(0, min(len(content), 600), 8):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_case(path, geometry="affine")
        except InputError:
            continue


def nifti_claiming(shape):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header.set_sform(np.eye(4), 1)
    return bytes(header.binaryblock) + bytes(4 + 1000)


def png_claiming(width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + start
        + chunk(b"IDAT", zlib.compress(b"0" * 99))
        + chunk(b"IEND", b"")
    )


def npy_claiming(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + bytes(1000)


def test_headers_that_claim_terabytes(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_claiming((30000, 30000, 200)))
    refused(path, "1.31 TiB", "truncated")
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_claiming((30000, 30000, 200))))
    refused(path, "1.31 TiB")
    path = tmp_path / "a.npy"
    path.write_bytes(npy_claiming((10**6, 10**6)))
    refused(path, "TiB")
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", npy_claiming((10**6, 10**6)))
    refused(path, "TiB")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (10**6, 1000, 1000), "f4", chunks=(1, 100, 100), compression=9)
    refused(path, "TiB")
    for size in ((60000, 60000), (12000, 12000)):
        path = tmp_path / "a.png"
        path.write_bytes(png_claiming(*size))
        refused(path)


def test_a_bomb_within_what_deflate_can_do_meets_the_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGWEAVE_LARGEST_GIB", "0.0001")
    path = make(tmp_path / "a.nii.gz", np.zeros((8, 200, 200), np.uint8))
    refused(path, "SEGWEAVE_LARGEST_GIB")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.h5", "a.npz", "a.npy", "a.tif"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_finite(tmp_path, name, bad):
    values = VALUES.astype(np.float32)
    values[0, 3, 5] = values[0, 7, 1] = bad
    text = refused(make(tmp_path / name, values), "2 NaN" if np.isnan(bad) else "2 infinite")
    assert ("(1, 7, 0)" if ".nii" in name else "3, 5)") in text


def test_missing_folder_empty_and_unknown(tmp_path):
    refused(tmp_path / "a.png", "nothing there")
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png", "a folder")
    (tmp_path / "a.png").write_bytes(b"")
    refused(tmp_path / "a.png", "0 bytes")
    (tmp_path / "a.xyz").write_bytes(b"x")
    refused(tmp_path / "a.xyz", ".nii.gz")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "at least one image", read=find_images)
    refused(tmp_path / "nowhere", "nothing there", read=find_images)
    refused(tmp_path / "a.xyz", ".xyz", read=find_images)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path):
    path = make(tmp_path / "a.png")
    path.chmod(0)
    refused(path, "permissions")


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    path = make(tmp_path / "a.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    refused(path, "Permission denied", "permissions")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.h5", "a.npz", "a.npy"])
def test_labels_that_do_not_fit(tmp_path, name):
    case = read_case(make(tmp_path / name))
    label = (VALUES % 4).astype(np.float32)
    path = tmp_path / ("label_" + name)
    refused(make(path, label[:3]), "belong together", read=read_label, case=case)
    refused(make(path, label + 0.5), "integers", read=read_label, case=case)
    refused(make(path, label * 100), "0 to 255", "300", read=read_label, case=case)
    refused(make(path, label - 1), "0 to 255", "-1", read=read_label, case=case)
    np.testing.assert_array_equal(read_label(make(path, label), case), VALUES % 4)


def test_label_in_the_same_file_of_another_shape(tmp_path):
    np.savez(tmp_path / "a.npz", image=VALUES, label=VALUES[:, 1:])
    refused(tmp_path / "a.npz", "4 × 24 × 32", "4 × 23 × 32")


def test_a_colour_label_is_refused(tmp_path):
    case = read_case(make(tmp_path / "a.png"))
    Image.fromarray(np.stack([VALUES[0], VALUES[1], VALUES[2]], -1)).save(tmp_path / "b.png")
    refused(tmp_path / "b.png", "colours", read=read_label, case=case)


def test_code_in_arrays_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(tmp_path / "a.npy", "object")
    np.savez(tmp_path / "a.npz", image=np.array([{"a": 1}], dtype=object))
    refused(tmp_path / "a.npz", "object")


def test_arrays_without_a_known_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=VALUES, two=VALUES)
    refused(tmp_path / "a.npz", "image or img", "one, two")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"] = VALUES, VALUES
    refused(tmp_path / "a.h5", "image or img", "one, two")


def test_h5_data_of_another_file_is_not_followed(tmp_path):
    make(tmp_path / "secret.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = h5py.ExternalLink("secret.h5", "/image")
    refused(tmp_path / "a.h5", "image or img")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("image", (2, 8, 8), "u1", external=[("secret.h5", 0, 128)])
    refused(tmp_path / "b.h5", "another file")


def test_pixels_of_strange_types(tmp_path):
    np.save(tmp_path / "a.npy", VALUES.astype(np.complex64))
    refused(tmp_path / "a.npy", "complex64")
    nib.save(nib.Nifti1Image(VALUES.astype(np.complex64), np.eye(4)), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "complex64")
    Image.fromarray(VALUES[0]).convert("CMYK").save(tmp_path / "a.jpg")
    refused(tmp_path / "a.jpg", "CMYK")


def test_several_pages_are_refused(tmp_path):
    first, second = Image.fromarray(VALUES[0]), Image.fromarray(VALUES[1])
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    refused(tmp_path / "a.tif", "2 pages")


def test_sixteen_bit_colour_is_not_cut_to_eight(tmp_path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(3))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    refused(tmp_path / "a.png", "16 bits")


def test_an_affine_that_cannot_be_inverted(tmp_path):
    path = make(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)
    path.write_bytes(content)
    refused(path, "inverted")


def test_spacing_that_makes_no_sense(tmp_path):
    np.savez(tmp_path / "a.npz", image=VALUES, spacing=[1.0, 0.0, 1.0])
    refused(tmp_path / "a.npz", "spacing")
