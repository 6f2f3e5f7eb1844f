"""Small synthetic data sets and trainings that several test files share."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SETS = ("training.epochs=1", "network.options.width=2", "input.size=[32,32]")


def make_store(folder: Path, patients: int = 4) -> Path:
    """A store of synthetic hearts at `folder`/store, from the raw layout at `folder`/raw."""
    from segweave.datasets import prepare
    from segweave.phantoms.cardiac import write_cardiac

    write_cardiac(folder / "raw", patients, size=(40, 36), slices=3)
    prepare("acdc", folder / "raw", folder / "store")
    return folder / "store"


def make_run(folder: Path, *sets: str, name: str = "run") -> Path:
    """A finished training of seconds at `folder`/NAME, on `folder`/store."""
    import segweave

    segweave.train("demo", folder / "store", folder / name, sets=[*SETS, *sets], device="cpu")
    return folder / name


def write_volume(path: Path, shape: tuple[int, int, int] = (36, 40, 4), seed: int = 0) -> Path:
    """A NIfTI volume of noise whose header agrees with itself."""
    values = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 8.0, 1.0])), path)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, to see that nothing changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
