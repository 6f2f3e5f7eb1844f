"""Files that are cut off, or whose headers are wrong, at the command."""

from __future__ import annotations

import gzip
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.small import write_volume

from .conftest import Command


def _nifti(path: Path) -> None:
    write_volume(path)


def _h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = np.random.default_rng(0).normal(size=(4, 36, 40))


def _npz(path: Path) -> None:
    np.savez(path, img=np.random.default_rng(0).normal(size=(4, 36, 40)))


def _png(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (36, 40), dtype=np.uint8)
    Image.fromarray(values).save(path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "scan.nii": _nifti,
    "scan.nii.gz": _nifti,
    "scan.h5": _h5,
    "scan.npz": _npz,
    "scan.png": _png,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_files_that_are_cut_off(
    command: Command, made: Path, tmp_path: Path, name: str, share: float
) -> None:
    path, out = tmp_path / name, tmp_path / "labels"
    WRITERS[name](path)
    assert command("predict", made / "run", path, "--out", tmp_path / "ok", "-q").code == 0
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    command("predict", made / "run", path, "--out", out, "-q").refused(name)
    assert not [p for p in out.glob("*") if p.name != "predictions.json"]


def _huge_nifti(path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1\0"
    block = header.binaryblock + b"\0" * 4 + b"\1" * 1000
    path.write_bytes(gzip.compress(block) if path.suffix == ".gz" else block)


def _huge_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (10**4, 10**5, 10**5), "f4", chunks=(1, 64, 64))


def _huge_npz(path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000, 100000, 100000), }"
    header += b" " * (117 - len(header)) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("img.npy", npy)


def _huge_png(path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = struct.pack(">IIBBBBB", 900_000, 900_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("scan.nii", _huge_nifti),
        ("scan.nii.gz", _huge_nifti),
        ("scan.h5", _huge_h5),
        ("scan.npz", _huge_npz),
        ("scan.png", _huge_png),
    ],
)
def test_a_header_that_claims_terabytes(
    command: Command, made: Path, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    path, out = tmp_path / name, tmp_path / "labels"
    write(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    command("predict", made / "run", path, "--out", out, "-q").refused(name)
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kB"
    assert not [p for p in out.glob("*") if p.name != "predictions.json"]


def test_a_file_that_fails_does_not_stop_the_others(
    command: Command, made: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "labels"
    write_volume(scans / "good.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"not gzip")
    seen = command("predict", made / "run", scans, "--out", out, "-q")
    seen.refused("1 of 2", "bad.nii.gz")
    assert (out / "good.nii.gz").is_file()
    assert not (out / "bad.nii.gz").exists()
