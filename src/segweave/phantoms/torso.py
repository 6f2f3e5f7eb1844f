"""The anatomy of the abdominal phantom: a torso's shapes in mm and how one slice is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segweave.phantoms.thorax import Floats, paint, soft

AIR, LUNG, FAT, WATER, MUSCLE, BONE = -1000.0, -850.0, -105.0, 8.0, 58.0, 480.0
SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, GALLBLADDER, OESOPHAGUS = 1, 2, 3, 4, 5
LIVER, STOMACH, AORTA, VENA_CAVA, PANCREAS = 6, 7, 8, 9, 11

Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Torso:
    """A synthetic person, in mm from the middle of the torso at the height of the renal hilum; x
    runs to the left, y to the back, z upwards.

    `width` and `depth` are half axes of the body, `fat` the thickness under the skin, `grow` the
    size of the organs, `shift` (organ → mm) the offset of each from its usual position, `loops`
    the bowel: centre, radius and content in HU. `contrast` scales the enhancement of the blood.
    """

    width: float
    depth: float
    fat: float
    grow: float
    shift: dict[int, Point]
    loops: tuple[tuple[Point, float, float], ...]
    contrast: float
    dome: float
    level: float

    @classmethod
    def draw(cls, stream: np.random.Generator) -> Torso:
        """A torso drawn from `stream`."""
        u = stream.uniform
        width = float(u(148, 178))
        depth = width * float(u(0.68, 0.76))
        loops = []
        for _ in range(60):
            around = float(u(0, 2 * np.pi))
            far = float(u(0.2, 0.78))
            centre = (
                far * width * np.cos(around) * 0.95 + 12,
                -0.12 * depth + 0.52 * far * depth * np.sin(around),
                float(u(-110, 40) - 30 * (np.cos(around) < -0.1)),
            )
            content = float(stream.choice([-880.0, 15.0, 45.0, -60.0], p=[0.3, 0.25, 0.25, 0.2]))
            loops.append((centre, float(u(11, 21)), content))
        organs = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11)
        return cls(
            width=width,
            depth=depth,
            fat=float(u(9, 24)),
            grow=width / 160 * float(u(0.94, 1.06)),
            shift={organ: tuple(stream.uniform(-5, 5, 3).tolist()) for organ in organs},
            loops=tuple(loops),
            contrast=float(u(0.75, 1.25)),
            dome=float(u(108, 122)),
            level=float(u(-22, -2)),
        )


def paint_slice(
    torso: Torso,
    image: Floats,
    label: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    z: float,
    x: Floats,
    y: Floats,
    fine: Floats,
    pixel: float,
) -> None:
    """Paint Hounsfield units into `image` and released ids into `label` (rows, columns), at the
    height `z`. `x` and `y` are mm, a little warped; `fine` is texture of mean 0 and sd 1.
    """
    image[:] = AIR
    radius = (np.abs(x / torso.width) ** 2.4 + np.abs(y / torso.depth) ** 2.4) ** (1 / 2.4)
    body = (1 - radius) * torso.depth
    _table(image, torso, x, y, pixel)
    paint(image, soft(body + 1.5, pixel), 20.0)
    paint(image, soft(body, pixel), FAT + 6 * fine)
    side = torso.fat * (1 + 0.25 * np.abs(x) / torso.width)
    paint(image, soft(body - side, pixel), MUSCLE + 9 * fine)
    cavity = body - side - 11.0
    behind = 0.36 * torso.depth
    cavity = np.minimum(cavity, behind + 26 - y - 0.18 * np.abs(x) + 0.002 * x**2)
    paint(image, soft(cavity, pixel), FAT + 10 * fine)
    _ribs(image, body - side, x, y, z, pixel)
    cover = torso.dome - 62 * (np.hypot(x * 0.8, y - 12) / torso.depth) ** 2.2 - z
    paint(image, soft(np.minimum(cavity, -cover), pixel), LUNG + 40 * np.maximum(fine - 1, 0))
    inside = np.minimum(cavity - 2.0, cover)
    _bowel(image, torso, inside, x, y, z, fine, pixel)
    shapes = _organs(torso, x, y, z, inside, behind)
    _spine(image, x, y - behind, z, fine, pixel)
    for organ in (LIVER, SPLEEN, STOMACH, PANCREAS, GALLBLADDER, OESOPHAGUS, VENA_CAVA, AORTA,
                  RIGHT_KIDNEY, LEFT_KIDNEY):  # fmt: skip
        shape = shapes[organ]
        if float(shape.max()) <= 0:
            continue
        # A film of fat between neighbours, without which they would run into each other.
        film = 5.0 if organ in (RIGHT_KIDNEY, LEFT_KIDNEY) else 1.6
        paint(image, 0.8 * soft(shape + film, pixel), FAT)
        label[shape + film > 0] = 0
        paint(image, soft(shape, pixel), _inside(torso, organ, shape, y, fine))
        label[shape > 0] = organ


def _inside(torso: Torso, organ: int, shape: Floats, y: Floats, fine: Floats) -> Floats:
    """What an organ looks like, in HU."""
    blood = torso.contrast
    if organ == LIVER:
        vessels = 45 * blood * np.clip(fine - 1.6, 0, 1) * (shape > 6)
        return 60 + 45 * blood + 3 * fine + vessels
    if organ == STOMACH:
        content = np.where(y < torso.level - 38, -930.0, 12 + 12 * fine)
        return np.where(shape > 4.0, content, 75 + 5 * fine)
    if organ in (RIGHT_KIDNEY, LEFT_KIDNEY):
        cortex = np.clip(1 - np.abs(shape - 3) / 8, 0, 1)
        return 90 + 60 * blood + 50 * blood * cortex + 6 * fine
    plain = {
        SPLEEN: 60 + 58 * blood, PANCREAS: 45 + 45 * blood, GALLBLADDER: 10.0, OESOPHAGUS: 50.0,
        AORTA: 60 + 110 * blood, VENA_CAVA: 55 + 80 * blood,
    }  # fmt: skip
    return plain[organ] + (14 if organ == PANCREAS else 4) * fine


def _oval(x: Floats, y: Floats, z: float, centre: Point, radii: Point, turn: float = 0.0) -> Floats:
    """Signed distance in mm (positive inside, right near the surface) of an ellipsoid that is
    turned by `turn` radians in the slice.
    """
    dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    squares = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 + (dz / radii[2]) ** 2
    radius = np.sqrt(squares)
    slope = np.sqrt(
        (along / radii[0] ** 2) ** 2 + (across / radii[1] ** 2) ** 2 + (dz / radii[2] ** 2) ** 2
    )
    distance: Floats = (1 - radius) * radius / np.maximum(slope, 1e-6)
    return distance


def _organs(
    torso: Torso, x: Floats, y: Floats, z: float, inside: Floats, behind: float
) -> dict[int, Floats]:
    """Signed distances of all organs."""
    g = torso.grow

    def at(organ: int, *position: float) -> Point:
        off = torso.shift[organ]
        return position[0] * g + off[0], position[1] * g + off[1], position[2] * g + off[2]

    def oval(organ: int, position: Point, radii: Point, turn: float = 0.0) -> Floats:
        return _oval(
            x, y, z, at(organ, *position), (radii[0] * g, radii[1] * g, radii[2] * g), turn
        )

    front = (behind - 32) / g
    kidneys = {}
    for organ, sign, low in ((LEFT_KIDNEY, 1.0, -14.0), (RIGHT_KIDNEY, -1.0, -26.0)):
        whole = oval(organ, (62 * sign, front + 26, low), (26, 31, 54), -0.5 * sign)
        hilum = oval(organ, (46 * sign, front + 14, low), (15, 9, 24), 0.6 * sign)
        kidneys[organ] = np.minimum(whole, -hilum)
    right = oval(LIVER, (-68, -10, 38), (82, 86, 84))
    left = oval(LIVER, (2, -52, 58), (72, 34, 42), 0.15)
    liver = np.minimum(np.maximum(right, left), inside - 1)
    fissure = np.hypot(x - at(LIVER, -28, 0, 0)[0] + 0.2 * y, 0.35 * (z - 18)) - 5
    liver = np.where(y > -30, liver, np.minimum(liver, fissure))
    liver = np.minimum(liver, -oval(LIVER, (-6, front - 4, 20), (42, 40, 70)))
    hollow = oval(SPLEEN, (66, 8, 42), (40, 46, 80))
    spleen = np.minimum(oval(SPLEEN, (98, 30, 44), (40, 58, 52), -0.5), -hollow)
    stomach = np.maximum(
        np.maximum(
            oval(STOMACH, (56, 6, 74), (32, 34, 32)), oval(STOMACH, (54, -36, 38), (32, 27, 46))
        ),
        oval(STOMACH, (14, -50, 2), (38, 17, 20), 0.25),
    )
    return {
        **kidneys,
        LIVER: liver,
        SPLEEN: np.minimum(spleen, inside - 1),
        STOMACH: np.minimum(stomach, inside - 1),
        PANCREAS: np.minimum(_tube(torso, x, y, z, front), inside - 1),
        GALLBLADDER: np.minimum(oval(GALLBLADDER, (-48, -46, -4), (14, 22, 26), 0.5), inside - 1),
        OESOPHAGUS: oval(OESOPHAGUS, (16, front - 8, 105), (8, 7, 50)),
        AORTA: _oval(x, y, 0, (torso.shift[AORTA][0] * 0.6 + 10, behind - 27, 0), (10, 10, 1e4)),
        VENA_CAVA: _oval(x, y, 0, (torso.shift[9][0] * 0.6 - 17, behind - 26, 0), (13, 9, 1e4)),
    }


def _tube(torso: Torso, x: Floats, y: Floats, z: float, front: float) -> Floats:
    """The pancreas: from its head, right of the middle, up to its tail near the spleen."""
    best = np.full(x.shape, -1e3)
    off = torso.shift[PANCREAS]
    for t in np.linspace(0, 1, 15):
        centre = (
            (-34 + 112 * t) * torso.grow + off[0],
            (front - 12 - 22 * np.sin(np.pi * min(1.0, t * 1.2)) + 18 * t) * torso.grow + off[1],
            (-16 + 46 * t) * torso.grow + off[2],
        )
        size = (13.0 - 4.0 * t) * torso.grow
        far = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        best = np.maximum(best, size - far)
    return best


def _spine(image: Floats, x: Floats, y: Floats, z: float, fine: Floats, pixel: float) -> None:
    """A vertebra or a disc with canal, arch and spinous process, and the muscles beside it."""
    for sign in (-1.0, 1.0):
        back = _oval(x, y, 0, (sign * 34, 42, 0), (33, 23, 1e4), sign * 0.25)
        paint(image, soft(back, pixel), MUSCLE + 12 * fine)
        if z < 0:
            psoas = _oval(x, y, 0, (sign * 34, 6, 0), (12 - 0.08 * z, 15 - 0.08 * z, 1e4))
            paint(image, soft(psoas, pixel), MUSCLE + 6 * fine)
    phase = (z / 33.0) % 1.0
    disc = phase > 0.76
    vertebra = _oval(x, y, 0, (0, 0, 0), (22, 17, 1e4))
    paint(image, soft(vertebra, pixel), 95.0 if disc else 330 + 60 * fine)
    if not disc:
        paint(image, soft(vertebra - 2.5, pixel), 190 + 55 * fine)
    if phase < 0.72:
        wings = _oval(x, y, 0, (0, 24, 0), (30 if 0.2 < phase < 0.5 else 17, 11, 1e4))
        paint(image, soft(wings, pixel), BONE - 130 + 60 * fine)
    if phase < 0.6:
        process = _oval(x, y, 0, (0, 44, 0), (4.5, 20, 1e4))
        paint(image, soft(process, pixel), BONE - 100 + 60 * fine)
    paint(image, soft(_oval(x, y, 0, (0, 23, 0), (9, 7.5, 1e4)), pixel), 30.0)


def _ribs(image: Floats, wall: Floats, x: Floats, y: Floats, z: float, pixel: float) -> None:
    """Ribs cut across: bright dashes in the wall, which wander forwards on the way down."""
    angle = np.arctan2(y, np.abs(x))
    middle = 6.0 - wall
    for number in range(7):
        # A rib is low in front and high behind.
        where = 1.25 - 0.34 * number - 0.011 * (z - 10)
        if where < -0.75 - 0.004 * z or where > 1.3:
            continue
        far = np.hypot((angle - where) * 95, 1.9 * middle)
        paint(image, soft(8.5 - far, pixel), BONE)
        paint(image, soft(4.0 - far, pixel), 170.0)


def _bowel(
    image: Floats,
    torso: Torso,
    inside: Floats,
    x: Floats,
    y: Floats,
    z: float,
    fine: Floats,
    pixel: float,
) -> None:
    """Loops with a wall, filled with gas, fluid or mottled stool."""
    for centre, radius, content in torso.loops:
        if abs(z - centre[2]) > 2.2 * radius:
            continue
        loop = _oval(x, y, z, centre, (1.2 * radius, radius, 2.1 * radius), centre[0] / 60)
        loop = np.minimum(loop, inside - 1)
        if float(loop.max()) <= 0:
            continue
        paint(image, soft(loop, pixel), 55 + 8 * fine)
        mottled = 130 * fine if content == -60.0 else 8 * fine
        gas = content < -500
        held = np.where(y < centre[1] + 0.3 * radius, content, 20.0) if gas else content + mottled
        paint(image, soft(loop - 2.5, pixel), held)


def _table(image: Floats, torso: Torso, x: Floats, y: Floats, pixel: float) -> None:
    """The couch under the back."""
    curve = torso.depth + 9 - 0.0011 * x**2 - y
    band = np.minimum(3.0 - np.abs(curve), 1.25 * torso.width - np.abs(x))
    paint(image, 0.6 * soft(band, pixel), 0.0)
