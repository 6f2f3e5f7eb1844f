"""Writes files that were made to take memory or time, to read other files, or to run a program."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

MIB = 1 << 20
VALUES = np.arange(600, dtype="<i2").reshape(2, 20, 15)
RAW = VALUES.tobytes()
Maker = Callable[[Path], None]


def zeros(count: int, bits: int = 15) -> bytes:
    """So many zeros, deflated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    parts = [packer.compress(bytes(MIB)) for _ in range(count // MIB)]
    return b"".join([*parts, packer.compress(bytes(count % MIB)), packer.flush()])


def nifti(
    size: tuple[int, ...] = (4, 5, 6), *, code: int = 4, bits: int = 16, start: float = 352.0,
    axes: int = 3, slope: float = 1.0, step: float = 1.0, content: bytes = RAW,
) -> bytes:  # fmt: skip
    """A NIfTI file of these header fields."""
    head = bytearray(348)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, axes, *size, *(1,) * (7 - len(size)))
    struct.pack_into("<hh", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, 1, step, step, step, 1, 1, 1, 1)
    struct.pack_into("<ff", head, 108, start, slope)
    head[123] = 2
    struct.pack_into("<h", head, 254, 1)
    for row in range(3):
        struct.pack_into("<f", head, 280 + 16 * row + 4 * row, step)
    head[344:348] = b"n+1\0"
    return bytes(head) + bytes(4) + content


def npy(shape: str, dtype: str = "'|u1'", *, length: int | None = None) -> bytes:
    """The start of an npy file; of format 2, with a header of `length`, where one is given."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    if length is None:
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(text) + 1) + text + b"\n"
    return b"\x93NUMPY\2\0" + struct.pack("<I", length) + text.ljust(length)


def npz(path: Path, content: bytes, how: int = zipfile.ZIP_DEFLATED) -> None:
    """An npz file with one array."""
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("image.npy", content)


def png(width: int, height: int, colour: int, packed: bytes) -> bytes:
    """A PNG of 8 bits with these packed lines."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def mha(*lines: str, last: str = "ElementDataFile = LOCAL", content: bytes = RAW) -> bytes:
    """An MHA file with further lines in its header."""
    head = ["ObjectType = Image", "NDims = 3", "DimSize = 15 20 2", "ElementType = MET_SHORT"]
    replaced = {line.split(" ")[0] for line in lines}
    kept = [line for line in head if line.split(" ")[0] not in replaced]
    return "\n".join([*kept, *lines, last, ""]).encode() + content


def nrrd(*lines: str, end: str = "\n", content: bytes = RAW, **fields: str) -> bytes:
    """An NRRD file with other fields, and further lines in its header."""
    given = {"type": "short", "dimension": "3", "sizes": "15 20 2", "endian": "little"}
    given |= {"encoding": "raw", **fields}
    head = ["NRRD0004", *(f"{key}: {value}" for key, value in given.items()), *lines]
    return (end.join(head) + end + end).encode() + content


def dicom(path: Path, *, deflated: bool = False, extra: bytes = b"", **fields: object) -> None:
    """A slice; `extra` is put before its pixels (of a deflated one, packed with the rest)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality = "1.2.3", "CT"
    data.Rows, data.Columns, data.SamplesPerPixel = 20, 15, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 1
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelSpacing, data.SliceThickness = 15, [1, 1], 2
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    data.PixelData = VALUES[0].tobytes()
    for name, value in fields.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    if not extra and not deflated:
        return
    content = path.read_bytes()
    start = 144 + struct.unpack("<I", content[140:144])[0]
    body = content[start:]
    pixels = body.rindex(b"\xe0\x7f\x10\x00")
    body = body[:pixels] + extra + body[pixels:]
    head = content[:start]
    if deflated:
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(path, enforce_file_format=True)
        head = path.read_bytes()
        head = head[: 144 + struct.unpack("<I", head[140:144])[0]]
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = packer.compress(body) + packer.flush()
    path.write_bytes(head + body)


def _lying_group(path: Path) -> None:
    """A deflated bomb whose header says that it starts behind itself, where all is well."""
    private = struct.pack("<HH2s2xI", 9, 0x1001, b"OB", 80 * MIB) + bytes(80 * MIB)
    dicom(path, deflated=True, extra=private)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 140, len(content) - 144)
    path.write_bytes(bytes(content) + zeros(5, -15))


def _items(count: int) -> bytes:
    """A sequence of so many empty items, without a length."""
    start = struct.pack("<HH2s2xI", 8, 0x1140, b"SQ", 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return start + item * count + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _chunked(path: Path, chunks: tuple[int, ...], *, filters: int = 1, lie: int = 0) -> None:
    """A data set of 600 pixels; its chunk unfolds to `lie` bytes if that is given."""
    with h5py.File(path, "w") as store:
        space = h5py.h5s.create_simple(VALUES.shape, (h5py.h5s.UNLIMITED,) * 3)
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk(chunks)
        for _ in range(filters):
            plan.set_deflate(9)
        data = h5py.h5d.create(store.id, b"image", h5py.h5t.NATIVE_INT16, space, plan)
        if lie:
            data.write_direct_chunk((0, 0, 0), zeros(lie))
        else:
            data.write(h5py.h5s.ALL, h5py.h5s.ALL, VALUES)


def _large_h5(path: Path) -> None:
    with h5py.File(path, "w") as store:
        data = store.create_dataset(
            "image", (80, 1024, 1024), "u1", chunks=(8, 1024, 1024), compression=9
        )
        for k in range(0, 80, 8):
            data[k : k + 8] = 0


def _claimed_jpeg(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    content = stream.getvalue()
    at = content.index(b"\xff\xc0") + 5
    path.write_bytes(content[:at] + struct.pack(">HH", 5000, 5000) + content[at + 4 :])


def _damaged(content: bytes, at: float = 0.5) -> bytes:
    """The content with 200 bytes turned round."""
    start = int(len(content) * at)
    return (
        content[:start]
        + bytes(255 - b for b in content[start : start + 200])
        + content[start + 200 :]
    )


def _noise(count: int) -> bytes:
    return np.random.default_rng(1).integers(0, 2000, count).astype("<i2").tobytes()


def _written(content: bytes) -> Maker:
    return lambda path: path.write_bytes(content) and None  # type: ignore[func-returns-value]


def _packed_mha(*lines: str, content: bytes) -> bytes:
    return mha("CompressedData = True", "DimSize = 40 40 40", *lines, content=content)


def refused_files() -> dict[str, Maker]:
    """Name → what writes a file that must be refused."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    noise = _noise(40**3)
    packed = zlib.compress(noise)
    large = {"content": b"", "code": 2, "bits": 8}
    empty, good = gzip.compress(b"", mtime=0), gzip.compress(nifti(), mtime=0)
    made: dict[str, bytes | Maker] = {
        # memory: what unfolds too far
        "ratio.nii.gz": gzip.compress(nifti((512, 512, 512), **large)) + gzip.compress(bytes(MIB))
        * 128,
        "start.nii.gz": gzip.compress(nifti(start=float(128 * MIB)) + bytes(128 * MIB)),
        "start.nii": nifti(start=float(1 << 31)),
        "members.nii.gz": empty * 200_000 + good,
        "tiny-members.nii.gz": gzip.compress(b"\0", mtime=0) * 100_000,
        "ratio.npz": lambda path: npz(path, npy("(128, 1024, 1024)") + bytes(128 * MIB)),
        "bzip2.npz": lambda path: npz(
            path, npy("(8, 1024, 1024)") + bytes(8 * MIB), zipfile.ZIP_BZIP2
        ),
        "lzma.npz": lambda path: npz(path, npy("(4, 1024)") + bytes(4096), zipfile.ZIP_LZMA),
        "header.npz": lambda path: npz(path, npy("(2, 20, 15)", length=128 * MIB)),
        "header.npy": npy("(2, 20, 15)", length=1 << 20),
        "minus.npy": npy("(-2, -300)") + bytes(600),
        "bool.npy": npy("(True, 20, 15)") + bytes(600),
        "chunk.h5": lambda path: _chunked(path, (16, 4096, 4096)),
        "lying-chunk.h5": lambda path: _chunked(path, (2, 20, 15), lie=128 * MIB),
        "short-chunk.h5": lambda path: _chunked(path, (2, 20, 15), lie=100),
        "twice.h5": lambda path: _chunked(path, (2, 20, 15), filters=2),
        "ratio.h5": _large_h5,
        "ratio.mha": mha(
            "CompressedData = True", "DimSize = 512 512 512", "ElementType = MET_UCHAR",
            content=zeros(128 * MIB),
        ),
        "beyond.mha": mha("CompressedData = True", content=zeros(128 * MIB)),
        "ratio.nrrd": nrrd(
            encoding="gzip", sizes="512 512 512", type="uchar", content=zeros(128 * MIB, 31)
        ),
        "beyond.nrrd": nrrd(encoding="gz", content=zeros(128 * MIB, 31)),
        "ratio.png": png(5000, 5000, 2, zeros(5000 * 15001)),
        "ratio.jpg": _claimed_jpeg,
        "run-lengths.bmp": b"BM" + struct.pack(
            "<IHHIIiiHHIIiiII", 54, 0, 0, 1078, 40, 12000, 12000, 1, 8, 1, 0, 0, 0, 256, 0
        ) + bytes(1024) + b"\xff\x00" * 2000,
        "lying-group.dcm": _lying_group,
        # time: loops, and pieces without number
        "ndims-minus.mha": mha("NDims = -3"),
        "ndims-0.mha": mha("NDims = 0"),
        "ndims-nan.mha": mha("NDims = nan"),
        "ndims-large.mha": mha("NDims = 1000000000"),
        "dims-minus.mha": mha("DimSize = -15 -20 2"),
        "channels.mha": mha("ElementNumberOfChannels = 1000000000"),
        "zero-tags.dcm": lambda path: dicom(path, extra=bytes(4 * MIB)),
        "zero-tags-deflated.dcm": lambda path: dicom(path, deflated=True, extra=bytes(16 * MIB)),
        "items.dcm": lambda path: dicom(path, extra=_items(500_000)),
        # damage that a library may pass over
        "flipped.mha": _packed_mha(content=_damaged(packed)),
        "flipped-size.mha": _packed_mha(
            f"CompressedDataSize = {len(packed)}", content=_damaged(packed)
        ),
        "size-0.mha": _packed_mha("CompressedDataSize = 0", content=_damaged(packed)),
        "size-1e12.mha": _packed_mha("CompressedDataSize = 1e12", content=packed),
        "size-large.mha": _packed_mha("CompressedDataSize = 99999999", content=packed),
        "cut.mha": _packed_mha(content=packed[:-300]),
        "flipped.nrrd": nrrd(
            encoding="gzip", sizes="40 40 40", content=_damaged(gzip.compress(noise))
        ),
        # headers that say the impossible
        "axes-minus.nii": nifti(axes=-3),
        "axes-8.nii": nifti(axes=8),
        "axes-32000.nii": nifti(axes=32000),
        "steps-large.nii": nifti(step=3e38),
        "steps-small.nii": nifti(step=1e-42),
        "steps-larger.nii": nifti(step=1e20),
        "overflow.nii": nifti(slope=3e38),
        "overflow.dcm": lambda path: dicom(
            path, RescaleSlope="1e38", RescaleIntercept="1e38"
        ),
        # other formats under a picture's name, of which one starts another program
        **{f"eps{end}": eps for end in (".png", ".jpg", ".tif", ".bmp")},
        "gif.png": lambda path: Image.new("L", (9, 9)).save(path, "GIF"),
        "ppm.bmp": lambda path: Image.new("L", (9, 9)).save(path, "PPM"),
        "webp.jpg": lambda path: Image.new("L", (9, 9)).save(path, "WEBP"),
        # no files
        "pipe.nii.gz": lambda path: os.mkfifo(path),
        "pipe.png": lambda path: os.mkfifo(path),
        "pipe.dcm": lambda path: os.mkfifo(path),
        "zero.nii": lambda path: path.symlink_to("/dev/zero"),
        "zero.mha": lambda path: path.symlink_to("/dev/zero"),
        "loop.h5": lambda path: path.symlink_to(path),
    }  # fmt: skip
    return {
        name: _written(what) if isinstance(what, bytes) else what for name, what in made.items()
    }


def read_files() -> dict[str, Maker]:
    """Name → what writes a file that is read, and holds `VALUES`."""
    turned = nifti((15, 20, 2))
    packed = gzip.compress(turned, mtime=0)
    named = packed[:3] + b"\x08" + packed[4:10] + b"A" * (1 << 22) + b"\0" + packed[10:]

    def deflated(path: Path) -> None:
        dicom(path, deflated=True)

    def without_preamble(path: Path) -> None:
        dicom(path)
        path.write_bytes(path.read_bytes()[132:])

    def h5(path: Path) -> None:
        with h5py.File(path, "w") as store:
            store.create_dataset(
                "image",
                data=VALUES,
                chunks=(1, 12, 8),
                compression=4,
                shuffle=True,
                fletcher32=True,
            )
            store.attrs["dose"] = np.nan
            store.attrs["numbers"] = [1.0, np.inf]
            store.attrs["complex"] = 1 + 2j
            store.attrs["nothing"] = h5py.Empty("f4")
            store.attrs["reference"] = store["image"].ref
            store.attrs["name"] = "a phantom"

    made: dict[str, bytes | Maker] = {
        "plain.nii": turned,
        "packed.nii.gz": packed,
        "members.nii.gz": gzip.compress(turned[:700]) + gzip.compress(turned[700:]) + bytes(500),
        "named.nii.gz": named,
        "units.nii": turned[:123] + b"\xff" + turned[124:],
        "plain.mha": mha(),
        "lower.mha": mha(last="ElementDataFile = local"),
        "long-line.mha": mha("Comment = " + "A" * 60_000),
        "tags.mha": mha("0008|0060 = MR", "ElementByteOrderMSB = False"),
        "packed.mha": mha("CompressedData = True", content=zlib.compress(RAW)),
        "plain.nrrd": nrrd(),
        "comment.nrrd": nrrd("# data file: outside.raw", "key:=data file: outside.raw"),
        "windows.nrrd": nrrd(end="\r\n"),
        "packed.nrrd": nrrd(encoding="gzip", content=gzip.compress(RAW)),
        "attributes.h5": h5,
        "deflated.dcm": deflated,
        "bare.dcm": without_preamble,
        "bare.IMA": without_preamble,
        "thick.dcm": lambda path: dicom(path, SliceThickness="9" * 16),
    }
    return {
        name: _written(what) if isinstance(what, bytes) else what for name, what in made.items()
    }
