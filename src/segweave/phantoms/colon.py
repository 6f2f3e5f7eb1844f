"""The inside of the synthetic colon: its wall with folds, vessels and a polyp, seen by a moving
camera with a lamp beside the lens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from segweave.phantoms.thorax import Floats, smooth_noise

_WALLS = (
    (0.78, 0.36, 0.21),
    (0.82, 0.47, 0.27),
    (0.68, 0.30, 0.22),
    (0.82, 0.50, 0.26),
    (0.52, 0.40, 0.28),
    (0.84, 0.36, 0.29),
    (0.72, 0.40, 0.32),
)
_EXTENT = 3.2
_LAMP = np.array([0.12, -0.08])


@dataclass(frozen=True)
class Scene:
    """A part of the colon. Lengths are in units of the frame's height.

    `fields` are smooth noises on a square of `_EXTENT` around the polyp at (0, 0): lumps, vessels,
    grain and redness. The polyp has half axes `polyp` (across, along), `turn` and height `rise`;
    `lumen` is where the tube runs away from the camera, `folds` their spacing, phase and height.
    """

    wall: Floats
    fields: Floats
    polyp: tuple[float, float]
    turn: float
    rise: float
    waves: Floats
    lumen: tuple[float, float]
    folds: tuple[float, float, float]
    shift: Floats
    redness: float
    stool: float


@dataclass(frozen=True)
class Camera:
    """Where the camera looks in one frame: the polyp's position in the frame, scale and turn, lamp
    strength and blur (pixels at 288 rows).
    """

    x: float
    y: float
    zoom: float
    turn: float
    lamp: float
    blur: float


def draw_scene(stream: np.random.Generator, pixels: int) -> Scene:
    """A part of the colon whose noises suit frames of so many rows."""
    u = stream.uniform
    count = max(48, int(_EXTENT * pixels * 0.8))
    per = count / _EXTENT
    shape = (count, count)
    widths = (0.16, 0.075, 0.014, 0.3)
    fields = np.stack([smooth_noise(stream, shape, (w * per, w * per)) for w in widths])
    wall = np.array(_WALLS[int(stream.integers(len(_WALLS)))]) * u(0.85, 1.08)
    long = u(0.10, 0.24)
    direction = u(0, 2 * np.pi)
    away = u(0.55, 0.95)
    return Scene(
        wall=wall,
        fields=fields,
        polyp=(long * u(0.65, 1.0), long),
        turn=u(0, np.pi),
        rise=u(0.05, 0.14),
        waves=stream.normal(0, 1, (4, 2)),
        lumen=(away * np.cos(direction), away * np.sin(direction)),
        folds=(u(0.24, 0.42), u(0, 6.3), u(0.015, 0.05)),
        shift=np.array([1.0, u(0.84, 1.02), u(0.8, 1.05)]),
        redness=u(-0.02, 0.16),
        stool=u(1.6, 3.4),
    )


def draw_path(stream: np.random.Generator, frames: int) -> list[Camera]:
    """A camera that wanders smoothly around the polyp: `frames` views."""
    smooth = gaussian_filter(stream.standard_normal((5, frames + 40)), (0, 5), mode="reflect")
    walk = smooth[:, 20 : 20 + frames] / (smooth.std(axis=1, keepdims=True) + 1e-9)
    zoom = float(stream.uniform(0.75, 1.25))
    lamp = float(stream.uniform(0.85, 1.25))
    return [
        Camera(
            x=0.17 * walk[0, k],
            y=0.11 * walk[1, k],
            zoom=zoom * float(np.exp(0.22 * walk[2, k])),
            turn=0.35 * walk[3, k],
            lamp=lamp,
            blur=0.7 + 0.9 * max(0.0, walk[4, k] - 0.6),
        )
        for k in range(frames)
    ]


def render(
    scene: Scene, camera: Camera, stream: np.random.Generator, size: tuple[int, int]
) -> tuple[Floats, NDArray[np.bool_]]:
    """The picture (rows, columns, 3) in 0..1 and where the polyp is; `stream` draws its noise."""
    rows, columns = size
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    fx, fy = (x - columns / 2) / rows, (y - rows / 2) / rows
    # Frame → wall: the polyp's middle is at (camera.x, camera.y) of the frame.
    dx, dy = (fx - camera.x) / camera.zoom, (fy - camera.y) / camera.zoom
    c, s = np.cos(camera.turn), np.sin(camera.turn)
    u, v = c * dx + s * dy, -s * dx + c * dy
    lumps, veins, grain, red = _sample(scene.fields, u, v)
    far = np.hypot(u - scene.lumen[0], v - scene.lumen[1])
    warped = far + 0.06 * lumps
    depth = np.clip(0.42 - warped, 0, None) * 3.0
    inside, bump = _polyp(scene, u, v, lumps)
    gap, phase, rise = scene.folds
    ridges = np.exp(-((np.sin(np.pi * warped / gap + phase) / 0.42) ** 2))
    smoothed = 1 - np.clip(bump * 3, 0, 1)
    height = rise * ridges * np.clip(1.6 - 0.5 * far, 0.2, 1) * smoothed
    height += 0.028 * lumps + 0.0012 * grain + bump - 0.28 * depth
    step = rows * camera.zoom
    gy, gx = np.gradient(gaussian_filter(height, 0.012 * rows))
    gy, gx = gy * step / camera.zoom, gx * step / camera.zoom
    norm = np.sqrt(1 + gx**2 + gy**2)
    # The lamp sits beside the lens, so that light falls off from the middle and with distance.
    lx, ly = fx - _LAMP[0], fy - _LAMP[1]
    toward = np.stack([-lx, -ly, np.full_like(lx, 0.85)])
    toward /= np.linalg.norm(toward, axis=0)
    facing = np.clip((-gx * toward[0] - gy * toward[1] + toward[2]) / norm, 0, 1)
    # What other walls throw back reaches the shade.
    lambert = 0.24 + 0.76 * facing
    near = 1 / (0.62 + 2.0 * (lx**2 + ly**2) + 2.2 * depth + 0.6 * depth**2)
    light = camera.lamp * lambert**1.1 * near * camera.zoom**0.35
    colour = scene.wall * (1 + 0.05 * lumps + 0.025 * grain)[..., None]
    vessels = np.exp(-((veins / 0.07) ** 2)) * np.clip(red + 0.3, 0, 1.2) * (1 - inside)
    colour = colour * (1 - np.array([0.10, 0.26, 0.24]) * vessels[..., None])
    colour *= 1 - np.array([0.0, 0.07, 0.06]) * np.clip(red, -1, 2)[..., None]
    blush = scene.redness * inside * (1 + 0.4 * grain.clip(-2, 2) * 0.5)
    colour *= 1 - np.array([-0.15, 1.0, 0.9]) * blush[..., None]
    stool = np.clip(2.5 * (lumps * 0.6 + red - scene.stool), 0, 0.8) * (1 - inside)
    colour = colour * (1 - stool[..., None]) + stool[..., None] * np.array([0.75, 0.55, 0.12])
    image = 1.35 * colour * light[..., None] * scene.shift
    image += _highlights(gx, gy, norm, toward, grain, near * np.clip(0.55 + 0.9 * red, 0, 1))[
        ..., None
    ]
    image = 1 - np.exp(-1.55 * np.clip(image, 0, None))
    blur = camera.blur * rows / 288
    image = gaussian_filter(image, (blur, blur, 0))
    noise = gaussian_filter(stream.standard_normal(image.shape), (0.5, 0.5, 0.3))
    return np.clip(image + 0.012 * noise, 0, 1), inside > 0.5


def _sample(fields: Floats, u: Floats, v: Floats) -> Floats:
    """The noises at wall coordinates, mirrored beyond their square."""
    count = fields.shape[1]
    position = np.stack([(v / _EXTENT + 0.5) * count, (u / _EXTENT + 0.5) * count])
    return np.stack([map_coordinates(f, position, order=1, mode="mirror") for f in fields])


def _polyp(scene: Scene, u: Floats, v: Floats, lumps: Floats) -> tuple[Floats, Floats]:
    """(the share of each pixel inside the polyp, its height over the wall)."""
    c, s = np.cos(scene.turn), np.sin(scene.turn)
    pu, pv = c * u + s * v, -s * u + c * v
    angle = np.arctan2(pv, pu)
    wobble = 1 + sum(
        (0.07 * a * np.cos((n + 2) * angle) + 0.07 * b * np.sin((n + 2) * angle)) / (n + 1)
        for n, (a, b) in enumerate(scene.waves)
    )
    reach = np.hypot(pu / scene.polyp[0], pv / scene.polyp[1]) / wobble
    inside = 1 / (1 + np.exp(np.clip((reach - 1) / 0.015, -40, 40)))
    dome = np.clip(1 - reach**2, 0, None) ** 0.7
    rim = 0.12 * np.exp(-(((reach - 1.12) / 0.14) ** 2))
    knobs = 1 + 0.10 * lumps * dome
    bump: Floats = scene.rise * (dome * knobs - rim)
    return inside, bump


def _highlights(
    gx: Floats, gy: Floats, norm: Floats, toward: Floats, grain: Floats, near: Floats
) -> Floats:
    """The lamp's mirror image on the wet wall: small, ragged and saturated."""
    half = toward + np.array([0.0, 0.0, 1.0])[:, None, None]
    half /= np.linalg.norm(half, axis=0)
    wet = 0.07 * grain
    facing = (-(gx + wet) * half[0] - (gy - wet) * half[1] + half[2]) / np.sqrt(
        norm**2 + 2 * wet**2
    )
    shine = np.clip(facing, 0, 1) ** 300
    return 3.4 * np.clip(shine - 0.5, 0, 1) * np.clip(near, 0, 1)
