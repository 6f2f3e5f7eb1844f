"""Prints the table of loading.md: training windows per CPU second, ours against a slice-wise one.

    python benchmarks/loading.py            160 slices of 256 × 216, windows of 3 at 224 × 224
    python benchmarks/loading.py --quick    a few seconds, to see that it works

Ours is `segweave.data.batches.Batches`, as training uses it: memory-mapped copies at the network's
size, one affine sampling of the whole batch, a draw for each sample. The peer has the shape of the
released loader, restated: each sample opens the three slices' archives, turns them one by one with
SciPy (a quarter turn and a flip, or a rotation, or nothing, 1/2, 1/4 and 1/4), and brings each to
the network's size by a cubic spline, its label by nearest neighbour.

Times are CPU seconds of one thread, methods interleaved; a ratio is to the peer's rate in the same
repetition. What both make of an unturned slice is compared first.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from scipy import ndimage

from segweave.data.augmentations.geometry import Geometry
from segweave.data.batches import Batches
from segweave.data.cache import Resized
from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter

Planes = NDArray[np.float32]
Run = Callable[[int, int], int]
"""(windows wanted, epoch) → windows made."""

FULL = Geometry(rotation=20, rot90=True, mirror="both")
RELEASED = Geometry(odds="released")
BATCH = 12


class SliceWise:
    """The peer: one archive a slice, everything done to one picture after another."""

    def __init__(self, folder: Path, volumes: int, slices: int, size: int) -> None:
        self.folder, self.volumes, self.slices, self.size = folder, volumes, slices, size
        self.chance = np.random.default_rng(0)

    def read(self, volume: int, index: int) -> tuple[Planes, NDArray[np.uint8]]:
        """A slice and its label; beyond the ends, the last one."""
        index = min(max(index, 0), self.slices - 1)
        with np.load(self.folder / f"{volume}-{index}.npz") as archive:
            return archive["image"], archive["label"]

    def sample(self, volume: int, index: int, *, turn: bool = True) -> tuple[torch.Tensor, ...]:
        """The window (3, size, size) around a slice, and its label."""
        read = [self.read(volume, index + step) for step in (-1, 0, 1)]
        pictures = [*(image for image, _ in read), read[1][1]]
        if turn:
            pictures = self.turned(pictures)
        height, width = pictures[0].shape
        factors = (self.size / height, self.size / width)
        orders = (3, 3, 3, 0)
        pictures = [
            ndimage.zoom(picture, factors, order=order)
            for picture, order in zip(pictures, orders, strict=True)
        ]
        image = np.stack(pictures[:3]).astype(np.float32)
        return torch.from_numpy(image), torch.from_numpy(pictures[3].astype(np.int64))

    def turned(self, pictures: list[NDArray]) -> list[NDArray]:
        """The released odds, one draw for all four pictures."""
        if self.chance.random() < 0.5:
            quarter, axis = int(self.chance.integers(4)), int(self.chance.integers(2))
            return [np.flip(np.rot90(p, quarter), axis).copy() for p in pictures]
        if self.chance.random() < 0.5:
            angle = int(self.chance.integers(-20, 20))
            return [ndimage.rotate(p, angle, order=0, reshape=False) for p in pictures]
        return pictures

    def run(self, wanted: int, epoch: int) -> int:
        """Make that many samples, in a random order."""
        order = np.random.default_rng(epoch).permutation(self.volumes * self.slices)
        for number in order[:wanted]:
            self.sample(*divmod(int(number), self.slices))
        return min(wanted, len(order))


def ours(resized: Resized, augmentation: Geometry | None) -> Run:
    """Batches as training takes them."""
    batches = Batches(resized, batch_size=BATCH, seed=0, augmentation=augmentation)

    def run(wanted: int, epoch: int) -> int:
        made = 0
        while made < wanted:
            for batch in batches.epoch(epoch):
                made += len(batch.keys)
                if made >= wanted:
                    break
            epoch += 1000
        return made

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small pictures, one repetition")
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    volumes, slices, own, size = (
        (2, 4, (40, 36), 32) if options.quick else (16, 10, (256, 216), 224)
    )
    repeat = 1 if options.quick else options.repeat
    few, many = (4, 8) if options.quick else (40, 480)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make(folder, volumes, slices, own)
        spec = InputSpec(size=(size, size), slices=3, normalisation="fixed", mean=(0.0,), sd=(1.0,))
        caches = {t: Resized(store, spec, dtype=t) for t in ("float32", "float16")}
        peer = SliceWise(folder / "slices", volumes, slices, size)
        compare(peer, caches["float32"])
        methods: dict[str, tuple[Run, int]] = {"slice-wise, SciPy": (peer.run, few)}
        for kind, resized in caches.items():
            methods[f"ours, released odds, {kind}"] = (ours(resized, RELEASED), many)
            methods[f"ours, every sample turned and mirrored, {kind}"] = (ours(resized, FULL), many)
            methods[f"ours, no augmentation, {kind}"] = (ours(resized, None), many)
        rates = measure(methods, repeat)
    base = rates["slice-wise, SciPy"]
    print("| loader | windows per CPU second | ratio: median [smallest .. largest] |")
    print("| --- | ---: | ---: |")
    for title, found in rates.items():
        ratios = [one / other for one, other in zip(found, base, strict=True)]
        spread = f"{median(ratios):.1f} [{min(ratios):.1f} .. {max(ratios):.1f}]"
        print(f"| {title} | {median(found):.0f} | {spread} |")
    print(
        f"\n{volumes * slices} slices of {own[0]} × {own[1]}, windows of 3 at {size} × {size}, "
        f"batches of {BATCH}; {repeat} repetition(s) after one that is left out, one thread. "
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}."
    )


def make(folder: Path, volumes: int, slices: int, size: tuple[int, int]) -> Store:
    """Smooth noise, once as a store and once as an archive a slice."""
    chance = np.random.default_rng(0)
    (folder / "slices").mkdir()
    target = TargetSpec(names=("background", "a", "b", "c"))
    with StoreWriter(folder / "store", name="made", target=target) as writer:
        for volume in range(volumes):
            image = np.stack([smooth(chance, size, 1) for _ in range(slices)]).astype(np.float32)
            label = np.stack([smooth(chance, size, 4) for _ in range(slices)]).astype(np.uint8)
            for index in range(slices):
                file = folder / "slices" / f"{volume}-{index}.npz"
                np.savez(file, image=image[index], label=label[index])
            writer.add(Case(f"{volume:02}", f"{volume:02}", image[:, None], label, stack="space"))
        writer.finish()
    return Store(folder / "store")


def smooth(chance: np.random.Generator, size: tuple[int, int], scale: float) -> NDArray:
    coarse = chance.random((size[0] // 8 + 1, size[1] // 8 + 1)) * scale
    return ndimage.zoom(coarse, 8, order=1)[: size[0], : size[1]]


def compare(peer: SliceWise, resized: Resized) -> None:
    """Stop where the two do not show the same windows: their grids differ by less than a pixel, so
    the pictures are alike but not equal.
    """
    batches = Batches(resized, batch_size=1, seed=0, shuffle=False)
    batch = batches.batch([(resized.ids[0], 1)], 0)
    image, label = peer.sample(0, 1, turn=False)
    for mine, other in zip(batch.image[0, :, 0], image, strict=True):
        alike = float(np.corrcoef(mine.numpy().ravel(), other.numpy().ravel())[0, 1])
        if alike < 0.95:
            raise SystemExit(f"the loaders show different pictures (correlation {alike:.3f})")
    same = float((batch.label[0] == label).float().mean())
    if same < 0.8:
        raise SystemExit(f"the loaders show different labels ({same:.2f} of the pixels agree)")


def measure(methods: dict[str, tuple[Run, int]], repeat: int) -> dict[str, list[float]]:
    """Windows per CPU second of each method, in turn, so that all meet the same machine."""
    rates: dict[str, list[float]] = {title: [] for title in methods}
    for epoch in range(repeat + 1):
        for title, rate in one_round(methods, epoch):
            if epoch:
                rates[title].append(rate)
    return rates


def one_round(methods: dict[str, tuple[Run, int]], epoch: int) -> Iterator[tuple[str, float]]:
    for title, (run, wanted) in methods.items():
        start = time.process_time()
        made = run(wanted, epoch)
        yield title, made / max(time.process_time() - start, 1e-9)


if __name__ == "__main__":
    main()
