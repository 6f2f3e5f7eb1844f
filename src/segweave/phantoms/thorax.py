"""What surrounds the heart of the cardiac phantom, and what a scanner does to the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]

# Brightness in a balanced steady-state picture, blood = 1.
BLOOD, MUSCLE, FAT, LUNG, LIVER, AIR = 1.0, 0.34, 1.15, 0.05, 0.40, 0.0


def soft(distance: Floats, width: float) -> Floats:
    """The share of a pixel inside a shape, from its signed distance (positive inside) in mm."""
    share: Floats = 1.0 / (1.0 + np.exp(-np.clip(distance / (0.35 * width), -30, 30)))
    return share


def paint(image: Floats, share: Floats, value: Floats | float) -> None:
    """Lay `value` over `image` in the `share` (0..1), changing `image`."""
    image *= 1.0 - share
    image += share * value


def smooth_noise(
    stream: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]
) -> Floats:
    """Noise of that smoothness (in pixels), mean 0 and standard deviation 1.

    Very smooth noise is drawn on a coarser grid and interpolated, which costs a fraction.
    """
    coarse = [max(1, int(s / 3)) for s in sigma]
    small = tuple(-(-n // c) + 2 for n, c in zip(shape, coarse, strict=True))
    narrow = [s / c for s, c in zip(sigma, coarse, strict=True)]
    noise: Floats = gaussian_filter(stream.standard_normal(small), narrow, mode="reflect")
    for axis, step in enumerate(coarse):
        if step > 1:
            noise = _stretch(noise, axis, step, shape[axis])
    noise = noise[tuple(slice(n) for n in shape)]
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def _stretch(values: Floats, axis: int, step: int, length: int) -> Floats:
    """Linear interpolation along one axis, `step` times as fine, the first `length` of it."""
    position = np.arange(length) / step
    low = position.astype(int)
    weight = (position - low).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    first, second = values.take(low, axis), values.take(low + 1, axis)
    mixed: Floats = first + weight * (second - first)
    return mixed


def thorax(
    stream: np.random.Generator,
    depth: Floats,
    y: Floats,
    x: Floats,
    pixel: float,
    heart: float,
) -> Floats:
    """Brightness (slices, rows, columns) of a chest without its heart.

    `depth` (slices) and `y`, `x` (rows, columns) are mm from the heart's axis, whose outer radius
    is `heart`; the front of the chest is on the left, lung above, liver and bowel below.
    """
    shape = (len(depth), *y.shape)
    wavy = 6.0 * smooth_noise(stream, shape, (1.5, 22 / pixel, 22 / pixel))
    fine = smooth_noise(stream, shape, (0.4, 2.0 / pixel, 2.0 / pixel))
    z = depth[:, None, None]
    front = -heart * stream.uniform(2.0, 2.3) - 20
    # A chest as a barrel: it curves away above (the shoulder) more than below.
    above, below = stream.uniform(0.0045, 0.0075), stream.uniform(0.0005, 0.002)
    curve = np.where(y < 5, above, below) * (y - 5) ** 2
    body = np.minimum(
        np.broadcast_to(x, shape) - front + wavy - 0.22 * z - curve,
        120 + stream.uniform(-20, 10) - x - 0.1 * z + wavy,
    )
    fat_thickness = stream.uniform(10, 24)
    wall_thickness = stream.uniform(7, 11)
    image = np.full(shape, AIR)
    paint(image, soft(body, pixel), FAT + 0.04 * fine)
    ribs = 0.5 + 0.5 * np.sin(y / stream.uniform(4.2, 5.4) + stream.uniform(0, 6) + 0.25 * wavy)
    muscle = MUSCLE * 0.85 + 0.25 * ribs * (ribs > 0.8) + 0.03 * fine
    paint(image, soft(body - fat_thickness, pixel), muscle)
    chest = body - fat_thickness - wall_thickness
    # The diaphragm falls towards the right and rises towards the apex.
    fall = stream.uniform(0.05, 0.30)
    belly = y - (heart * stream.uniform(1.0, 1.2) - fall * x - 0.22 * z - 0.4 * wavy)
    paint(image, soft(chest, pixel), _lung(stream, shape, y, x, pixel))
    organs = _organs(stream, z, y, x, pixel, heart, wavy)
    paint(image, soft(np.minimum(chest, belly), pixel), organs + 0.03 * fine)
    edge = np.exp(-((np.where(chest > 0, belly, 99.0) / (1.1 * pixel)) ** 2))
    paint(image, 0.7 * edge, LUNG)
    # The descending aorta, behind the heart.
    centre = (heart * stream.uniform(1.2, 1.5), heart * stream.uniform(0.75, 1.1))
    aorta = stream.uniform(9, 12) - np.hypot(x - centre[0] - 0.05 * z, y - centre[1] + 0.05 * z)
    paint(image, soft(np.where(z < 45, aorta + 1.6, -9.0), pixel), LUNG + 0.1)
    paint(image, soft(np.where(z < 45, aorta, -9.0), pixel), BLOOD * stream.uniform(0.9, 1.15))
    return image


def _lung(
    stream: np.random.Generator, shape: tuple[int, ...], y: Floats, x: Floats, pixel: float
) -> Floats:
    """Dark, with vessels as bright spots, more of them near the heart."""
    spots = smooth_noise(stream, shape, (0.25, 1.3 / pixel, 1.3 / pixel))
    near = np.exp(-np.hypot(x, y) / 70.0)
    lung: Floats = LUNG + 0.025 * np.abs(spots) + 0.9 * np.clip(spots - 2.6 + 1.8 * near, 0, 1)
    return lung


def _organs(
    stream: np.random.Generator,
    z: Floats,
    y: Floats,
    x: Floats,
    pixel: float,
    heart: float,
    wavy: Floats,
) -> Floats:
    """Liver on the left, other organs on the right: cells around seeds, each of one brightness,
    with the dark line between water and fat that such pictures show.
    """
    count = 22
    warp = 9.0 * smooth_noise(stream, wavy.shape, (1.0, 7 / pixel, 7 / pixel))
    seeds = np.column_stack(
        [
            stream.uniform(-40, 140, count),
            stream.uniform(heart, heart + 110, count),
            stream.uniform(-10, 130, count),
        ]
    )
    values = stream.choice([0.2, 0.35, 0.5, 0.62, 0.95, 1.1], count) * stream.uniform(
        0.9, 1.1, count
    )
    best = np.full(wavy.shape, 1e9)
    second = np.full(wavy.shape, 1e9)
    value = np.zeros(wavy.shape)
    for (depth, down, right), brightness in zip(seeds, values, strict=True):
        far = np.hypot(np.hypot(x - right + warp, y - down - warp - wavy), 0.7 * (z - depth))
        closer = far < best
        second = np.where(closer, best, np.minimum(second, far))
        value = np.where(closer, brightness, value)
        best = np.where(closer, far, best)
    gap = second - best
    mottled = smooth_noise(stream, wavy.shape, (0.5, 2.5 / pixel, 2.5 / pixel))
    value *= 1.0 + 0.14 * mottled
    # Fat fills the gaps between organs, behind a dark line.
    paint(value, 0.9 * soft(7.0 - gap + 2 * mottled, pixel), 0.12)
    paint(value, 0.9 * soft(4.0 - gap + 2 * mottled, pixel), 0.85 * FAT)
    vessels = smooth_noise(stream, wavy.shape, (0.3, 1.6 / pixel, 1.6 / pixel))
    liver = LIVER * stream.uniform(0.85, 1.1) + 0.5 * np.clip(vessels - 2.3, 0, 0.8)
    border = heart * stream.uniform(0.2, 0.9) - 0.7 * z - x + 1.5 * wavy
    border = border - stream.uniform(0.2, 0.8) * (y - 1.5 * heart) + warp
    paint(value, soft(border, pixel), liver)
    return value


def scan(
    stream: np.random.Generator, image: Floats, y: Floats, x: Floats, pixel: float, noise: float
) -> Floats:
    """What the scanner makes of true brightness: the slow fall-off of the coils in front, blur of
    half a pixel, and Rician noise (the size of two noisy components) of `noise` times blood.
    """
    front = np.hypot(x + stream.uniform(95, 125), y + stream.uniform(-30, 30))
    coil = 1.35 / (1.0 + (front / stream.uniform(150, 230)) ** 2)
    tilt = 1.0 + stream.uniform(-0.002, 0.002) * y + stream.uniform(-0.001, 0.001) * x
    slow = 1.0 + 0.10 * smooth_noise(stream, y.shape, (60 / pixel, 60 / pixel))
    blurred = gaussian_filter(image * (coil * tilt * slow), (0.0, 0.55, 0.55))
    real = blurred + noise * stream.standard_normal(image.shape)
    imaginary = noise * stream.standard_normal(image.shape)
    return np.hypot(real, imaginary)
