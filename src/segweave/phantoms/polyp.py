"""A colonoscopy phantom: synthetic videos of polyps, written as the releases of ClinicDB, ColonDB,
ETIS-Larib, EndoScene and Kvasir-SEG are, or as PraNet's authors packed them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segweave.datasets.cvc_clinicdb import shipped_sequences
from segweave.datasets.published_splits import load_split
from segweave.errors import UsageError, nearest
from segweave.phantoms.colon import Camera, Scene, draw_path, draw_scene, render
from segweave.phantoms.writing import write_picture
from segweave.runtime.randomness import numpy_stream

Pixels = NDArray[np.uint8]
LAYOUTS = ("cvc-clinicdb", "cvc-colondb", "etis-larib", "cvc-endoscene", "kvasir-seg", "pranet")


def write_polyps(
    out: str | Path,
    videos: int = 6,
    frames: int = 8,
    seed: int = 0,
    *,
    layout: str = "cvc-clinicdb",
    size: tuple[int, int] = (288, 384),
    ending: str = "",
) -> Path:
    """Write `videos` synthetic sequences of up to `frames` frames of `size` (rows, columns), each
    of one polyp, in a release's raw layout.

    `cvc-clinicdb`: Original/N.png and Ground Truth/N.png (`ending="tif"`: TIFF), N within the spans
    of that set's sequences, so that every part of its split gets some. `cvc-colondb`: N.tiff and
    pN.tiff. `etis-larib`: ETIS-LaribPolypDB/N.tif and Ground Truth/pN.tif. `cvc-endoscene`:
    CVC-300 and CVC-612 with bbdd and gtpolyp. `kvasir-seg`: images and masks as JPEG of different
    sizes, with text and a black box. `pranet`: TrainDataset and TestDataset with ClinicDB and
    Kvasir. Masks hold 0 and 255. The same arguments give the same pixels. Returns `out`.
    """
    if layout not in LAYOUTS:
        raise UsageError(
            "making polyp phantoms", found=repr(layout), remedy=nearest(layout, LAYOUTS)
        )
    if not (1 <= videos <= 29 and 1 <= frames <= 25) or min(size) < 24:
        raise UsageError(
            "making polyp phantoms",
            expected="1 to 29 videos of 1 to 25 frames of at least 24 × 24 pixels",
            found=f"{videos} videos of {frames} frames of {size[0]} × {size[1]}",
        )
    folder = Path(out)
    spans = [shipped_sequences()[0][name] for name in _chosen(videos)]
    for number, (first, last) in enumerate(spans):
        count = min(frames, last - first + 1)
        start = first if layout in ("cvc-clinicdb", "pranet") else 1 + number * frames
        if layout != "kvasir-seg":
            for index, (image, mask) in enumerate(_video(seed, number, count, size)):
                _frame(layout, folder, number, start + index, ending, image, mask)
        if layout in ("kvasir-seg", "pranet"):
            for index in range(count):
                name = f"{seed}-{number}-{index}"
                image, mask = _still(seed, name, size)
                _kvasir(layout, folder, number, index, image, mask)
    return folder


def _chosen(count: int) -> list[str]:
    """Sequences of ClinicDB that fall into the parts of its split by about 2 : 1 : 1."""
    parts = load_split("cvc-clinicdb").parts
    valid = min(len(parts["valid"]), count // 4 or int(count >= 3))
    test = min(len(parts["test"]), count // 4 or int(count >= 2))
    train = min(len(parts["train"]), count - valid - test)
    chosen = [*parts["train"][:train], *parts["valid"][:valid], *parts["test"][:test]]
    spare = [name for names in parts.values() for name in names if name not in chosen]
    return sorted([*chosen, *spare[: count - len(chosen)]])


def _video(
    seed: int, number: int, frames: int, size: tuple[int, int]
) -> list[tuple[Pixels, Pixels]]:
    stream = numpy_stream(seed, "phantom", case=f"video{number}")
    scene = draw_scene(stream, size[0])
    border = _octagon(stream, size)
    pictures = []
    for camera in draw_path(stream, frames):
        pictures.append(_picture(*_seen(scene, camera, stream, size, border), border))
    return pictures


def _still(seed: int, name: str, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """A picture as Kvasir's: of any size, with text at the left and a box below it."""
    stream = numpy_stream(seed, "phantom", case=f"still{name}")
    its_size = (
        round(size[0] * stream.uniform(0.8, 1.2)),
        round(size[1] * stream.uniform(0.75, 1.1)),
    )
    scene = draw_scene(stream, its_size[0])
    border = _octagon(stream, its_size, 0.01)
    camera = draw_path(stream, 1)[0]
    image, inside = _seen(scene, camera, stream, its_size, border)
    pixels, mask = _picture(image, inside, border)
    return _overlaid(stream, pixels), mask


def _seen(
    scene: Scene,
    camera: Camera,
    stream: np.random.Generator,
    size: tuple[int, int],
    border: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The frame, with the camera turned back where the polyp would be out of sight."""
    image, inside = render(scene, camera, stream, size)
    if (inside & (border > 0.5)).mean() < 0.004:
        image, inside = render(scene, replace(camera, x=0.0, y=0.0), stream, size)
    return image, inside


def _picture(
    image: NDArray[np.float64], inside: NDArray[np.bool_], border: NDArray[np.float64]
) -> tuple[Pixels, Pixels]:
    shown = image * border[..., None] + 0.03 * (1 - border[..., None])
    mask = (inside & (border > 0.5)) * np.uint8(255)
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8), mask


def _octagon(
    stream: np.random.Generator, size: tuple[int, int], margin: float = 0.06
) -> NDArray[np.float64]:
    """The opening through which an endoscope sees: a rectangle with cut, rounded corners."""
    rows, columns = size
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    left, right = columns * (margin * stream.uniform(0.8, 2)), columns * (1 - margin)
    top, bottom = rows * margin * 0.7, rows * (1 - margin * 0.7)
    cut = stream.uniform(0.12, 0.24) * rows
    edges = np.stack([x - left, right - x, y - top, bottom - y])
    corners = [edges[a] + edges[b] - cut for a in (0, 1) for b in (2, 3)]
    inside = np.minimum(edges.min(axis=0), np.min(corners, axis=0) * 0.7)
    share: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(inside / 0.8, -30, 30)))
    return share


def _overlaid(stream: np.random.Generator, pixels: Pixels) -> Pixels:
    """Lines of text in the upper left, in some a box (of the endoscope's position) below."""
    rows = pixels.shape[0]
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(6, round(rows * 0.032)))
    lines = ["01/01/2000", "12:00:00", "CVP: 1/3", "D.F: 5", f"Gr:{int(stream.integers(9))} Ce:1"]
    for k, line in enumerate(lines[: int(stream.integers(2, 6))]):
        draw.text((0.01 * rows, (0.2 + 0.05 * k) * rows), line, fill=(215, 215, 215), font=font)
    if stream.uniform() < 0.5:
        wide, high = stream.uniform(0.28, 0.36) * rows, stream.uniform(0.28, 0.36) * rows
        draw.rectangle((0, rows - high, wide, rows), fill=(2, 20, 6))
        middle = (0.5 * wide, rows - 0.5 * high)
        points = [
            (middle[0] + 0.2 * wide * np.sin(2.2 * t), middle[1] + 0.35 * high * (t / 3 - 1))
            for t in np.linspace(0, 6, 20)
        ]
        draw.line(points, fill=(40, 190, 70), width=max(1, rows // 90))
    return np.asarray(picture)


def _frame(
    layout: str, folder: Path, number: int, frame: int, ending: str, image: Pixels, mask: Pixels
) -> None:
    """Write one frame of a video."""
    named = {
        "cvc-clinicdb": ("Original/{}", "Ground Truth/{}", ending or "png"),
        "cvc-colondb": ("{}", "p{}", "tiff"),
        "etis-larib": ("ETIS-LaribPolypDB/{}", "Ground Truth/p{}", "tif"),
        "cvc-endoscene": ("CVC-300/bbdd/{}", "CVC-300/gtpolyp/{}", "bmp"),
        "pranet": ("TrainDataset/image/{}", "TrainDataset/mask/{}", "png"),
    }
    one, other, kind = named[layout]
    if layout == "cvc-endoscene" and number % 2:
        one, other = one.replace("300", "612"), other.replace("300", "612")
    if layout == "pranet" and frame % 5 == 0:
        one, other = (f"TestDataset/CVC-ClinicDB/{part}/{{}}" for part in ("images", "masks"))

    write_picture(image, folder / f"{one.format(frame)}.{kind}")
    write_picture(mask, folder / f"{other.format(frame)}.{kind}")


def _kvasir(
    layout: str, folder: Path, number: int, index: int, image: Pixels, mask: Pixels
) -> None:
    name = f"cju{number:02d}qk{index:02d}wl35piu0993l0dewei2"
    root, kind = (folder, "jpg")
    one, other = "images", "masks"
    if layout == "pranet":
        root, kind = folder / "TrainDataset", "png"
        one, other = "image", "mask"
        if index % 5 == 4:
            root, one, other = folder / "TestDataset" / "Kvasir", "images", "masks"
    write_picture(image, root / one / f"{name}.{kind}")
    write_picture(mask, root / other / f"{name}.{kind}")
