"""What data sets of pictures share: finding images and their masks by name, and finding damaged
files before anything is converted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segweave.datasets.base import LeftOut, alone
from segweave.errors import InputError, SegweaveError
from segweave.formats.pictures import LARGEST_PIXELS, exif_turn, open_picture
from segweave.formats.table import PICTURES, case_name, suffix_of
from segweave.words import few


@dataclass(frozen=True)
class PairFolders:
    """Where a layout keeps images and masks.

    `image` and `mask` are regular expressions on whole names without their endings; the first
    bracket is the id. `part` is the part of the data set's own split that the folder is,
    `prefix` is put before ids.
    """

    images: Path
    masks: Path
    image: str = "(.+)"
    mask: str = "(.+)"
    part: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Pair:
    """An image and its mask, of the same `size` (height, width)."""

    id: str
    image: Path
    mask: Path
    size: tuple[int, int]
    part: str = ""


FolderFinder = Callable[[Path], list[PairFolders]]


def subfolder(source: Path, *names: str) -> Path | None:
    """The folder in `source` with one of `names` (case does not matter; "" is `source` itself)."""
    wanted = [name.lower() for name in names]
    if "" in wanted:
        return source
    try:
        there = {path.name.lower(): path for path in sorted(source.iterdir()) if path.is_dir()}
    except OSError:
        return None
    return next((there[name] for name in wanted if name in there), None)


def pair_folders(
    roots: Sequence[Path | None],
    images: Sequence[str],
    masks: Sequence[str],
    *,
    image: str = "(.+)",
    mask: str = "(.+)",
    part: str = "",
    prefix: str = "",
) -> list[PairFolders]:
    """The first of `roots` that has a folder of such a name for images and one for masks, as a
    list of one PairFolders, or [] where none has.
    """
    for root in roots:
        if root is None:
            continue
        one, other = subfolder(root, *images), subfolder(root, *masks)
        if one is None or other is None:
            continue
        found = PairFolders(one, other, image, mask, part, prefix)
        if _by_id(one, image, []):
            return [found]
    return []


def find_pairs(
    where: Sequence[PairFolders],
) -> tuple[list[Pair], list[LeftOut], list[SegweaveError]]:
    """Every image with its mask, in natural order of ids, what is left out, and errors.

    An image without a mask, a mask of another size and a damaged file (unreadable, cut off) are
    listed and left out; two files with one id are an error.
    """
    pairs: dict[str, Pair] = {}
    errors: list[SegweaveError] = []
    lonely: list[Path] = []
    spare: list[Path] = []
    damaged: list[SegweaveError] = []
    unequal: list[SegweaveError] = []
    partners: list[Path] = []
    for folders in where:
        images = _by_id(folders.images, folders.image, errors)
        masks = _by_id(folders.masks, folders.mask, errors)
        lonely += [images[id] for id in sorted(set(images) - set(masks), key=natural)]
        spare += [masks[id] for id in sorted(set(masks) - set(images), key=natural)]
        for name in sorted(set(images) & set(masks), key=natural):
            image, mask, id = images[name], masks[name], folders.prefix + name
            if id in pairs:
                errors.append(_doubled(id, image, pairs[id].image))
                continue
            size, wrong = picture_header(image)
            other, wrong_mask = picture_header(mask)
            if wrong or wrong_mask:
                damaged += [
                    _broken(path, text)
                    for path, text in ((image, wrong), (mask, wrong_mask))
                    if text
                ]
            elif size != other:
                unequal.append(_unequal(image, size, mask, other))
            else:
                pairs[id] = Pair(id, image, mask, size, folders.part)
            if id not in pairs:
                partners += [image, mask]
    left_out = [
        *alone(
            f"{len(lonely)} images have no mask and are left out: {few_of(lonely)}",
            lonely,
            lacks="mask",
        ),
        *alone(f"{len(spare)} masks have no image: {few_of(spare)}", spare, lacks="image"),
    ]
    if damaged:
        names = few([f"{_name(one)} ({one.found})" for one in damaged])
        text = f"{len(damaged)} pairs have a damaged file and are left out: {names}"
        left_out.append(LeftOut(text, damaged, tuple(partners)))
    if unequal:
        names = few([f"{_name(one)} ({one.found})" for one in unequal])
        text = f"{len(unequal)} masks have another size than their image and are left out: {names}"
        left_out.append(LeftOut(text, unequal, tuple(partners)))
    return [pairs[id] for id in sorted(pairs, key=natural)], left_out, errors


def few_of(paths: Sequence[Path]) -> str:
    """The first names of files."""
    return few([path.name for path in paths])


def _name(error: SegweaveError) -> str:
    return "" if error.file is None else error.file.name


def _broken(path: Path, text: str) -> InputError:
    return InputError(
        "looking for images and masks",
        file=path,
        expected="a complete, undamaged file",
        found=text,
        remedy="copy or download it again",
        kind="damaged",
    )


def _unequal(image: Path, size: tuple[int, int], mask: Path, other: tuple[int, int]) -> InputError:
    turned = size == other[::-1] and {exif_turn(image), exif_turn(mask)} != {1}
    return InputError(
        "looking for images and masks",
        file=mask,
        expected="the image's size",
        found=f"{other[0]} × {other[1]}, its image {size[0]} × {size[1]}"
        + (
            "; its EXIF orientation is not applied, pixels are read as they are stored"
            if turned
            else ""
        ),
        kind="size",
    )


def picture_header(path: Path) -> tuple[tuple[int, int], str]:
    """((height, width), what is wrong or ""): from the head and the end of a picture file
    without its pixels being decoded.
    """
    from PIL import Image

    size = (0, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_picture(path) as picture:
                size = (picture.height, picture.width)
                if picture.height * picture.width > LARGEST_PIXELS:
                    return size, f"a header that declares {picture.height} × {picture.width} pixels"
                kind = picture.format or ""
                ends = _tiff_end(picture) if kind == "TIFF" else 0
        with path.open("rb") as file:
            length = path.stat().st_size
            head = file.read(6)
            file.seek(max(0, length - 4096))
            tail = file.read()
    except Image.DecompressionBombError:
        return size, "a header that declares more pixels than any such file holds"
    except Exception as error:
        text = "empty" if path.is_file() and path.stat().st_size == 0 else "can't be read"
        return size, text if not isinstance(error, PermissionError) else "may not be read"
    if kind == "BMP":
        ends = int.from_bytes(head[2:6], "little")
    cut = (
        (kind == "PNG" and b"IEND" not in tail)
        or (kind in ("JPEG", "MPO") and b"\xff\xd9" not in tail)
        or ends > length
    )
    return size, "cut off" if cut else ""


def _tiff_end(picture: object) -> int:
    """Where the last strip or tile of a TIFF file ends, in bytes."""
    tags = getattr(picture, "tag_v2", {})
    for starts, counts in ((273, 279), (324, 325)):
        if starts in tags and counts in tags:
            pairs = zip(tags[starts], tags[counts], strict=False)
            return max((int(start) + int(count) for start, count in pairs), default=0)
    return 0


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers inside names by their value."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _by_id(folder: Path, pattern: str, errors: list[SegweaveError]) -> dict[str, Path]:
    """Files by id of the pictures in a folder (not below it) whose names fit."""
    fits = re.compile(pattern)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or suffix_of(path) not in PICTURES or not path.is_file():
            continue
        match = fits.fullmatch(case_name(path))
        if match is None:
            continue
        if match[1] in found:
            errors.append(_doubled(match[1], path, found[match[1]]))
        found.setdefault(match[1], path)
    return found


def _doubled(id: str, path: Path, other: Path) -> InputError:
    return InputError(
        "looking for images and masks",
        file=path,
        expected="one file for each id",
        found=f"a second {id!r}, beside {other}",
        remedy="remove or rename one of them",
        kind="same-id",
    )
