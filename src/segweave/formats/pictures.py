"""Reads PNG, JPEG, TIFF and BMP images and writes label maps as PNG."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats.content import Content, Request
from segweave.formats.guard import (
    DEFLATE_LIMIT,
    check_declared,
    check_finite,
    check_unfolded,
    reading,
)
from segweave.storage import atomic_write

LARGEST_PIXELS = 178_956_970
"""Images with more pixels are refused (Pillow's own bound against decompression bombs)."""

_LOSSY_FORMATS = ("JPEG", "MPO")
_LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")
_SOFT = 0.1
"""The largest share of grey pixels that soft edges make up in a mask."""
_GREY = {"1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_PHOTOMETRIC = 262
"""The tag of a TIFF that says whether 0 is white."""
_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}


_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def open_picture(file: Path) -> Any:
    """The picture in a file, its header being read alone: a PNG, JPEG, TIFF or BMP whatever its
    name says. The library knows more formats; some of them start other programs.
    """
    from PIL import Image

    return Image.open(file, formats=_FORMATS)


def exif_turn(file: Path) -> int:
    """The EXIF orientation with which a picture is to be shown (2 to 8), else 1."""
    try:
        with warnings.catch_warnings(), open_picture(file) as picture:
            warnings.simplefilter("ignore")
            # Pillow applies the orientation of a TIFF image itself.
            turn = 1 if picture.format == "TIFF" else picture.getexif().get(274, 1)
    except Exception:
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def turned_note(file: Path) -> str:
    """What to know of a picture that is to be shown turned, "" for any other file."""
    turn = exif_turn(file) if file.suffix.lower() in (".jpg", ".jpeg", ".png") else 1
    if turn == 1:
        return ""
    return f"its EXIF orientation ({turn}) is not applied: the label map is of the pixels as stored"


def read_picture(file: Path, request: Request) -> Content:
    """Read one grey or colour image; pixels as stored, EXIF orientation not applied (labels refer
    to the stored pixels), but for TIFF, whose own orientation is.

    A palette gives colours in an image and its indices in a label, but for one of greys, whose
    greys count in both: programs choose the order of a palette. An alpha channel is dropped where
    it is opaque everywhere. Of the several pictures in a JPEG of a phone (MPO) the first is read.
    Raises InputError for a damaged file, more than `LARGEST_PIXELS`, transparent pixels, several
    pages, colours of 16 bits per channel (which the library behind this would cut to 8), samples of
    64 bits, colour spaces other than grey and RGB, and a label in a TIFF whose 0 is white.
    """
    doing, as_label = request.doing, request.as_label
    with reading(doing, file), _known(doing, file), warnings.catch_warnings():
        # What matters ends in an InputError; the library's other warnings do not help.
        warnings.simplefilter("ignore")
        with open_picture(file) as picture:
            _check_kind(picture, file, request)
            if as_label and not request.grey:
                _check_black_is_zero(picture, file, doing)
            lossy = _is_lossy(picture)
            values = _values(picture, file, doing, as_label and not request.grey)
    check_finite(values, doing, file)
    if as_label:
        if request.grey and values.ndim == 3:
            values = values.max(axis=-1)
        label = _one_channel(_white_of_16_bits(values), file, doing, lossy)[None]
        return Content(image=None, label=label, stack="single", lossy=lossy)
    image = values[None, None] if values.ndim == 2 else np.moveaxis(values, -1, 0)[None]
    return Content(image=np.ascontiguousarray(image), label=None, stack="single", lossy=lossy)


def _is_lossy(picture: Any) -> bool:
    """Whether the pixels are stored with a loss, whatever the ending of the file."""
    return (
        picture.format in _LOSSY_FORMATS or picture.info.get("compression") in _LOSSY_COMPRESSIONS
    )


@contextmanager
def _known(doing: str, file: Path) -> Iterator[None]:
    """Turn the library's error about too many declared pixels into an InputError."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except Image.DecompressionBombError as error:
        raise InputError(
            doing,
            file=file,
            expected="a complete, undamaged file",
            found=f"a header that declares more than {LARGEST_PIXELS:,} pixels",
            remedy="copy or download it again; if it is truly so large, cut it into tiles",
            kind="damaged",
        ) from error
    except UnidentifiedImageError as error:
        kind = _tiff_kind(file)
        raise InputError(
            doing,
            file=file,
            expected="a picture in a format that can be read (PNG, JPEG, TIFF, BMP)",
            found=f"a TIFF of {kind}" if kind else "something else",
            remedy="save it as 8 or 16 bits of grey, as RGB, as 32-bit floats, or as .npy"
            if kind
            else "copy or download it again",
            kind="unsupported" if kind else "damaged",
        ) from error


def _tiff_kind(file: Path) -> str:
    """What the samples of a TIFF are, of which the library behind this reads no such kind; "" for a
    file that is none or is cut off.
    """
    from PIL import TiffImagePlugin

    with file.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = stream.read(8)
        if head[:4] in (b"II+\0", b"MM\0+"):
            return "64-bit offsets (BigTIFF)"
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return ""
        try:
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            stream.seek(tags.next)
            tags.load(stream)
            bits, kinds = tags[258], tags.get(339, (1,))
        except Exception:
            return ""
    name = {2: "signed integers", 3: "floating-point numbers"}.get(kinds[0], "integers")
    return f"{' + '.join(map(str, bits[:4]))}-bit {name}"


def _check_kind(picture: Any, file: Path, request: Request) -> None:
    doing = request.doing
    width, height = picture.size
    if width * height > LARGEST_PIXELS:
        raise InputError(
            doing,
            file=file,
            expected=f"at most {LARGEST_PIXELS} pixels",
            found=f"{width} × {height}",
            remedy="cut it into tiles",
            kind="unsupported",
        )
    stored = file.stat().st_size
    if picture.format == "PNG":
        check_declared(width * height // 8, stored * DEFLATE_LIMIT, doing, file)
    sample = 4 if picture.mode in ("I", "F") else 2 if picture.mode.startswith("I;16") else 1
    unfolded = width * height * len(picture.getbands()) * sample
    check_unfolded(unfolded, stored, doing, file, as_label=request.as_label)
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        raise InputError(
            doing,
            file=file,
            expected="one image",
            found=f"{picture.n_frames} pages",
            remedy="save each page as a separate file, or all as one .npz",
            kind="unsupported",
        )
    raw = " ".join(str(tile[3]) for tile in picture.tile)
    if picture.mode in ("RGB", *_ALPHA) and "16" in raw:
        raise InputError(
            doing,
            file=file,
            expected="colours of 8 bits per channel, or grey of 8 or 16",
            found="colours of 16 bits per channel",
            remedy="convert it to 8 bits, or save it as .npz",
            kind="unsupported",
        )


def check_black_is_zero(file: Path, doing: str) -> None:
    """Raise InputError for a TIFF whose 0 is white, where it is to be read as a mask."""
    with _known(doing, file), warnings.catch_warnings(), open_picture(file) as picture:
        warnings.simplefilter("ignore")
        _check_black_is_zero(picture, file, doing)


def _check_black_is_zero(picture: Any, file: Path, doing: str) -> None:
    # Fax software writes white as 0 and means what is shown. tifffile (arrays of bool) and ImageJ
    # (inverted tables) write foreground as the larger number, whatever is shown.
    if picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == 0:
        raise InputError(
            doing,
            file=file,
            expected="a label map whose 0 is black, as its background is",
            found="a TIFF whose 0 is white (photometric interpretation MinIsWhite): some programs "
            "mean what is shown in white, others the number 1, as foreground",
            remedy="save it as PNG, or with photometric='minisblack' in tifffile; where the white "
            "that is shown is the foreground, a threshold (mask_threshold=127) reads it so",
            kind="labels",
        )


def _values(picture: Any, file: Path, doing: str, indices: bool) -> NDArray[Any]:
    """Pixels (height, width) or (height, width, 3); `indices` of a palette, unless it is grey."""
    if picture.mode == "P" and not (indices and not _is_grey_palette(picture)):
        has_alpha = "transparency" in picture.info
        picture = picture.convert("RGBA" if has_alpha else "RGB")
    if picture.mode in _ALPHA:
        plain = picture.convert("LA" if picture.mode in ("LA", "La") else "RGBA")
        values = np.asarray(plain)
        clear = int(np.count_nonzero(values[..., -1] != 255))
        if clear:
            raise InputError(
                doing,
                file=file,
                expected="opaque pixels",
                found=f"{clear} pixels that are transparent, whose colour is undefined",
                remedy="save it without an alpha channel",
                kind="values",
            )
        return values[..., 0] if values.shape[-1] == 2 else values[..., :3]
    if picture.mode in _GREY or picture.mode in ("P", "RGB"):
        values = np.asarray(picture)
        if values.dtype.kind == "b":
            return values.astype(np.uint8)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    raise InputError(
        doing,
        file=file,
        expected="a grey or RGB image",
        found=f"the colour space {picture.mode}",
        remedy="convert it to RGB",
        kind="unsupported",
    )


def _is_grey_palette(picture: Any) -> bool:
    """Whether the pixels of a palette picture are shown in greys: of a palette of greys, or in
    black and white of any palette. A palette that has colours too is one of classes.
    """
    palette = np.asarray(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = np.flatnonzero(np.bincount(np.asarray(picture).ravel(), minlength=1))
    if used.size == 0 or used[-1] >= len(palette):
        return False
    shown = palette[used]
    if (shown != shown[:, :1]).any():
        return False
    return bool((palette == palette[:, :1]).all() or np.isin(shown, (0, 255)).all())


def _white_of_16_bits(values: NDArray[Any]) -> NDArray[Any]:
    """A mask of 16 bits that holds nothing but 0 and 65535 as 0 and 255."""
    wide = values.dtype.itemsize > 1 and values.max(initial=0) == 65535
    if wide and np.isin(values, (0, 65535)).all():
        return (values > 0) * np.uint8(255)
    return values


def _one_channel(values: NDArray[Any], file: Path, doing: str, lossy: bool) -> NDArray[Any]:
    """A label's one channel, as it is stored; equal but for noise where the file is `lossy`."""
    if values.ndim == 3:
        exact = (values == values[..., :1]).all()
        if not (is_grey(np.moveaxis(values, -1, 0)) if lossy else exact):
            raise InputError(
                doing,
                file=file,
                expected="a label image with class ids in one channel",
                found="colours",
                remedy="map each colour to a class id first; if these are the images, the folders "
                "of images and masks are swapped",
                kind="labels",
            )
        values = values[..., 0]
    return values


def is_grey(values: NDArray[Any]) -> bool:
    """Whether the channels (channels, height, width) are equal but for noise."""
    spread = values.max(axis=0).astype(np.int64) - values.min(axis=0)
    return bool(spread.max(initial=0) <= _noise(values))


def two_values(
    grey: NDArray[Any], file: Path, doing: str, *, lossy: bool = False
) -> NDArray[np.uint8]:
    """A mask of foreground and background (height, width) as 0 and 1.

    The mask holds 0 and 1, or 0 and the type's largest value, of which whatever is above the middle
    is foreground (noise of JPEG, soft edges).

    Args:
        grey: the mask as it is stored.
        file: its file, for error messages.
        doing: what it is read for, for error messages.
        lossy: whether it was compressed with a loss: small values are noise then, never ids.

    Raises InputError for more than the noise and the soft edges of two values: ids beside an
    ignored value, areas of one grey, a large share of greys.
    """
    highest = float(grey.max())
    if highest == 0 or (highest == 1 and not lossy):
        return (grey > 0).astype(np.uint8)
    noise = _noise(grey)
    whole = _whole(grey)
    between = (grey > noise) & (grey < whole - noise)
    third = grey[(grey > 0) & (grey < highest)]
    found = ""
    if highest <= 0.5 * whole:
        found = f"values up to {highest:g}"
    elif not lossy and third.size and third.min() == third.max() <= noise:
        found = f"the ids 0, {third[0]:g} and {highest:g}"
    elif (even := _even(grey, between, whole)) is not None:
        found = f"an area of the value {even:g}"
    elif between.mean() > _SOFT:
        found = f"{between.mean():.0%} of the pixels grey"
    if found:
        raise InputError(
            doing,
            file=file,
            expected="0 and 255 with the noise of compression: a file with loss holds no class ids"
            if lossy
            else "0 and 1, or 0 and 255 with noise",
            found=found,
            remedy="save class ids as PNG, or give a threshold (mask_threshold) for a grey mask"
            if lossy
            else "check that this is a mask of foreground and background",
            kind="labels",
        )
    return (grey > whole // 2).astype(np.uint8)


def _whole(grey: NDArray[Any]) -> int:
    return 65535 if grey.dtype.itemsize > 1 and grey.max() > 255 else 255


def _noise(grey: NDArray[Any]) -> int:
    """How far values may be from 0 and from the largest."""
    return _whole(grey) // 8


def _even(grey: NDArray[Any], between: NDArray[np.bool_], whole: int) -> float | None:
    """The value of an area of one grey, at least 3 × 3 pixels large, where there is one."""
    if not between.any():
        return None
    from scipy.ndimage import maximum_filter, minimum_filter

    low, high = minimum_filter(grey, 3), maximum_filter(grey, 3)
    inside = minimum_filter(between, 3) & (high - low <= whole / 32)
    return float(grey[inside][0]) if inside.any() else None


def white_as_one(values: NDArray[Any]) -> NDArray[Any]:
    """A mask that holds nothing but 0 and 255 as 0 and 1, any other as it is."""
    if values.dtype == np.uint8 and values.max() == 255 and np.isin(values, (0, 255)).all():
        return values // np.uint8(255)
    return values


def write_picture(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label of one slice as a grey PNG of class ids, or of 0 and 255 where the target is
    binary.
    """
    from PIL import Image

    white = np.uint8(255 if target is not None and target.kind == "binary" else 1)

    with atomic_write(path) as temporary:
        Image.fromarray(labels[0] * white).save(temporary, format="PNG")
