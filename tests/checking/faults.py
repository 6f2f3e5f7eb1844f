"""Faults of a data set's files, each with the kinds of problem that must name it."""

from __future__ import annotations

import gzip
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from segweave.formats.table import ARRAYS, NIFTI, suffix_of
from tests.datasets.broken import rewrite, truncate, turned
from tests.datasets.layouts import Made, Part, label_of, save, write_array


@dataclass(frozen=True)
class Expected:
    """A problem of one of these `kinds` has to name one of the `files`. No kinds: no problem may
    name any of them.
    """

    kinds: tuple[str, ...]
    files: tuple[Path, ...]
    words: str = ""


Fault = Callable[[Made, Part, Part], "list[Expected] | None"]
"""Breaks the first part (the second is another one, whole); None where it does not apply."""


def family(path: Path) -> str:
    """What a file is: volumes, arrays or pictures."""
    suffix = suffix_of(path)
    return "volumes" if suffix in NIFTI else "arrays" if suffix in ARRAYS else "pictures"


def _one(kind: str, *files: Path, words: str = "") -> list[Expected]:
    return [Expected((kind,), files, words)]


# All formats


def truncated(made: Made, part: Part, other: Part) -> list[Expected]:
    truncate(part.image)
    return _one("damaged", part.image)


def truncated_label(made: Made, part: Part, other: Part) -> list[Expected] | None:
    if part.label is None:
        return None
    truncate(part.label)
    return _one("damaged", part.label)


def empty_file(made: Made, part: Part, other: Part) -> list[Expected]:
    file = part.label or part.image
    file.write_bytes(b"")
    return _one("damaged", file)


def renamed(made: Made, part: Part, other: Part) -> list[Expected]:
    file = part.label or part.image
    stray = file.with_name(f"stray-{file.name}")
    file.rename(stray)
    if made.source.is_file():
        return _one("missing", file)
    spare = [Expected(("unused", "missing"), (stray,))]
    return spare if part.label is None else [*_one("missing", part.image, file), *spare]


def missing_label(made: Made, part: Part, other: Part) -> list[Expected]:
    if part.label is not None:
        part.label.unlink()
        return _one("missing", part.image, part.label)
    write_array(part.image, image=_held(part.image)["image"])
    return _one("missing", part.image)


def one_id_twice(made: Made, part: Part, other: Part) -> list[Expected] | None:
    if made.source.is_file():
        with made.source.open("a") as stream:
            stream.write("\n" + made.source.read_text().splitlines()[1])
        return _one("same-id", made.source)
    twins = _twins(part.image)
    return _one("same-id", *twins, part.image)


def _twins(path: Path) -> list[Path]:
    """The same image under the same id, in a file with another ending, number or place."""
    name = path.name
    if name.endswith(".nii.gz"):
        twin = path.with_name(name.removesuffix(".gz"))
        twin.write_bytes(gzip.decompress(path.read_bytes()))
    elif family(path) == "pictures":
        twin = path.with_suffix(".png" if path.suffix != ".png" else ".bmp")
        with Image.open(path) as picture:
            picture.save(twin)
    elif "frame01" in name:
        # A patient of ACDC has two volumes; nothing says which two of three.
        twins = [path.with_name(name.replace("frame01", f"frame0{k}")) for k in (2, 3)]
        return [Path(shutil.copy(path, twin)) for twin in twins]
    elif path.suffix == ".npz":
        twin = path.parent.with_name("train") / name
        twin.parent.mkdir(exist_ok=True)
        shutil.copy(path, twin)
    else:
        twin = path.with_name(name.replace(".npy", ""))
        shutil.copy(path, twin)
    return [twin]


def same_pixels(made: Made, part: Part, other: Part) -> list[Expected]:
    shutil.copy(other.image, part.image)
    return _one("same-content", part.image, other.image)


def wrong_ids(made: Made, part: Part, other: Part) -> list[Expected] | None:
    file = part.label or part.image
    if made.labels == "any":
        return None
    change(file, lambda v: _stray(v, 300 if made.labels == "instances" else 77, made.labels))
    return _one("labels", file)


def _stray(values: np.ndarray, id: int, labels: str) -> np.ndarray:
    values = values.astype(np.uint16 if id > 255 else np.uint8)
    if labels in ("binary", "any"):
        return np.where(values > 0, id, 0).astype(values.dtype)
    values.flat[values.size // 2] = id
    return values


def other_shape(made: Made, part: Part, other: Part) -> list[Expected]:
    change(part.label or part.image, lambda v: v[:-1])
    return _one("size", part.label or part.image)


def upper_case(made: Made, part: Part, other: Part) -> list[Expected] | None:
    """Read as any other, or listed."""
    if made.source.is_file():
        return None
    suffix = suffix_of(part.image)
    loud = part.image.with_name(part.image.name.removesuffix(suffix) + suffix.upper())
    part.image.rename(loud)
    kinds = () if family(loud) == "pictures" or made.options else ("unused",)
    return [Expected(kinds, (part.image, loud))]


def hidden_files(made: Made, part: Part, other: Part) -> list[Expected]:
    """What systems leave behind in folders."""
    file = part.label or part.image
    left = [file.with_name(n) for n in (f"._{file.name}", ".DS_Store", "Thumbs.db", "desktop.ini")]
    for path in left:
        path.write_bytes(b"\0\5\x16\7" * 20)
    return [Expected((), (*left, file, part.image))]


def huge_header(made: Made, part: Part, other: Part) -> list[Expected]:
    suffix = suffix_of(part.image)
    if suffix in NIFTI:
        rewrite(part.image, dim=(3, 32767, 32767, 32767, 1, 1, 1, 1))
    elif suffix == ".npz":
        _huge_npz(part.image)
    elif suffix in ARRAYS:
        with h5py.File(part.image, "a") as file:
            del file["image"]
            file.create_dataset("image", (1 << 20, 1 << 14, 1 << 14), "f4", chunks=(1, 64, 64))
    else:
        huge_picture(part.image, 60000)
    return _one("damaged", part.image)


def not_finite(made: Made, part: Part, other: Part) -> list[Expected] | None:
    if family(part.image) == "pictures":
        return None
    change(part.image, lambda v: _with_nan(v), "image")
    return _one("values", part.image)


def _with_nan(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values.flat[3] = np.nan
    return values


# Volumes alone


def turned_affine(made: Made, part: Part, other: Part) -> list[Expected] | None:
    if family(part.image) != "volumes":
        return None
    assert part.label is not None
    rewrite(part.label, affine=turned(part.label))
    return _one("geometry", part.label)


# Pictures alone


def tag_and_turned_mask(made: Made, part: Part, other: Part) -> list[Expected] | None:
    """A photo to be shown turned, and a mask that was drawn on it as it is shown."""
    if part.label is None or part.image.suffix == ".bmp" or family(part.image) != "pictures":
        return None
    _tag(part.image)
    with Image.open(part.label) as mask:
        values = np.asarray(mask)
    save(part.label, np.ascontiguousarray(np.rot90(values, -1)))
    if part.image.suffix.startswith(".tif"):
        # Which the library itself turns: the mask fits.
        return [Expected((), (part.label, part.image))]
    turned_mask = Expected(("size", "turned"), (part.label, part.image), "EXIF")
    return [*_one("size", part.label), turned_mask]


def tag_alone(made: Made, part: Part, other: Part) -> list[Expected] | None:
    if part.label is None or part.image.suffix == ".bmp" or family(part.image) != "pictures":
        return None
    _tag(part.image)
    if part.image.suffix.startswith(".tif"):
        return _one("size", part.label)
    return _one("turned", part.image)


def _tag(path: Path) -> None:
    with Image.open(path) as picture:
        tags, values = picture.getexif(), np.asarray(picture)
    tags[274] = 6
    save(path, values, exif=tags)


def deep_mask(made: Made, part: Part, other: Part) -> list[Expected] | None:
    """0 and 65535: a mask like any other of two values, no class ids."""
    if not _masked(part) or part.label.suffix in (".jpg", ".bmp"):
        return None
    change(part.label, lambda v: np.where(v > 0, 65535, 0).astype(np.uint16))
    return [Expected(("labels",) if made.labels in ("ids", "instances") else (), (part.label,))]


def palette_mask(made: Made, part: Part, other: Part) -> list[Expected] | None:
    if not _masked(part) or part.label.suffix == ".jpg":
        return None
    with Image.open(part.label) as mask:
        values = np.asarray(mask)
    two = made.labels in ("binary", "any")
    picture = Image.fromarray(values // values.max() if two else values).convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(part.label)
    return [Expected((), (part.label,))]


def clear_mask(made: Made, part: Part, other: Part) -> list[Expected] | None:
    """A mask with an alpha channel that is not opaque: which colour counts?"""
    if not _masked(part) or part.label.suffix in (".jpg", ".bmp"):
        return None
    with Image.open(part.label) as mask:
        values = np.asarray(mask)
    save(part.label, np.stack([values, values, values, values], axis=-1))
    return [Expected(("labels", "values"), (part.label,))]


def lossy_mask(made: Made, part: Part, other: Part) -> list[Expected] | None:
    """Grey values around 0 and 255: two values for a binary set, strange ids for any other."""
    if not _masked(part) or made.source.is_file():
        return None
    with Image.open(part.label) as mask:
        values = np.asarray(mask)
    part.label.unlink()
    noisy = (values > 0) * np.uint8(255)
    file = save(part.label.with_suffix(".jpg"), noisy, quality=60)
    return [Expected(("labels",) if made.labels in ("ids", "instances") else (), (file,))]


def _masked(part: Part) -> bool:
    return part.label is not None and family(part.label) == "pictures"


FAULTS: dict[str, Fault] = {
    "truncated": truncated,
    "truncated label": truncated_label,
    "renamed": renamed,
    "wrong label values": wrong_ids,
    "other shapes": other_shape,
    "rotated affine": turned_affine,
    "huge header": huge_header,
    "missing mask": missing_label,
    "two cases with one id": one_id_twice,
    "one image twice": same_pixels,
    "an empty file": empty_file,
    "NaN": not_finite,
    "upper case": upper_case,
    "hidden files": hidden_files,
    "EXIF and a turned mask": tag_and_turned_mask,
    "EXIF alone": tag_alone,
    "16-bit mask": deep_mask,
    "palette mask": palette_mask,
    "transparent mask": clear_mask,
    "JPEG mask": lossy_mask,
}

OF_IMAGES = ("truncated", "huge header", "an empty file", "NaN", "hidden files")
"""Those that a set of images without labels can have. Two volumes of one name are refused
as a whole, and simulated noise makes the same image under two names differ.
"""


# Changes of files


def _held(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path) as held:
            return {name: held[name] for name in held}
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def change(path: Path, how: Callable[[Any], Any], array: str = "label") -> None:
    """Change the values of a file (in one that holds several, those of `array`)."""
    if family(path) == "volumes":
        rewrite(path, how)
    elif family(path) == "arrays":
        held = _held(path)
        write_array(path, **{**held, array: how(held[array])})
    else:
        with Image.open(path) as picture:
            values = np.asarray(picture)
        values = how(values)
        if values.dtype == np.uint16 and path.suffix == ".bmp":
            # No such thing as a deep BMP; colours are what a label must not have.
            values = np.stack([values.astype(np.uint8)] * 2 + [label_of(values.shape)], axis=-1)
        save(path, values)


def _huge_npz(path: Path) -> None:
    """An array whose header declares 16 TiB, in a valid zip."""
    import io
    import zipfile

    held = _held(path)
    with zipfile.ZipFile(path, "w") as file:
        for name, values in held.items():
            stream = io.BytesIO()
            np.save(stream, values)
            raw = stream.getvalue()
            if name == "image":
                shape = (1 << 20, 1 << 21, 2)
                text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
                text = text.ljust(117) + "\n"
                raw = raw[:8] + struct.pack("<H", len(text)) + text.encode() + raw[128:]
            file.writestr(f"{name}.npy", raw)


def huge_picture(path: Path, side: int) -> None:
    """Let the header of a picture declare `side` × `side` pixels."""
    raw = bytearray(path.read_bytes())
    suffix = path.suffix.lower()
    if suffix == ".png":
        raw[16:24] = struct.pack(">II", side, side)
        raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    elif suffix == ".bmp":
        raw[18:26] = struct.pack("<ii", side, side)
    elif suffix in (".jpg", ".jpeg"):
        at = raw.index(b"\xff\xc0")
        raw[at + 5 : at + 9] = struct.pack(">HH", side, side)
    else:
        start = struct.unpack("<I", raw[4:8])[0]
        for k in range(struct.unpack("<H", raw[start : start + 2])[0]):
            at = start + 2 + 12 * k
            tag, _ = struct.unpack("<HH", raw[at : at + 4])
            if tag in (256, 257):
                raw[at : at + 12] = struct.pack("<HHII", tag, 4, 1, side)
    path.write_bytes(raw)
