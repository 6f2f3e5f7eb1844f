"""Prints the table of metrics.md: all distances of all classes, ours against medpy and
surface-distance, in one process.

    python benchmarks/metrics.py            volumes of 10 × 224 × 224, images of 352 × 352
    python benchmarks/metrics.py --large    100 × 512 × 512 beside them (peers on one class, × 8)
    python benchmarks/metrics.py --tiny     a few seconds, to see that it works

Times are CPU seconds of one thread, methods interleaved. Values are compared before any ratio: our
plain distances with medpy's, those by area with surface-distance's.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import scipy
import surface_distance as peer_by_area
from medpy.metric import binary
from numpy.typing import NDArray

from segweave.metrics import confusion, surface_distances
from segweave.metrics.area import area_distances

Labels = NDArray[np.uint8]
Pair = tuple[Labels, Labels]
Values = NDArray[np.float64]
MOST_APART = 1e-6
TOLERANCE = 2.0
MEDPY, BY_AREA = "medpy", "surface-distance"


@dataclass(frozen=True)
class Setting:
    """One column of the table; peers run on the first `peer_classes` and are scaled up."""

    title: str
    pairs: list[Pair]
    classes: int
    spacing: tuple[float, ...]
    peer_classes: int


Method = Callable[[Setting, Sequence[int]], Values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="add 100 × 512 × 512")
    parser.add_argument("--tiny", action="store_true", help="small arrays, one repetition")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    # The peer calls names that SciPy is about to drop, and says so each time.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    repeat = 1 if options.tiny else options.repeat
    settings = list(make_settings(options.tiny, options.large))
    titles = {
        MEDPY: "medpy: dc, hd, hd95, asd, assd",
        BY_AREA: "surface-distance: asd both ways, hd, hd95, nsd, by area",
        "numpy": "ours, NumPy and SciPy",
        "compiled": "ours, compiled (numba)",
        "area": "ours, by area, compiled",
    }
    if not importlib.util.find_spec("numba"):
        titles = {name: titles[name] for name in (MEDPY, BY_AREA, "numpy")}
    columns = [measure(setting, list(titles), repeat) for setting in settings]
    print("| CPU ms · ratio to medpy [least .. greatest] · to surface-distance | ", end="")
    print(" | ".join(s.title for s in settings) + " |")
    print("| --- |" + " ---: |" * len(settings))
    for name, title in titles.items():
        print(f"| {title} | " + " | ".join(column[name] for column in columns) + " |")
    versions = [f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    versions += [f"SciPy {scipy.__version__}", platform.processor() or platform.machine()]
    print(
        f"\n{repeat} repetitions, medians; no value of ours is further than {MOST_APART} from the "
        f"peer's of its definition. {', '.join(versions)}."
    )


def measure(setting: Setting, methods: Sequence[str], repeat: int) -> dict[str, str]:
    """The cells of one column; stops where our values are not the peer's."""
    every, few = range(1, setting.classes + 1), range(1, setting.peer_classes + 1)
    calls: dict[str, Method] = {
        MEDPY: medpy_values,
        BY_AREA: peer_area_values,
        "numpy": lambda s, c: our_values(s, c, "numpy"),
        "compiled": lambda s, c: our_values(s, c, "compiled"),
        "area": our_area_values,
    }
    wanted = {peer: calls[peer](setting, few) for peer in (MEDPY, BY_AREA)}
    for name in methods[2:]:
        peer = BY_AREA if name == "area" else MEDPY
        found = calls[name](setting, every)[:, : setting.peer_classes]
        apart = np.nanmax(np.abs(found - wanted[peer]))
        if not apart <= MOST_APART or (np.isnan(found) != np.isnan(wanted[peer])).any():
            raise SystemExit(f"{setting.title}, {name}: values differ by {apart} from {peer}")
    scale = setting.classes / setting.peer_classes
    times: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(repeat):
        for name in methods:
            if name not in wanted:
                times[name].append(cpu_seconds(calls[name], setting, every))
            # The peers' minutes are not repeated where the arrays are large.
            elif scale == 1 or number == 0:
                times[name].append(scale * cpu_seconds(calls[name], setting, few))
    base, by_area = median(times[MEDPY]), median(times[BY_AREA])
    cells = {}
    for name, taken in times.items():
        ms = f"{1e3 * median(taken):,.1f}" if median(taken) < 0.1 else f"{1e3 * median(taken):,.0f}"
        spread = f"[{base / max(taken):,.0f} .. {base / min(taken):,.0f}]"
        ratios = f"{base / median(taken):,.0f} × {spread} · {by_area / median(taken):.1f} ×"
        cells[name] = ms if name in wanted else f"{ms} · {ratios}"
    return cells


def cpu_seconds(method: Method, setting: Setting, classes: Sequence[int]) -> float:
    start = time.process_time()
    method(setting, classes)
    return time.process_time() - start


def medpy_values(setting: Setting, classes: Sequence[int]) -> Values:
    """(pairs, classes, 5) by five calls a class."""
    return np.array(
        [
            [
                (
                    binary.dc(p == c, r == c),
                    binary.hd(p == c, r == c, setting.spacing),
                    binary.hd95(p == c, r == c, setting.spacing),
                    binary.asd(p == c, r == c, setting.spacing),
                    binary.assd(p == c, r == c, setting.spacing),
                )
                for c in classes
            ]
            for p, r in setting.pairs
        ]
    )


def our_values(setting: Setting, classes: Sequence[int], engine: str) -> Values:
    """The same numbers of all classes at once."""
    values = []
    for p, r in setting.pairs:
        counts = confusion(p, r, classes, engine=engine)  # type: ignore[arg-type]
        distances = surface_distances(p, r, setting.spacing, classes, engine=engine)  # type: ignore[arg-type]
        values.append(
            [
                (
                    counts[c].dice,
                    distances[c].hausdorff(),
                    distances[c].hausdorff95("pooled"),
                    distances[c].average(),
                    distances[c].average_symmetric(),
                )
                for c in classes
            ]
        )
    return np.array(values)


def peer_area_values(setting: Setting, classes: Sequence[int]) -> Values:
    """(pairs, classes, 5) by surface-distance: asd both ways, hd, hd95, nsd; nan without a side."""
    return np.array(
        [
            [peer_area_row(p == c, r == c, setting.spacing) for c in classes]
            for p, r in setting.pairs
        ]
    )


def peer_area_row(p: NDArray, r: NDArray, spacing: tuple[float, ...]) -> tuple[float, ...]:
    found = peer_by_area.compute_surface_distances(r, p, spacing)
    to_prediction, to_reference = peer_by_area.compute_average_surface_distance(found)
    return (
        to_reference,
        to_prediction,
        peer_by_area.compute_robust_hausdorff(found, 100),
        peer_by_area.compute_robust_hausdorff(found, 95),
        peer_by_area.compute_surface_dice_at_tolerance(found, TOLERANCE),
    )


def our_area_values(setting: Setting, classes: Sequence[int]) -> Values:
    """The same numbers of all classes at once."""
    values = []
    for p, r in setting.pairs:
        found = area_distances(p, r, setting.spacing, classes, engine="compiled")
        values.append(
            [
                (
                    *found[c].averages(),
                    found[c].hausdorff(),
                    found[c].hausdorff(95),
                    found[c].normalised(TOLERANCE),
                )
                for c in classes
            ]
        )
    return np.array(values)


def make_settings(tiny: bool, large: bool) -> list[Setting]:
    shape, classes = ((6, 48, 48), 3) if tiny else ((10, 224, 224), 8)
    spacing = (10.0, 1.25, 1.25)
    size, count = (64, 3) if tiny else (352, 20)
    name = " × ".join(map(str, shape))
    images = [make_pair((1, size, size), 1, seed, shift=4.0) for seed in range(count)]
    settings = [
        Setting(f"{name}, near", [make_pair(shape, classes, 1, 1.5)], classes, spacing, classes),
        Setting(
            f"{name}, far",
            [make_pair(shape, classes, 1, 5.0, strays=12)],
            classes,
            spacing,
            classes,
        ),
        Setting(
            f"{count} images {size} × {size}",
            [(p[0], r[0]) for p, r in images],
            1,
            (1.0, 1.0),
            1,
        ),
    ]
    if large:
        pair = make_pair((100, 512, 512), 8, 1, 1.5)
        settings.append(Setting("100 × 512 × 512, near", [pair], 8, (3.0, 0.75, 0.75), 1))
    return settings


def make_pair(
    shape: tuple[int, int, int], classes: int, seed: int, shift: float, strays: int = 0
) -> Pair:
    """(prediction, reference): every class a union of three lumpy ellipsoids in a cell of its own;
    the prediction moves and swells them by about `shift` voxels and adds `strays` far blobs.
    """
    generator = np.random.default_rng(seed)
    depth, height, width = shape
    across = int(np.ceil(np.sqrt(classes)))
    cell = np.array([depth, height / int(np.ceil(classes / across)), width / across])
    flat = np.array([min(1.0, 4 * depth / height), 1.0, 1.0])
    prediction, reference = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for c in range(1, classes + 1):
        middle = cell * [0.5, (c - 1) // across + 0.5, (c - 1) % across + 0.5]
        for _ in range(3):
            centre = middle + generator.normal(0, 1, 3) * cell * [0.06, 0.095, 0.095]
            radii = np.maximum(cell * generator.uniform([0.25, 0.2, 0.2], 0.33), [0.6, 2, 2])
            phases = generator.uniform(0, 2 * np.pi, 3)
            paint(reference, c, centre, radii, phases)
            centre = centre + generator.normal(0, shift, 3) * flat
            swollen = radii * (1 + generator.normal(0, shift / (0.4 * cell[1]), 3) * flat)
            paint(prediction, c, centre, np.maximum(swollen, 0.6), phases)
    for _ in range(strays):
        c = int(generator.integers(1, classes + 1))
        place = generator.uniform(0.1, 0.9, 3) * shape
        paint(prediction, c, place, np.maximum(np.array(shape) * 0.02, [1, 3, 3]), np.zeros(3))
    return prediction, reference


def paint(labels: Labels, c: int, centre: Values, radii: Values, phases: Values) -> None:
    """Give the class `c` to a lumpy ellipsoid."""
    low = np.maximum(np.floor(centre - 1.4 * radii), 0).astype(int)
    high = np.minimum(np.ceil(centre + 1.4 * radii) + 1, labels.shape).astype(int)
    if (high <= low).any():
        return
    axes = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    z, y, x = ((a - m) / r for a, m, r in zip(axes, centre, radii, strict=True))
    rim = 1 + 0.2 * np.sin(3 * y + phases[0]) * np.cos(2.5 * x + phases[1])
    rim = rim + 0.1 * np.sin(3 * z + 2 * x + phases[2])
    labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))][
        z**2 + y**2 + x**2 < rim**2
    ] = c


if __name__ == "__main__":
    main()
