"""A cardiac phantom: synthetic short-axis stacks at end diastole and end systole, written as the
ACDC release is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segweave.datasets.published_splits import load_split
from segweave.errors import UsageError
from segweave.phantoms.thorax import (
    BLOOD,
    FAT,
    LUNG,
    MUSCLE,
    Floats,
    paint,
    scan,
    smooth_noise,
    soft,
    thorax,
)
from segweave.phantoms.writing import write_nifti
from segweave.runtime.randomness import numpy_stream
from segweave.storage import atomic_write

RIGHT_VENTRICLE, MYOCARDIUM, LEFT_VENTRICLE = 1, 2, 3
DIAGNOSES = ("NOR", "MINF", "DCM", "HCM", "RV")
HARD_SHARE = 0.06


@dataclass(frozen=True)
class Heart:
    """One patient's heart at end diastole, in mm, and how it contracts.

    `cavity` is the left ventricle's inner radius at its widest, `wall` its thickness, `length` from
    base to the cavity's tip; `right` scales the right ventricle. At end systole the cavity's radius
    is `squeeze` times as large, its length `shorten` times. `scar` (radians) is where an infarct
    has thinned the wall, None without one. `hard` names what makes the picture difficult, or is "".
    """

    diagnosis: str
    cavity: float
    wall: float
    length: float
    right: float
    squeeze: float
    shorten: float
    scar: float | None
    hard: str


def write_cardiac(
    out: str | Path,
    patients: int = 12,
    seed: int = 0,
    *,
    size: tuple[int, int] = (144, 128),
    slices: int = 10,
) -> Path:
    """Write `patients` synthetic patients into `out`, in the raw layout of ACDC's release.

    Each has `patientXXX_frameYY.nii.gz` with `_gt` at end diastole and end systole, and Info.cfg;
    headers have the release's quirk (an sform of unit steps, millimetres in pixdim alone). Images
    are int16 of about `size` (rows, columns; a little different from patient to patient), with
    about `slices` slices 10 mm apart and pixels of 1.4 to 1.7 mm; labels are 0 background, 1 right
    ventricle, 2 myocardium, 3 left ventricle. Stacks reach beyond base and apex, where nothing is
    labelled. Diagnoses take turns; some 6 % of patients are hard (noise, low contrast, ghosts). The
    numbers of the patients are chosen so that train, valid and test of the published split all get
    some. The same arguments give the same bytes. Returns `out`.
    """
    if patients < 1 or slices < 3 or min(size) < 32:
        raise UsageError(
            "making cardiac phantoms",
            expected="at least 1 patient, 3 slices and 32 × 32 pixels",
            found=f"{patients} patients, {slices} slices, {size[0]} × {size[1]} pixels",
        )
    folder = Path(out)
    for order, name in enumerate(_names(patients)):
        stream = numpy_stream(seed, "phantom", case=name)
        _write_patient(folder / name, name, DIAGNOSES[order % len(DIAGNOSES)], stream, size, slices)
    return folder


def _names(count: int) -> list[str]:
    """Names of patients that fall into the parts of the published split by 70 : 10 : 20."""
    parts = load_split("acdc").parts
    if count > 100:
        raise UsageError(
            "making cardiac phantoms", expected="at most 100 patients", found=str(count)
        )
    valid = min(10, round(count * 0.1) or (1 if count >= 3 else 0))
    test = min(20, round(count * 0.2) or (1 if count >= 2 else 0))
    train = count - valid - test
    return sorted([*parts["train"][:train], *parts["valid"][:valid], *parts["test"][:test]])


def _draw_heart(stream: np.random.Generator, diagnosis: str) -> Heart:
    u = stream.uniform
    cavity, wall, right, squeeze = u(21, 26), u(7, 9.5), u(0.9, 1.1), u(0.62, 0.74)
    scar = None
    if diagnosis == "DCM":
        cavity, wall, squeeze = u(29, 34), u(6, 8), u(0.84, 0.93)
    elif diagnosis == "HCM":
        cavity, wall, squeeze = u(18, 23), u(12, 16), u(0.55, 0.65)
    elif diagnosis == "MINF":
        cavity, squeeze, scar = u(24, 29), u(0.76, 0.86), float(u(0, 2 * np.pi))
    elif diagnosis == "RV":
        right = u(1.2, 1.4)
    length, shorten = u(62, 78), u(0.78, 0.88)
    hard = ""
    if u() < HARD_SHARE:
        hard = str(stream.choice(["noise", "contrast", "ghost"]))
    return Heart(diagnosis, cavity, wall, length, right, squeeze, shorten, scar, hard)


def _write_patient(
    folder: Path,
    name: str,
    diagnosis: str,
    stream: np.random.Generator,
    size: tuple[int, int],
    slices: int,
) -> None:
    heart = _draw_heart(stream, diagnosis)
    pixel = round(float(stream.uniform(1.4, 1.7)) * 144 / max(size), 4)
    its_size = (
        size[0] + 2 * int(stream.integers(-4, 5)),
        size[1] + 2 * int(stream.integers(-4, 5)),
    )
    count = max(3, slices + int(stream.integers(-1, 2)))
    # Whole stacks that reach half a slice to a slice and a half beyond the base.
    start = -float(stream.uniform(5, 14))
    step = max(10.0, round((heart.length + heart.wall + 16) / count, 1)) if slices < 9 else 10.0
    frames = int(stream.integers(18, 31))
    systole = round(frames * 0.4)
    depth = start + step * np.arange(count, dtype=np.float64)
    middle = (its_size[0] * stream.uniform(0.44, 0.52), its_size[1] * stream.uniform(0.48, 0.56))
    y, x = np.mgrid[: its_size[0], : its_size[1]].astype(np.float64)
    y, x = (y - middle[0]) * pixel, (x - middle[1]) * pixel
    chest = thorax(stream, depth, y, x, pixel, heart.cavity + heart.wall)
    shape_seed = int(stream.integers(2**62))
    for phase, frame in (("ED", 1), ("ES", systole)):
        # One anatomy for both phases; only the noise and the contraction differ.
        anatomy = np.random.default_rng(shape_seed)
        image, label = _volume(
            heart, phase == "ES", anatomy, stream, depth, chest.copy(), y, x, pixel
        )
        stem = f"{name}_frame{frame:02d}"
        _write_nifti(folder / f"{stem}.nii.gz", image, (step, pixel, pixel))
        _write_nifti(folder / f"{stem}_gt.nii.gz", label, (step, pixel, pixel))
    with atomic_write(folder / "Info.cfg") as file:
        height, weight = stream.uniform(152, 188), stream.uniform(52, 98)
        file.write_text(
            f"ED: 1\nES: {systole}\nGroup: {diagnosis}\nHeight: {height:.1f}\n"
            f"NbFrame: {frames}\nWeight: {weight:.1f}\n",
            encoding="utf-8",
        )


def _volume(
    heart: Heart,
    systole: bool,
    anatomy: np.random.Generator,
    noise: np.random.Generator,
    depth: Floats,
    image: Floats,
    y: Floats,
    x: Floats,
    pixel: float,
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """One phase: the heart painted over the chest `image` (changed in place), and its label."""
    outer = heart.cavity + heart.wall
    label = np.zeros(image.shape, np.uint8)
    turn = anatomy.uniform(-0.35, 0.25)
    lean = anatomy.uniform(-0.12, 0.12, 2)
    waves = anatomy.normal(0, 1, (3, 2))
    knots = smooth_noise(anatomy, (len(depth), 72), (0.6, 0.9))
    muscles = anatomy.uniform(0.75, 1.25, 4)
    squeeze = heart.squeeze if systole else 1.0
    length = heart.length * (heart.shorten if systole else 1.0)
    descent = heart.length - length
    contrast = 0.55 if heart.hard == "contrast" else 0.0
    muscle = MUSCLE + contrast * 0.45
    flow = 0.05 * smooth_noise(noise, image.shape, (0.3, 4 / pixel, 4 / pixel))
    for k, level in enumerate(depth):
        along = float(level) - 0.75 * descent
        cx, cy = lean * (along - 30)
        dx, dy = x - cx, y - cy
        distance, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
        wobble = 1.0 + sum(
            0.022 * a * np.cos((n + 2) * angle) + 0.022 * b * np.sin((n + 2) * angle)
            for n, (a, b) in enumerate(waves)
        )
        if along < 0:
            _above_base(image[k], anatomy, dx, dy, outer, pixel, flow[k])
            continue
        thick = heart.wall * (1.0 + (0.45 if systole else 0.0))
        tip = along / length
        inner = heart.cavity * squeeze * np.sqrt(max(0.0, 1.0 - tip**2.4)) * wobble
        epi_tip = along / (length + 0.8 * thick)
        epi = (heart.cavity * squeeze + thick) * np.sqrt(max(0.0, 1 - epi_tip**2.6)) * wobble
        if heart.scar is not None:
            infarct = np.exp(-(((angle - heart.scar + np.pi) % (2 * np.pi) - np.pi) ** 2) / 0.5)
            inner = inner + 0.4 * (epi - inner) * infarct * (inner > 0)
        if float(epi.max()) <= 2.0:
            continue
        # The right ventricle: an oval behind the left one's wall, gone before the apex.
        wide = heart.right * np.sqrt(max(0.0, 1.0 - (along / (0.88 * length)) ** 2.2))
        wide *= 0.5 + 0.5 * squeeze if systole else 1.0
        away = 0.92 * outer * (0.6 + 0.4 * np.sqrt(wide))
        px, py = dx * np.cos(turn) + dy * np.sin(turn), -dx * np.sin(turn) + dy * np.cos(turn)
        bow = px + away - 0.004 * py**2 * (along < 0.6 * length)
        half = (0.85 * outer * wide + 1e-3, 1.15 * outer * np.sqrt(wide) + 1e-3)
        # Narrower above than below, as the ventricle is.
        oval = np.hypot(bow / (half[0] * (1 + 0.006 * py)), (py - 4) / half[1]) / wobble
        right = (1.0 - oval) * min(half)
        if wide < 0.12:
            right = np.full_like(right, -99.0)
        _paint_heart(image[k], inner - distance, epi - distance, right, pixel, muscle, flow[k])
        _trabeculae(image[k], inner, distance, angle, knots[k], muscles, muscle, tip, pixel)
        label[k][right > 0] = RIGHT_VENTRICLE
        label[k][epi > distance] = MYOCARDIUM
        label[k][inner > distance] = LEFT_VENTRICLE
    strength = noise.uniform(0.025, 0.05) * (3.2 if heart.hard == "noise" else 1.0)
    seen = scan(noise, image, y, x, pixel, strength)
    if heart.hard == "ghost":
        seen = 0.72 * seen + 0.28 * np.roll(seen, round(9 / pixel), axis=1)
    scale = noise.uniform(180, 320)
    return np.rint(np.clip(seen * scale, 0, 4095)).astype(np.int16), label


def _paint_heart(
    image: Floats,
    inside_cavity: Floats,
    inside_wall: Floats,
    inside_right: Floats,
    pixel: float,
    muscle: float,
    flow: Floats,
) -> None:
    """Fat around, the thin wall of the right ventricle, both blood pools and the ring."""
    whole = np.maximum(inside_wall, inside_right + 3.0)
    paint(image, soft(whole + 5.5, pixel), LUNG + 0.1)
    paint(image, soft(whole + 4.0, pixel) * (0.35 + 0.65 * (flow > 0)), 0.8 * FAT)
    paint(image, soft(whole + 1.2, pixel), LUNG + 0.08)
    paint(image, soft(inside_right + 3.0, pixel), muscle + 0.5 * flow)
    paint(image, soft(inside_right, pixel), 0.88 * BLOOD + 1.4 * flow)
    paint(image, soft(inside_wall, pixel), muscle + 0.5 * flow)
    paint(image, soft(inside_cavity, pixel), BLOOD + flow)


def _trabeculae(
    image: Floats,
    inner: Floats,
    distance: Floats,
    angle: Floats,
    knots: Floats,
    muscles: Floats,
    muscle: float,
    tip: float,
    pixel: float,
) -> None:
    """Papillary muscles and a ragged inner edge: dark in the picture, cavity in the label."""
    if float(inner.max()) < 4.0:
        return
    turn = np.linspace(-np.pi, np.pi, len(knots) + 1)
    ragged = np.interp(angle, turn, np.append(knots, knots[0]))
    depth = np.clip(ragged, 0, 2.2) * (0.05 + 0.06 * tip) * inner
    edge = soft(np.minimum(distance - (inner - depth), inner - distance), pixel)
    paint(image, 0.9 * edge * (depth > 0.6), muscle)
    if 0.15 < tip < 0.9:
        middle, size = float(np.median(inner)), 0.14 + 0.06 * tip
        for which, where in enumerate((0.6, 2.2)):
            at = where + 0.9 * (muscles[which] - 1)
            # Ovals that reach from the wall inwards, ragged like the edge.
            reach = middle * (0.70 + 0.12 * (muscles[which + 2] - 1))
            across = distance * np.sin(angle - at)
            inwards = distance * np.cos(angle - at) - reach
            far = np.hypot(across, inwards / (0.8 + 0.9 * muscles[which + 2] * tip))
            blob = middle * size * muscles[2 + which] * (1 + 0.15 * ragged) - far
            paint(image, 0.9 * soft(blob, pixel), muscle + 0.05)


def _above_base(
    image: Floats,
    anatomy: np.random.Generator,
    dx: Floats,
    dy: Floats,
    outer: float,
    pixel: float,
    flow: Floats,
) -> None:
    """Atria and the roots of the vessels: bright ovals with thin dark walls, nothing labelled."""
    places = ((0.35, 0.45, 0.75), (-0.75, 0.35, 0.70), (-0.15, -0.25, 0.42), (-0.75, -0.55, 0.45))
    for right, down, radius in places:
        cx = (right + anatomy.uniform(-0.15, 0.15)) * outer
        cy = (down + anatomy.uniform(-0.15, 0.15)) * outer
        far = np.hypot((dx - cx) * anatomy.uniform(0.85, 1.25), dy - cy)
        inside = radius * outer * anatomy.uniform(0.85, 1.1) - far
        paint(image, soft(inside + 2.5, pixel), LUNG + 0.18)
        paint(image, soft(inside, pixel), BLOOD * anatomy.uniform(0.8, 1.05) + flow)


def _write_nifti(
    path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], spacing: tuple[float, float, float]
) -> None:
    """Write (slices, rows, columns) as the release does: x to the left, y to the back, z upwards,
    an sform of unit steps with code 2, no qform, millimetres in pixdim.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_shape(volume.shape[::-1])
    header["pixdim"][1:4] = spacing[::-1]
    header["sform_code"], header["qform_code"] = 2, 0
    header["srow_x"], header["srow_y"] = (-1, 0, 0, 0), (0, -1, 0, 0)
    header["srow_z"] = (0, 0, 1, 0)
    write_nifti(header, volume.transpose(2, 1, 0), path)
