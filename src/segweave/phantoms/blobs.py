"""A small colour phantom: one dark, ragged blob on textured skin, as folders of PNG images and
masks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from segweave.errors import UsageError
from segweave.phantoms.thorax import smooth_noise
from segweave.phantoms.writing import write_picture
from segweave.runtime.randomness import numpy_stream


def write_blobs(
    out: str | Path, images: int = 24, seed: int = 0, *, size: tuple[int, int] = (96, 128)
) -> Path:
    """Write `images` RGB pictures to `out`/images/blob_XXX.png and their masks (0 and 255) to
    `out`/masks/blob_XXX_segmentation.png, of `size` (rows, columns).

    Skin of any tone with texture, shading and hairs; a lesion of uneven colour whose edge is sharp
    or faint. The same arguments give the same pixels. Returns `out`.
    """
    if images < 1 or min(size) < 16:
        raise UsageError(
            "making blob phantoms",
            expected="at least 1 image of 16 × 16 pixels",
            found=f"{images} images of {size[0]} × {size[1]}",
        )

    folder = Path(out)
    for number in range(images):
        name = f"blob_{number:03d}"
        image, mask = _blob(numpy_stream(seed, "phantom", case=name), size)
        write_picture(image, folder / "images" / f"{name}.png")
        write_picture(mask * np.uint8(255), folder / "masks" / f"{name}_segmentation.png")
    return folder


def _blob(
    stream: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    unit = min(size) / 96
    y, x = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    light, pink = stream.uniform(0.62, 0.86), stream.uniform(0.03, 0.12)
    skin = np.array([light + pink, light - 0.6 * pink, light - pink])
    texture = 0.02 * smooth_noise(stream, size, (1.2 * unit, 1.2 * unit))
    shade = 0.05 * smooth_noise(stream, size, (26 * unit, 26 * unit))
    image = np.clip(skin + (texture + shade)[..., None], 0, 1)
    # An ellipse whose radius waves, with a ragged edge.
    cy, cx = size[0] * stream.uniform(0.4, 0.6), size[1] * stream.uniform(0.4, 0.6)
    radius = stream.uniform(14, 30) * unit
    turn, flat = stream.uniform(0, np.pi), stream.uniform(0.65, 1.0)
    dx, dy = x - cx, y - cy
    px, py = dx * np.cos(turn) + dy * np.sin(turn), -dx * np.sin(turn) + dy * np.cos(turn)
    angle = np.arctan2(py, px)
    waves = sum(
        stream.normal(0, 0.07) * np.cos(n * angle + stream.uniform(0, 6)) for n in range(2, 6)
    )
    ragged = stream.uniform(0.5, 1.8) * smooth_noise(stream, size, (2.5 * unit, 2.5 * unit))
    inside = radius * (1 + waves) - np.hypot(px, py / flat) + ragged * unit
    mask = (inside > 0).astype(np.uint8)
    width = stream.choice([0.8, 1.6, 3.5]) * unit
    share = 1 / (1 + np.exp(-np.clip(inside / width, -30, 30)))
    brown = skin * np.array([stream.uniform(0.5, 0.75), stream.uniform(0.35, 0.55), 0.4])
    patches = smooth_noise(stream, size, (6 * unit, 6 * unit))
    lesion = brown * (1 - 0.18 * np.clip(patches, -1, 2))[..., None] + texture[..., None]
    image = image * (1 - share[..., None]) + share[..., None] * lesion
    for _ in range(int(stream.integers(0, 9))):
        image *= 1 - _hair(stream, y, x, unit)[..., None]
    corner = np.hypot((y - size[0] / 2) / size[0], (x - size[1] / 2) / size[1])
    image *= (1 - stream.uniform(0.1, 0.5) * corner**2)[..., None]
    image = gaussian_filter(image, (0.5 * unit, 0.5 * unit, 0))
    image += 0.012 * stream.standard_normal(image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask


def _hair(
    stream: np.random.Generator, y: NDArray[np.int64], x: NDArray[np.int64], unit: float
) -> NDArray[np.float64]:
    """How much one curved hair darkens each pixel."""
    turn, bend = stream.uniform(0, np.pi), stream.normal(0, 0.004) / unit
    along = (x - stream.uniform(0, x.max())) * np.cos(turn) + (
        y - stream.uniform(0, y.max())
    ) * np.sin(turn)
    across = -(x - x.max() / 2) * np.sin(turn) + (y - y.max() / 2) * np.cos(turn)
    far = across - stream.uniform(-40, 40) * unit - bend * along**2
    ends = np.abs(along) < stream.uniform(20, 60) * unit
    dark: NDArray[np.float64] = 0.6 * np.exp(-((far / (0.7 * unit)) ** 2)) * ends
    return dark
