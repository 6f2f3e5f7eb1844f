"""Prints the table of metrics.md: all distances of all classes, ours against medpy, in one process.

    python benchmarks/metrics.py            volumes of 10 × 224 × 224, images of 352 × 352
    python benchmarks/metrics.py --large    100 × 512 × 512 beside them (medpy on one class, × 8)
    python benchmarks/metrics.py --tiny     a few seconds, to see that it works

Times are CPU seconds of one thread, methods interleaved; values are compared before any ratio.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from medpy.metric import binary
from numpy.typing import NDArray

from segweave.metrics import confusion, surface_distances

Labels = NDArray[np.uint8]
Pair = tuple[Labels, Labels]
Values = NDArray[np.float64]
MOST_APART = 1e-6


@dataclass(frozen=True)
class Setting:
    """One column of the table; medpy runs on the first `peer_classes` and is scaled up."""

    title: str
    pairs: list[Pair]
    classes: int
    spacing: tuple[float, ...]
    peer_classes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="add 100 × 512 × 512")
    parser.add_argument("--tiny", action="store_true", help="small arrays, one repetition")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    repeat = 1 if options.tiny else options.repeat
    settings = list(make_settings(options.tiny, options.large))
    methods = ["numpy"] + (["compiled"] if importlib.util.find_spec("numba") else [])
    print("| | " + " | ".join(s.title for s in settings) + " |")
    print("| --- |" + " ---: |" * len(settings))
    columns = [measure(setting, methods, repeat) for setting in settings]
    for k, row in enumerate(["medpy: dc, hd, hd95, asd, assd (ms)", *map(row_title, methods)]):
        print(f"| {row} | " + " | ".join(column[k] for column in columns) + " |")
    versions = [f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    versions += [f"SciPy {scipy.__version__}", platform.processor() or platform.machine()]
    print(
        f"\nRatio to medpy of the medians [smallest .. largest], {repeat} repetitions; the largest"
    )
    print(f"difference of any value is at most {MOST_APART}. {', '.join(versions)}.")


def row_title(method: str) -> str:
    return {"numpy": "ours, NumPy and SciPy", "compiled": "ours, compiled (numba)"}[method]


def measure(setting: Setting, methods: Sequence[str], repeat: int) -> list[str]:
    """The cells of one column; stops where the values are not medpy's."""
    classes = range(1, setting.classes + 1)
    peer_classes = range(1, setting.peer_classes + 1)
    wanted = medpy_values(setting, peer_classes)
    for method in methods:
        apart = np.abs(our_values(setting, classes, method)[:, : setting.peer_classes] - wanted)
        if apart.max() > MOST_APART:
            raise SystemExit(f"{setting.title}, {method}: values differ by {apart.max()}")
    scale = setting.classes / setting.peer_classes
    # medpy's minutes are not repeated where the arrays are large.
    peer_repeat = repeat if scale == 1 else 1
    peer, ours = [], {method: [] for method in methods}
    for _ in range(repeat):
        if len(peer) < peer_repeat:
            peer.append(scale * cpu_seconds(lambda: medpy_values(setting, peer_classes)))
        for method in methods:
            ours[method].append(cpu_seconds(lambda m=method: our_values(setting, classes, m)))
    cells = [f"{np.median(peer) * 1e3:.0f}"]
    for times in ours.values():
        ratios = np.median(peer) / np.array(times)
        cells.append(
            f"{np.median(times) * 1e3:.1f} ms, {np.median(ratios):.0f} × "
            f"[{ratios.min():.0f} .. {ratios.max():.0f}]"
        )
    return cells


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
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
        counts = confusion(p, r, classes)
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
