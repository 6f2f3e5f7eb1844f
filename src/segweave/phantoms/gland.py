"""A histology phantom: synthetic colon tissue with a number for every gland, written as the GlaS
release is.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter

from segweave.errors import UsageError, nearest
from segweave.phantoms.thorax import Floats, smooth_noise
from segweave.phantoms.writing import write_picture
from segweave.runtime.randomness import numpy_stream
from segweave.storage import atomic_write

LAYOUTS = ("glas", "labelcol")
FINE = 2
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Stain:
    """Colours of a slide: what eosin makes of stroma and cytoplasm, haematoxylin of nuclei."""

    stroma: Floats
    cytoplasm: Floats
    nucleus: Floats
    white: Floats


def write_glands(
    out: str | Path,
    images: int = 12,
    seed: int = 0,
    *,
    layout: Literal["glas", "labelcol"] = "glas",
    size: tuple[int, int] = (261, 388),
) -> Path:
    """Write `images` synthetic slides of about `size` (rows, columns) and the number of each gland.

    `glas`: train_N.bmp, testA_N.bmp, testB_N.bmp with their _anno.bmp (0 background, 1, 2, ... the
    glands) and Grade.csv; a patient has about four slides, in several parts, as in the release.
    `labelcol`: Train_Folder, Val_Folder and Test_Folder with img and labelcol, whose PNG masks hold
    0 and 255. Benign glands are round rings of nuclei with goblet cells, malignant ones large and
    ragged. The same arguments give the same pixels. Returns `out`.
    """
    if layout not in LAYOUTS:
        raise UsageError(
            "making gland phantoms", found=repr(layout), remedy=nearest(layout, LAYOUTS)
        )
    if images < 1 or min(size) < 48:
        raise UsageError(
            "making gland phantoms",
            expected="at least 1 image of 48 × 48 pixels",
            found=f"{images} images of {size[0]} × {size[1]}",
        )
    folder = Path(out)
    patients = max(1, images // 4)
    numbers: dict[str, int] = {}
    rows = []
    for number in range(images):
        patient = number % patients
        slide = numpy_stream(seed, "phantom", case=f"patient{patient}")
        stain, malignant = _stain(slide), patient % 2 == 1
        stream = numpy_stream(seed, "phantom", case=f"gland{number}")
        its_size = size if number % 3 else (round(0.87 * size[0]), round(0.76 * size[1]))
        image, glands = draw_tissue(stream, its_size, stain, malignant=malignant)
        part = "train" if number % 2 == 0 else "testA" if number % 4 == 1 else "testB"
        numbers[part] = numbers.get(part, 0) + 1
        name = f"{part}_{numbers[part]}"
        if layout == "labelcol":
            root = folder / {"train": "Train_Folder", "testA": "Test_Folder"}.get(
                part, "Val_Folder"
            )
            write_picture(image, root / "img" / f"{name}.png")
            write_picture((glands > 0) * np.uint8(255), root / "labelcol" / f"{name}_anno.png")
            continue
        write_picture(image, folder / f"{name}.bmp")
        write_picture(glands, folder / f"{name}_anno.bmp")
        grade = "malignant" if malignant else "benign"
        rows.append(
            (name, patient + 1, grade, "moderately differentiated" if malignant else "healthy")
        )
    if layout == "glas":
        with atomic_write(folder / "Grade.csv") as file, file.open("w", newline="") as stream_out:
            writer = csv.writer(stream_out)
            writer.writerow(
                ("name", "patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)")
            )
            writer.writerows(rows)
    return folder


def draw_tissue(
    stream: np.random.Generator, size: tuple[int, int], stain: Stain, *, malignant: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One slide (rows, columns, 3) and its glands, numbered from 1 (rows, columns)."""
    fine = (size[0] * FINE, size[1] * FINE)
    unit = min(fine) / 522
    outlines = _outlines(stream, fine, unit, malignant)
    glands = Image.new("L", fine[::-1])
    for number, outline in enumerate(outlines, start=1):
        ImageDraw.Draw(glands).polygon(outline, fill=number)
    numbers = np.asarray(glands)
    tissue = _stroma(stream, fine, stain, unit)
    picture = Image.fromarray(np.rint(np.clip(tissue, 0, 1) * 255).astype(np.uint8))
    _scatter(stream, picture, numbers, stain, unit)
    for number, outline in enumerate(outlines, start=1):
        _paint_gland(stream, picture, numbers == number, outline, stain, unit, malignant)
    seen = np.asarray(picture, np.float64) / 255
    seen = gaussian_filter(seen, (0.9, 0.9, 0))
    grain = smooth_noise(stream, fine, (1.2, 1.2))
    seen = seen * (1 + 0.03 * grain[..., None])
    small = seen.reshape(size[0], FINE, size[1], FINE, 3).mean(axis=(1, 3))
    small += 0.012 * stream.standard_normal(small.shape)
    image = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
    # A gland of which one pixel is left at the edge is not annotated.
    coarse = numbers[::FINE, ::FINE].copy()
    counts = np.bincount(coarse.ravel(), minlength=256)
    coarse[np.isin(coarse, np.flatnonzero(counts < 12))] = 0
    kept = np.unique(coarse)
    return image, np.searchsorted(kept, coarse).astype(np.uint8)


def _stain(stream: np.random.Generator) -> Stain:
    u = stream.uniform
    shift = np.array([u(-0.02, 0.03), u(-0.05, 0.05), u(-0.03, 0.03)])
    return Stain(
        stroma=np.array([0.85, 0.60, 0.82]) + shift,
        cytoplasm=np.array([0.74, 0.52, 0.80]) + shift,
        nucleus=np.array([0.36, 0.18, 0.55]) + 0.6 * shift,
        white=np.array([0.95, 0.90, 0.95]),
    )


def _outlines(
    stream: np.random.Generator, fine: tuple[int, int], unit: float, malignant: bool
) -> list[Points]:
    """Closed outlines that do not touch: ovals of one direction, or large ragged shapes."""
    coarse = max(1, round(2 * unit))
    taken = np.zeros((-(-fine[0] // coarse), -(-fine[1] // coarse)), bool)
    outlines: list[Points] = []
    wanted = int(stream.integers(5, 11)) if malignant else int(stream.integers(6, 18))
    main = stream.uniform(0, np.pi)
    for attempt in range(14 * wanted):
        if len(outlines) == wanted:
            break
        centre = (stream.uniform(-0.05, 1.05) * fine[1], stream.uniform(-0.05, 1.05) * fine[0])
        long = stream.uniform(75, 180) * unit if malignant else stream.uniform(65, 120) * unit
        # Where large ones do not fit, smaller ones may.
        long *= 1 - 0.5 * attempt / (14 * wanted)
        short = long * (stream.uniform(0.5, 0.9) if malignant else stream.uniform(0.48, 0.72))
        turn = stream.uniform(0, np.pi) if malignant else main + stream.normal(0, 0.2)
        waves = stream.normal(0, 0.13 if malignant else 0.04, (6, 2))
        angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        radius = 1 + sum(
            (a * np.cos((n + 2) * angle) + b * np.sin((n + 2) * angle)) / (n + 1)
            for n, (a, b) in enumerate(waves)
        )
        px, py = long * radius * np.cos(angle), short * radius * np.sin(angle)
        dx, dy = px * np.cos(turn) - py * np.sin(turn), px * np.sin(turn) + py * np.cos(turn)
        wider = 1 + 9 * unit / short
        free = Image.new("1", taken.shape[::-1])
        around = [
            ((centre[0] + wider * a) / coarse, (centre[1] + wider * b) / coarse)
            for a, b in zip(dx, dy, strict=True)
        ]
        ImageDraw.Draw(free).polygon(around, fill=1)
        area = np.asarray(free)
        if area.any() and not (area & taken).any():
            taken |= area
            outlines.append([(centre[0] + a, centre[1] + b) for a, b in zip(dx, dy, strict=True)])
    return outlines


def _stroma(
    stream: np.random.Generator, fine: tuple[int, int], stain: Stain, unit: float
) -> Floats:
    """Pink fibres with clefts, pale in parts."""
    wavy = smooth_noise(stream, fine, (60 * unit, 60 * unit))
    fibres = smooth_noise(stream, fine, (3 * unit, 14 * unit))
    rough = smooth_noise(stream, fine, (5 * unit, 5 * unit))
    image: Floats = stain.stroma * (1 + 0.05 * wavy + 0.03 * fibres + 0.035 * rough)[..., None]
    pale = np.clip(0.5 * (0.7 * fibres + 0.7 * rough + 0.5 * wavy - 1.1), 0, 1)[..., None]
    pink = np.clip(0.35 * (wavy - 0.4 * rough), 0, 0.5)[..., None]
    image = image * (1 - pink) + pink * np.array([0.90, 0.50, 0.70])
    return image * (1 - pale) + pale * stain.white


def _scatter(
    stream: np.random.Generator,
    picture: Image.Image,
    numbers: NDArray[np.uint8],
    stain: Stain,
    unit: float,
) -> None:
    """Nuclei of the stroma: round ones in crowds, thin ones along fibres."""
    rows, columns = numbers.shape
    crowd = smooth_noise(stream, numbers.shape, (40 * unit, 40 * unit))
    draw = ImageDraw.Draw(picture)
    count = int(rows * columns / (unit * unit) / 150)
    flow = stream.uniform(0, np.pi)
    for _ in range(count):
        x, y = stream.uniform(0, columns), stream.uniform(0, rows)
        if numbers[int(y), int(x)] or stream.normal() > crowd[int(y), int(x)] + 0.1:
            continue
        thin = stream.uniform() < 0.35
        long, short = ((5.5, 1.6) if thin else (3.4, 2.9)) * np.array(stream.uniform(0.8, 1.3))
        turn = flow + stream.normal(0, 0.5) if thin else stream.uniform(0, np.pi)
        _ellipse(stream, draw, (x, y), long * unit, short * unit, turn, stain.nucleus)


def _paint_gland(
    stream: np.random.Generator,
    picture: Image.Image,
    inside: NDArray[np.bool_],
    outline: Points,
    stain: Stain,
    unit: float,
    malignant: bool,
) -> None:
    """A rim of nuclei on the outline, cytoplasm, goblet cells and the lumen in the middle."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return
    top, left = int(rows[0]), int(columns[0])
    inside = inside[top : rows[-1] + 1, left : columns[-1] + 1]
    box = (left, top, left + inside.shape[1], top + inside.shape[0])
    # A gland goes on beyond the picture's edge.
    whole = np.pad(inside, 1, mode="edge")
    depth = np.asarray(distance_transform_edt(np.pad(whole, 1)))[2:-2, 2:-2]
    widest = float(depth.max())
    if widest < 2:
        return
    pixels = np.asarray(picture.crop(box), np.float64) / 255
    texture = smooth_noise(stream, inside.shape, (3 * unit, 3 * unit))
    body = stain.cytoplasm * (1 + 0.06 * texture)[..., None]
    share = stream.uniform(0.55, 0.85)
    lumen = np.clip((depth - (share + 0.07 * texture) * widest) / (2.5 * unit), 0, 1)[..., None]
    debris = np.clip(0.5 * texture - 0.3, 0, 0.6)[..., None]
    body = body * (1 - lumen) + lumen * ((1 - debris) * stain.white + debris * stain.cytoplasm)
    pixels = np.where(inside[..., None], body, pixels)
    drawn = Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    if not malignant or stream.uniform() < 0.3:
        _goblets(stream, ImageDraw.Draw(drawn), depth, share * widest, stain, unit)
    picture.paste(drawn, box[:2])
    draw = ImageDraw.Draw(picture)
    ring = np.asarray(outline)
    steps = np.roll(ring, -1, axis=0) - ring
    length = np.linalg.norm(steps, axis=1).sum()
    # Inwards is at a right angle to the outline.
    normal = np.stack([-steps[:, 1], steps[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    layers = 2.6 if malignant else 1.5
    for _ in range(int(layers * length / (5.5 * unit))):
        k = int(stream.integers(len(ring)))
        point = ring[k] + stream.uniform(0, 1) * steps[k]
        at = point + normal[k] * stream.uniform(3.5, 4 + 6 * layers) * unit
        turn = float(np.arctan2(normal[k, 1], normal[k, 0]) + stream.normal(0, 0.2))
        size = stream.uniform(0.8, 1.2) * unit
        _ellipse(stream, draw, (at[0], at[1]), 6 * size, 2.5 * size, turn, stain.nucleus)


def _goblets(
    stream: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    depth: Floats,
    widest: float,
    stain: Stain,
    unit: float,
) -> None:
    """Pale drops of mucus between the rim and the lumen."""
    rows, columns = np.nonzero((depth > 14 * unit) & (depth < max(widest, 20 * unit)))
    if not len(rows):
        return
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(len(rows) / (60 * unit * unit))):
        k = int(stream.integers(len(rows)))
        size = stream.uniform(5, 10) * unit
        x, y = float(columns[k]), float(rows[k])
        if any(np.hypot(x - a, y - b) < 0.9 * (size + c) for a, b, c in taken):
            continue
        taken.append((x, y, size))
        box = (x - size, y - 0.88 * size, x + size, y + 0.88 * size)
        pale = stain.white * stream.uniform(0.93, 1.03)
        edge = 0.3 * stain.white + 0.7 * stain.cytoplasm
        draw.ellipse(box, fill=_rgb(pale), outline=_rgb(edge), width=max(1, round(unit)))


def _ellipse(
    stream: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    long: float,
    short: float,
    turn: float,
    colour: Floats,
) -> None:
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    x, y = long * np.cos(angle), short * np.sin(angle)
    points = [
        (
            centre[0] + float(a * np.cos(turn) - b * np.sin(turn)),
            centre[1] + float(a * np.sin(turn) + b * np.cos(turn)),
        )
        for a, b in zip(x, y, strict=True)
    ]
    draw.polygon(points, fill=_rgb(colour * stream.uniform(0.8, 1.6)))


def _rgb(colour: Floats) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.rint(np.clip(colour, 0, 1) * 255))
    return red, green, blue
