"""Draws label maps over their images: translucent colours, contours, and a legend."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from segweave.data.case import Case, count_ids
from segweave.data.specs import TargetSpec, class_colours
from segweave.formats.nifti import names_orientation
from segweave.words import printable

MOST_TILES = 24
_SLICES_FOR_WINDOW = 64
"""A montage shows no more slices than this."""

_BACKGROUND, _TEXT = (16, 18, 22), (236, 238, 240)
_FILL = 0.28
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
_GAP, _MARGIN = 6, 12


def draw_overlay(
    case: Case, labels: NDArray[Any], target: TargetSpec, *, title: str | None = None
) -> Image.Image:
    """A picture of `labels`, (slices, height, width) or (slices, classes, height, width), over the
    case's image.

    One slice: the image, and beside it the image under its labels. Several: a montage of all
    slices, or of `MOST_TILES` spread over those with labels. Pixels are drawn in their true
    proportions where spacing is known. The legend gives each class's colour and amount (ml, or px
    where spacing is unknown). A predicted image, (slices, channels, height, width), is drawn in the
    grey values of the target's range, one slice beside that of the case.
    """
    of_image = target.task == "image"
    shown = _choose_slices(labels)
    longest = 512 if len(shown) == 1 else 300 if len(shown) <= 6 else 220
    size = _tile_size(case, longest)
    lower, upper = target.range or _window(case)
    tiles: list[tuple[str, Image.Image]] = []
    for index in shown:
        plain = _grey_or_colour(case.image[index], lower, upper)
        picture = Image.fromarray(plain).resize(size, Image.Resampling.BICUBIC)
        if len(shown) == 1:
            tiles.append(("", picture))
        name = "" if case.slices == 1 else f"{index + 1} / {case.slices}"
        if of_image:
            plain = _grey_or_colour(labels[index], lower, upper)
            tile = Image.fromarray(plain).resize(size, Image.Resampling.BICUBIC)
        else:
            tile = _painted(picture, labels[index], target)
        tiles.append((name, tile))
    letters = direction_letters(case)
    words = case.id if title is None else title
    if not words.isprintable():
        words = printable(words).replace("\n", r"\n")
    if len(shown) < case.slices:
        words += f" · {len(shown)} of {case.slices} slices"
    return _sheet(tiles, words, _legend(case, labels, target), letters)


def display_slices(case: Case, like: Case | None = None) -> Iterator[NDArray[np.uint8]]:
    """Each slice of the case in turn as a picture, uint8 (height, width, 3), in the grey values
    that `draw_overlay` shows, or in those of the case `like`, so that both can be compared.
    """
    lower, upper = _window(case if like is None else like)
    for slice_ in case.image:
        yield _grey_or_colour(slice_, lower, upper)


def draw_slice(
    pixels: NDArray[np.uint8],
    label: NDArray[np.uint8] | None,
    target: TargetSpec,
    *,
    spacing: tuple[float, float] | None = None,
    opacity: float = _FILL,
) -> Image.Image:
    """One slice as a picture, its classes over it.

    Args:
        pixels: the slice, uint8 (height, width, 3), of `display_slices`.
        label: (height, width), or (classes, height, width) where classes overlap; None for the
            slice alone.
        target: what the classes are.
        spacing: mm (row, column): pixels are drawn in their true proportions; square where None.
        opacity: how much of the fill covers the image, 0 to 1; the contour always shows.
    """
    picture = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    rows, columns = spacing or (1.0, 1.0)
    # The larger pixel side is enlarged: no pixel is lost. A header may claim any proportion.
    tall, wide = min(rows / min(rows, columns), 8.0), min(columns / min(rows, columns), 8.0)
    picture = picture.resize((round(width * wide), round(height * tall)), Image.Resampling.BICUBIC)
    return picture if label is None else _painted(picture, label, target, opacity)


def amounts(
    case: Case, labels: NDArray[Any], target: TargetSpec
) -> dict[str, tuple[int, float | None]]:
    """Class name → number of pixels (voxels), and ml where they are a volume of known spacing;
    nothing of a predicted image.
    """
    if target.task == "image":
        return {}
    overlapping = target.kind == "overlapping"
    counts = None if overlapping else count_ids(labels)
    voxel = None
    if case.stack == "space" and case.spacing is not None:
        voxel = math.prod(case.spacing) / 1000
    found: dict[str, tuple[int, float | None]] = {}
    for label, name in target.foreground.items():
        count = int(labels[:, label].sum()) if counts is None else int(counts[label])
        found[name] = (count, None if voxel is None else count * voxel)
    return found


def _choose_slices(labels: NDArray[Any]) -> list[int]:
    count = len(labels)
    if count <= MOST_TILES:
        return list(range(count))
    labelled = np.flatnonzero(labels.reshape(count, -1).any(axis=1))
    first, last = (int(labelled[0]), int(labelled[-1])) if len(labelled) else (0, count - 1)
    # A slice more on either side shows where the structure ends.
    first, last = max(first - 1, 0), min(last + 1, count - 1)
    steps = np.linspace(first, last, min(MOST_TILES, last - first + 1))
    return sorted({round(float(step)) for step in steps})


def _tile_size(case: Case, longest: int) -> tuple[int, int]:
    """Width and height in pixels of a tile, in the true proportions of the slice."""
    rows, columns = case.spacing[1:] if case.spacing is not None else (1.0, 1.0)
    height, width = case.size[0] * rows, case.size[1] * columns
    factor = longest / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _window(case: Case) -> tuple[float, float]:
    """Grey values that become black and white: the whole range of 8-bit colour, else the case's
    0.5 and 99.5 percentiles.
    """
    if case.image.dtype == np.uint8 and case.image.shape[1] == 3:
        return 0.0, 255.0
    # They are for the eye, and take a copy of what they are computed of.
    some = case.image[:: -(-case.slices // _SLICES_FOR_WINDOW), 0]
    lower, upper = np.percentile(some, (0.5, 99.5))
    if upper <= lower:
        lower, upper = float(case.image.min()), float(case.image.max())
    return float(lower), float(upper) if upper > lower else float(lower) + 1.0


def _grey_or_colour(slice_: NDArray[Any], lower: float, upper: float) -> NDArray[np.uint8]:
    """(channels, height, width) → (height, width, 3), grey from the first channel unless there are
    three.
    """
    planes = slice_ if len(slice_) == 3 else np.repeat(slice_[:1], 3, axis=0)
    scaled = (planes.astype(np.float32) - lower) / (upper - lower)
    pixels = (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


def _painted(
    picture: Image.Image, label: NDArray[np.uint8], target: TargetSpec, fill: float = _FILL
) -> Image.Image:
    """The picture with each class as a translucent colour and a contour of two pixels with a dark
    edge.
    """
    pixels = np.asarray(picture, dtype=np.float32).copy()
    for value, colour in class_colours(target).items():
        mask = label[value] > 0 if target.kind == "overlapping" else label == value
        if not mask.any():
            continue
        large = Image.fromarray(mask.astype(np.uint8) * 255)
        inside = np.asarray(large.resize(picture.size, Image.Resampling.BILINEAR)) >= 128
        tone = np.asarray(ImageColor.getrgb(colour)[:3], dtype=np.float32)
        pixels[inside] = pixels[inside] * (1 - fill) + tone * fill
        # A dark edge keeps the contour legible on tissue of the same brightness.
        pixels[~inside & ~_eroded(~inside)] *= 0.35
        pixels[inside & ~_eroded(_eroded(inside))] = tone
    return Image.fromarray(pixels.round().astype(np.uint8))


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without pixels whose edge touches its outside; the border counts as inside."""
    padded = np.pad(mask, 1, mode="edge")
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def direction_letters(case: Case) -> tuple[str, str, str, str] | None:
    """Letters of the left, right, upper and lower edge of a slice (R, L, A, P, S, I) that is drawn
    with its columns to the right and its rows downwards; None where the image does not say how it
    lies in the patient (a NIfTI header without sform and qform only assumes it).

    No two axes of a case get the same pair of letters, however oblique the slices are.
    """
    if case.affine is None or not names_orientation(case.attributes):
        return None
    _, row, column = aff2axcodes(case.affine)
    return _OPPOSITE[column], column, _OPPOSITE[row], row


def _legend(case: Case, labels: NDArray[Any], target: TargetSpec) -> list[tuple[str, str]]:
    """Colour and words of each class."""
    if target.task == "image":
        return []
    found = amounts(case, labels, target)
    colours = class_colours(target)
    entries = []
    for label, name in target.foreground.items():
        count, volume = found[name]
        amount = f"{count:,} px" if volume is None else f"{volume:.1f} ml"
        entries.append((colours[label], f"{name}  {amount}"))
    return entries


def _sheet(
    tiles: list[tuple[str, Image.Image]],
    title: str,
    legend: list[tuple[str, str]],
    letters: tuple[str, str, str, str] | None,
) -> Image.Image:
    """Tiles in rows under a title, over a legend."""
    words, small = _font(16), _font(12)
    width, height = tiles[0][1].size
    columns = _columns(len(tiles), width, height)
    rows = math.ceil(len(tiles) / columns)
    across = columns * (width + _GAP) - _GAP
    lines = _wrapped(legend, words, max(across, 320))
    total = (
        max(across, 320) + 2 * _MARGIN,
        _MARGIN + 26 + rows * (height + _GAP) + 26 * len(lines) + _MARGIN,
    )
    sheet = Image.new("RGB", total, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), _fitting(title, words, total[0] - 2 * _MARGIN), _TEXT, words)
    for number, (name, tile) in enumerate(tiles):
        left = _MARGIN + number % columns * (width + _GAP)
        top = _MARGIN + 26 + number // columns * (height + _GAP)
        sheet.paste(tile, (left, top))
        if name:
            draw.text((left + 4, top + 2), name, _TEXT, small, stroke_width=2, stroke_fill=0)
        if number == 0 and letters is not None:
            _write_letters(draw, letters, (left, top, width, height), small)
    for number, line in enumerate(lines):
        left, top = _MARGIN, _MARGIN + 26 + rows * (height + _GAP) + 26 * number
        for colour, text in line:
            draw.rectangle((left, top + 6, left + 13, top + 19), fill=colour)
            draw.text((left + 20, top + 3), text, _TEXT, words)
            left += 44 + round(words.getlength(text))
    return sheet


def _font(size: int) -> Any:
    """Matplotlib's font where it is installed: Pillow's own knows no letters with accents."""
    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size=size)


def _columns(count: int, width: int, height: int) -> int:
    """As many columns as make the sheet nearest to 4:3."""
    if count <= 2:
        return count

    def distance(columns: int) -> float:
        rows = math.ceil(count / columns)
        empty = columns * rows - count
        return abs(math.log(columns * width / (rows * height) / (4 / 3))) + 0.15 * empty

    return min(range(1, count + 1), key=distance)


def _write_letters(
    draw: ImageDraw.ImageDraw,
    letters: tuple[str, str, str, str],
    box: tuple[int, int, int, int],
    font: Any,
) -> None:
    left, top, width, height = box
    places = (
        (left + 4, top + height / 2, "lm"),
        (left + width - 4, top + height / 2, "rm"),
        (left + width / 2, top + 3, "mt"),
        (left + width / 2, top + height - 3, "mb"),
    )
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        draw.text((x, y), letter, _TEXT, font, anchor=anchor, stroke_width=2, stroke_fill=0)


def _wrapped(legend: list[tuple[str, str]], font: Any, across: int) -> list[list[tuple[str, str]]]:
    """Legend entries in as many lines as the width asks for."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0.0
    for entry in legend:
        needed = 44 + font.getlength(entry[1])
        if lines[-1] and used + needed > across:
            lines.append([])
            used = 0.0
        lines[-1].append(entry)
        used += needed
    return lines


def _fitting(text: str, font: Any, across: float) -> str:
    if font.getlength(text) <= across:
        return text
    while text and font.getlength(text + "…") > across:
        text = text[:-1]
    return text + "…"
