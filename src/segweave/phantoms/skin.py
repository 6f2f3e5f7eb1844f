"""A dermoscopy phantom: synthetic skin lesions with hair, rulers and dark corners, written as the
ISIC and PH2 releases are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_fill_holes, gaussian_filter, label

from segweave.errors import UsageError, nearest
from segweave.phantoms.thorax import Floats, smooth_noise
from segweave.phantoms.writing import write_picture
from segweave.runtime.randomness import numpy_stream
from segweave.storage import atomic_write

LAYOUTS = ("isic2018", "ph2")
DIAGNOSES = ("Common Nevus", "Atypical Nevus", "Melanoma")
_SKINS = (
    (0.87, 0.71, 0.64),
    (0.90, 0.78, 0.70),
    (0.86, 0.70, 0.52),
    (0.93, 0.62, 0.60),
    (0.78, 0.77, 0.76),
    (0.80, 0.64, 0.50),
)
_ISIC = (
    ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
)


def write_skin(
    out: str | Path,
    images: int = 20,
    seed: int = 0,
    *,
    layout: Literal["isic2018", "ph2"] = "isic2018",
    size: tuple[int, int] = (192, 256),
) -> Path:
    """Write `images` synthetic dermoscopic images of about `size` (rows, columns) and their masks.

    `isic2018`: JPEG images of different sizes and PNG masks (0 and 255) in the challenge's folders
    of training (70 %), validation (10 %) and test images. `ph2`: BMP images and 1-bit masks in a
    folder each, with PH2_dataset.txt. Skin of different tones, lesions with pigment network,
    patches and faint or sharp edges; hairs, a ruler, gel bubbles, dark corners in some. The same
    arguments give the same pixels. Returns `out`.
    """
    if layout not in LAYOUTS:
        raise UsageError(
            "making skin phantoms", found=repr(layout), remedy=nearest(layout, LAYOUTS)
        )
    if images < 1 or min(size) < 24:
        raise UsageError(
            "making skin phantoms",
            expected="at least 1 image of 24 × 24 pixels",
            found=f"{images} images of {size[0]} × {size[1]}",
        )
    folder = Path(out)
    rows = ["|| Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry ||"]
    valid, test = round(0.1 * images), round(0.2 * images)
    for number in range(images):
        stream = numpy_stream(seed, "phantom", case=f"skin{number}")
        malignant = int(stream.choice(3, p=(0.4, 0.4, 0.2)))
        # Releases hold pictures of many cameras.
        scale = 1.0 if layout == "ph2" else float(stream.choice([0.8, 1.0, 1.25]))
        wide = 1.0 if layout == "ph2" else float(stream.choice([1.0, 1.0, 1.12]))
        its_size = (max(24, round(size[0] * scale)), max(24, round(size[1] * scale * wide)))
        image, mask = draw_lesion(stream, its_size, malignant=malignant, corners=layout == "ph2")
        if layout == "ph2":
            name = f"IMD{number + 2:03d}"
            root = folder / "PH2 Dataset images" / name
            write_picture(image, root / f"{name}_Dermoscopic_Image" / f"{name}.bmp")
            write_picture(mask > 0, root / f"{name}_lesion" / f"{name}_lesion.bmp")
            rows.append(f"|| {name} ||    || {malignant} || {malignant} ||")
            continue
        part = 0 if number < images - valid - test else 1 if number < images - test else 2
        name = f"ISIC_{10 + 7 * number:07d}"
        write_picture(image, folder / _ISIC[part][0] / f"{name}.jpg", quality=92)
        write_picture(mask, folder / _ISIC[part][1] / f"{name}_segmentation.png")
    if layout == "ph2":
        with atomic_write(folder / "PH2_dataset.txt") as file:
            file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def draw_lesion(
    stream: np.random.Generator,
    size: tuple[int, int],
    *,
    malignant: int = 0,
    corners: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One image (rows, columns, 3) and its mask (0 and 255); `malignant` 0 to 2 makes the lesion
    more ragged and of more colours, `corners` darkens the corners surely.
    """
    unit = min(size) / 192
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    skin = np.array(_SKINS[int(stream.integers(len(_SKINS)))]) * stream.uniform(0.92, 1.15)
    inside = _inside(stream, size, y, x, unit, malignant)
    mask = inside > 0
    image = _skin(stream, size, skin, unit)
    _paint_lesion(stream, image, inside, skin, unit, malignant)
    if stream.uniform() < 0.3:
        _bubbles(stream, image, y, x, unit)
    overlay = np.zeros(size)
    if stream.uniform() < 0.5:
        overlay = _hairs(stream, size, unit)
    if stream.uniform() < 0.2:
        overlay = np.maximum(overlay, _ruler(stream, size, unit))
    dark = np.array([0.16, 0.11, 0.09])
    image = image * (1 - overlay[..., None]) + overlay[..., None] * dark
    image = gaussian_filter(image, (0.7 * unit, 0.7 * unit, 0))
    image *= _vignette(stream, size, y, x, corners)[..., None]
    image += 0.008 * stream.standard_normal(image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask * np.uint8(255)


def _inside(
    stream: np.random.Generator,
    size: tuple[int, int],
    y: Floats,
    x: Floats,
    unit: float,
    malignant: int,
) -> Floats:
    """Signed distance, about, to the lesion's edge in pixels (positive inside)."""
    cy, cx = size[0] * stream.uniform(0.42, 0.58), size[1] * stream.uniform(0.42, 0.58)
    radius = min(size) * stream.uniform(0.12, 0.42)
    turn, flat = stream.uniform(0, np.pi), stream.uniform(0.62, 1.0)
    dx, dy = x - cx, y - cy
    px, py = dx * np.cos(turn) + dy * np.sin(turn), -dx * np.sin(turn) + dy * np.cos(turn)
    angle = np.arctan2(py, px)
    lobes = np.zeros(size)
    for n in range(2, 9):
        lobes += (
            stream.normal(0, 0.10 + 0.06 * malignant)
            / n**0.8
            * np.cos(n * angle + stream.uniform(0, 6.3))
        )
    ragged = stream.uniform(0.8, 1.8) * (1 + malignant) * unit
    fine = ragged * smooth_noise(stream, size, (3 * unit, 3 * unit))
    coarse = 1.6 * ragged * smooth_noise(stream, size, (8 * unit, 8 * unit))
    distance: Floats = radius * (1 + lobes) - np.hypot(px, py / flat) + fine + coarse
    # The largest piece alone is the lesion.
    pieces, count = label(distance > 0)
    if count > 1:
        largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        distance = np.where((pieces > 0) & (pieces != largest), -0.5, distance)
    holes = binary_fill_holes(distance > 0) & (distance <= 0)
    return np.where(holes, 0.5, distance)


def _skin(stream: np.random.Generator, size: tuple[int, int], skin: Floats, unit: float) -> Floats:
    """Skin with furrows, pores, faint redness and slow shading."""
    grain = smooth_noise(stream, size, (1.3 * unit, 1.3 * unit))
    furrows = np.abs(smooth_noise(stream, size, (3.2 * unit, 3.2 * unit)))
    light = 1 + 0.045 * smooth_noise(stream, size, (50 * unit, 50 * unit))
    light += 0.012 * grain - 0.02 * np.exp(-((furrows / 0.12) ** 2))
    red = np.clip(smooth_noise(stream, size, (16 * unit, 16 * unit)), 0, 3)
    image: Floats = skin * light[..., None]
    image *= 1 - np.array([0.005, 0.03, 0.03]) * red[..., None]
    spots = np.clip(smooth_noise(stream, size, (5 * unit, 5 * unit)) - 2.1, 0, 1)
    image *= 1 - np.array([0.1, 0.2, 0.25]) * spots[..., None]
    return image


def _paint_lesion(
    stream: np.random.Generator,
    image: Floats,
    inside: Floats,
    skin: Floats,
    unit: float,
    malignant: int,
) -> None:
    """Pigment over the skin, in place: darker inwards, with network, globules and patches."""
    size = inside.shape
    width = float(stream.choice([1.5, 3.0, 6.0, 9.0], p=(0.25, 0.35, 0.25, 0.15))) * unit
    share = 1 / (1 + np.exp(-np.clip(inside / width, -30, 30)))
    depth = np.clip(inside / (0.22 * min(size)), 0, 1)
    strength = stream.uniform(0.35, 0.85)
    patches = smooth_noise(stream, size, (12 * unit, 12 * unit))
    middle = smooth_noise(stream, size, (4 * unit, 4 * unit))
    cells = smooth_noise(stream, size, (1.7 * unit, 1.7 * unit))
    network = np.exp(-((cells / 0.55) ** 2))
    streaks = np.abs(smooth_noise(stream, size, (2.2 * unit, 2.2 * unit)))
    pigment = strength * (0.55 + stream.uniform(0.1, 0.6) * depth + 0.16 * patches + 0.1 * middle)
    pigment += stream.uniform(0.04, 0.16) * (network - 0.5) + 0.05 * (streaks - 0.8)
    pigment = share * np.clip(pigment, 0.06, 1.25)
    # Melanin takes blue and green before red.
    absorb = np.array(
        [stream.uniform(0.85, 1.15), stream.uniform(1.5, 1.9), stream.uniform(1.9, 2.5)]
    )
    image *= np.exp(-pigment[..., None] * absorb)
    image += 0.02 * np.clip(pigment, 0, 1)[..., None]
    if malignant:
        veil = share * np.clip(smooth_noise(stream, size, (10 * unit, 10 * unit)) - 0.9, 0, 0.8)
        tone = np.array([0.42, 0.46, 0.55]) if stream.uniform() < 0.6 else skin
        veil = (0.5 * veil * malignant).clip(0, 0.8)[..., None]
        image *= 1 - veil
        image += veil * tone
    if stream.uniform() < 0.4:
        globules = share * (smooth_noise(stream, size, (1.6 * unit, 1.6 * unit)) > 1.5)
        image *= 1 - 0.3 * gaussian_filter(globules, 0.6 * unit)[..., None]


def _bubbles(stream: np.random.Generator, image: Floats, y: Floats, x: Floats, unit: float) -> None:
    """Gel bubbles: a thin bright ring with a glint."""
    for _ in range(int(stream.integers(1, 6))):
        cy, cx = stream.uniform(0, image.shape[0]), stream.uniform(0, image.shape[1])
        radius = stream.uniform(1.5, 6) * unit
        far = np.hypot(y - cy, x - cx)
        ring = 0.35 * np.exp(-(((far - radius) / (0.7 * unit)) ** 2))
        glint = 0.8 * np.exp(-((np.hypot(y - cy + 0.4 * radius, x - cx) / (0.8 * unit)) ** 2))
        image += (ring + glint)[..., None] * (1 - image)


def _hairs(stream: np.random.Generator, size: tuple[int, int], unit: float) -> Floats:
    """How much hairs hide each pixel: curved, tapering, from a few to many, of one direction."""
    fine = 3
    canvas = Image.new("L", (size[1] * fine, size[0] * fine))
    draw = ImageDraw.Draw(canvas)
    main = stream.uniform(0, 2 * np.pi)
    strength = int(stream.uniform(130, 245))
    reach = np.array(size[::-1], float)
    for _ in range(int(stream.choice([2, 5, 12, 25]))):
        start = stream.uniform(-0.1, 1.1, 2) * reach
        turn = main + stream.normal(0, 0.5)
        length = stream.uniform(0.25, 0.9) * min(size)
        bend = stream.normal(0, 0.7) * length * 0.3
        step = np.linspace(0, 1, 24)[:, None]
        along, across = (
            np.array([np.cos(turn), np.sin(turn)]),
            np.array([-np.sin(turn), np.cos(turn)]),
        )
        line = start + step * length * along + np.sin(np.pi * step) * bend * across
        thick = stream.uniform(0.6, 1.5) * unit * fine
        for k in range(len(line) - 1):
            wide = max(1, round(thick * (1 - 0.5 * k / len(line))))
            draw.line([tuple(fine * line[k]), tuple(fine * line[k + 1])], fill=strength, width=wide)
    return _shrunk(canvas, size)


def _ruler(stream: np.random.Generator, size: tuple[int, int], unit: float) -> Floats:
    """A scale of black ticks near one side, slightly turned."""
    fine = 3
    canvas = Image.new("L", (size[1] * fine, size[0] * fine))
    draw = ImageDraw.Draw(canvas)
    turn = stream.normal(0, 0.06)
    start = np.array([0.08 * size[1], size[0] * stream.uniform(0.88, 0.94)])
    gap = stream.uniform(5, 9) * unit
    along, up = np.array([np.cos(turn), np.sin(turn)]), np.array([np.sin(turn), -np.cos(turn)])
    for k in range(int(0.8 * size[1] / gap)):
        root = start + k * gap * along
        tip = root + (9 if k % 5 == 0 else 5) * unit * up
        ends = [tuple(fine * root), tuple(fine * tip)]
        draw.line(ends, fill=230, width=max(1, round(0.9 * unit * fine)))
    return _shrunk(canvas, size)


def _shrunk(canvas: Image.Image, size: tuple[int, int]) -> Floats:
    small = canvas.resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(small, np.float64) / 255


def _vignette(
    stream: np.random.Generator, size: tuple[int, int], y: Floats, x: Floats, corners: bool
) -> Floats:
    """Light that falls off outwards, and in some the dark edge of the dermoscope's ring."""
    cy, cx = size[0] * stream.uniform(0.47, 0.53), size[1] * stream.uniform(0.47, 0.53)
    far = np.hypot(y - cy, x - cx) / (0.5 * np.hypot(*size))
    light: Floats = 1 - stream.uniform(0.05, 0.28) * far**2
    if corners or stream.uniform() < 0.2:
        edge = stream.uniform(0.78, 0.92)
        soft = stream.uniform(0.015, 0.05)
        light *= 0.12 + 0.88 / (1 + np.exp(np.clip((far - edge) / soft, -30, 30)))
    return light
