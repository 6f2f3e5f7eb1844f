"""Peak memory of the commands on one large volume: `python benchmarks/memory.py`.

Each command runs as a separate process, on a volume of 512 × 512 × 600 and on a tiny one; the
figure is the difference of their largest resident sizes, so that Python and the libraries do not
count. The label map has three ellipsoids of different classes, and predictions are the same ones
moved by three voxels. The network has random weights; it is small, so that the volume and not its
feature maps is what is measured. Prints the Markdown table of benchmarks/memory.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

import segweave
from segweave.data.specs import TargetSpec

LARGE, QUICK, TINY = (512, 512, 600), (96, 96, 60), (64, 64, 4)
NAMES = ("background", "class 1", "class 2", "class 3")
SETTINGS = {
    "network": {"name": "unet", "options": {"width": 4}},
    "context": {"name": "sa-lstm"},
    "weaving": {"at": "bottleneck"},
    "input": {"channels": ["grey"], "size": [128, 128], "slices": 3},
}
MEASURE = """
import os, resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(code, peak, time.monotonic() - start)
"""


def labels_of(size: tuple[int, int, int], moved: int) -> np.ndarray:
    """Three ellipsoids, one inside the other."""
    grid = np.ogrid[tuple(slice(n) for n in size)]
    distance = sum(((g - n / 2 - moved) / (n / 3)) ** 2 for g, n in zip(grid, size, strict=True))
    return sum((distance < limit).astype(np.uint8) for limit in (1.0, 0.5, 0.2))


def write(path: Path, values: np.ndarray, slope: float = 1.0) -> None:
    """A NIfTI file with steps of 0.8 × 0.8 × 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.diag([0.8, 0.8, 1.0, 1.0]))
    image.header.set_slope_inter(slope, 0.0)
    nibabel.save(image, path)


def make(folder: Path, size: tuple[int, int, int]) -> None:
    """The files of one size."""
    labels = labels_of(size, 0)
    plane = np.random.default_rng(0).normal(0, 40, size[:2])
    image = labels.astype(np.int16)
    image *= 200
    image += plane.astype(np.int16)[:, :, None]
    write(folder / "image.nii", image)
    write(folder / "slope.nii", image, 1.5)
    write(folder / "truth" / "image.nii", labels)
    write(folder / "labels" / "image.nii", labels_of(size, min(3, size[2] // 4)))
    (folder / "cases.csv").write_text("image,mask\nimage.nii,truth/image.nii\n")


def measured(arguments: Sequence[str | Path]) -> tuple[float, float]:
    """(MB, seconds) of a command. Raises SystemExit where it fails."""
    command = [sys.executable, "-P", "-m", "segweave", *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=True
    )
    code, peak, seconds = done.stdout.split()
    if int(code):
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return float(peak), float(seconds)


def commands(folder: Path, model: Path) -> dict[str, list[str | Path]]:
    """What is measured → the words of the command, in an order in which each finds its files."""
    quiet = ["--quiet"]
    cpu = ["--device", "cpu", *quiet]
    return {
        "predict, int16": ["predict", model, folder / "image.nii", "--out", folder / "p", *cpu],
        "predict, int16 with a slope": [
            "predict", model, folder / "slope.nii", "--out", folder / "q", *cpu
        ],
        "check": ["check", folder / "cases.csv", "--as", "table", *quiet],
        "prepare": ["prepare", "table", folder / "cases.csv", folder / "store", *quiet],
        "score (Dice, HD95, ASD)": [
            "score", folder / "labels", folder / "truth", "--out", folder / "scores", *quiet
        ],
        "evaluate (predict and score)": [
            "evaluate", model, "--store", folder / "store", "--part", "all",
            "--out", folder / "evaluation", *cpu,
        ],
    }  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small volume instead")
    parser.add_argument("--only", default="", help="only rows that begin with this")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    size = QUICK if chosen.quick else LARGE
    network = segweave.create_network("unet", in_channels=1, classes=len(NAMES), width=4)
    woven = segweave.weave(network, "sa-lstm", at="bottleneck", slices=3)
    shape = " × ".join(map(str, size))
    print(
        f"{platform.machine()}, segweave {segweave.__version__}; {shape} voxels, a file of ", end=""
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = segweave.save_model(folder / "model", woven, SETTINGS, TargetSpec(names=NAMES))
        for name, one in (("tiny", TINY), ("large", size)):
            make(folder / name, one)
        print(f"{(folder / 'large' / 'image.nii').stat().st_size / 2**20:.0f} MiB.\n")
        print("| command | above a tiny volume, MB | peak, MB | seconds |")
        print("| --- | ---: | ---: | ---: |")
        small = commands(folder / "tiny", model)
        for what, words in commands(folder / "large", model).items():
            if what.startswith(chosen.only) or what == "prepare":
                (least, _), (peak, seconds) = measured(small[what]), measured(words)
                print(f"| {what} | {peak - least:.0f} | {peak:.0f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
