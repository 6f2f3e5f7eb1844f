"""Images of every kind for the tests of predicting files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.prediction.tiny import RNG, VOLUME, save_nifti


@pytest.fixture
def images(tmp_path):
    """One image of every kind, in folders."""
    folder = tmp_path / "in"
    save_nifti(folder / "p1/heart.nii.gz", VOLUME.T)
    save_nifti(folder / "p1/heart_gt.nii.gz", (VOLUME.T > 0).astype(np.uint8))
    with h5py.File(folder / "b.h5", "w") as file:
        file["image"] = VOLUME
        file["label"] = np.full(VOLUME.shape, 0.5)
        file.attrs["spacing_zyx_mm"] = [10, 2, 2]
    np.savez(folder / "c.npz", img=VOLUME[0])
    Image.fromarray(RNG.integers(0, 255, (20, 30)).astype(np.uint8)).save(folder / "d.png")
    return folder
