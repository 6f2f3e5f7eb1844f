"""DICOM series in any position, with the UIDs of a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.test_dicom import write_slice

UIDS = {
    "StudyInstanceUID": "1.2.826.1.1",
    "FrameOfReferenceUID": "1.2.826.1.2",
    "SeriesInstanceUID": "1.2.826.1.3",
}
VOLUME = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)


def turned(degrees: tuple[float, float, float]) -> np.ndarray:
    """A rotation about x, y and z; its columns are row direction, column direction and normal."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        matrix = one @ matrix
    return matrix


PLACES = {
    "axial": np.eye(3),
    # Along the other direction: the case's slices and columns run against the file's.
    "reversed": np.diag([-1.0, 1.0, -1.0]),
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "oblique": turned((20, -35, 50)),
}
"""Name → row direction, column direction and normal, as columns, in LPS."""


def write_placed(
    folder: Path, place: str = "axial", volume: np.ndarray = VOLUME, **tags: Any
) -> Path:
    """A series of slices every 2.5 mm in a folder, the files in another order than the slices."""
    directions = PLACES[place]
    for k, plane in enumerate(volume):
        name = f"IM{(3 * k + 1) % len(volume):03d}.dcm" if len(volume) % 3 else f"IM{k:03d}.dcm"
        position = np.array([-10.0, -20.5, 100.25]) + 2.5 * k * directions[:, 2]
        orientation = [round(float(v), 9) for v in directions[:, :2].T.ravel()]
        places = {"ImageOrientationPatient": orientation, "PatientPosition": "HFS"}
        write_slice(folder / name, plane, np.round(position, 6), **{**UIDS, **places, **tags})
    return folder


def affine_of(place: str) -> np.ndarray:
    """(column, row, slice, 1) → LPS mm of such a series."""
    affine = np.eye(4)
    affine[:3, :3] = PLACES[place] * [0.6, 0.8, 2.5]
    affine[:3, 3] = (-10.0, -20.5, 100.25)
    return affine
