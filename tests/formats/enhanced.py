"""Enhanced (multi-frame) CT and MR files in any position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from tests.formats.series_of import PLACES, UIDS, VOLUME
from tests.formats.test_dicom import write_slice

CT, MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"


def item(**fields: Any) -> Dataset:
    data = Dataset()
    for name, value in fields.items():
        setattr(data, name, value)
    return data


def write_enhanced(
    path: Path,
    place: str = "axial",
    volume: np.ndarray = VOLUME,
    *,
    order: Sequence[int] | None = None,
    shared: bool = True,
    frames: Sequence[dict[str, Dataset]] = (),
    positions: Sequence[float] | None = None,
    scales: Sequence[tuple[float, float]] | None = None,
    sop_class: str = CT,
    **tags: Any,
) -> Dataset:
    """All slices in one file, its frames in `order` (slice numbers); orientation and pixel size are
    `shared` or in each frame, `frames` are more functional groups of each frame.
    """
    order = [(3 * k + 1) % len(volume) for k in range(len(volume))] if order is None else order
    directions = PLACES[place]
    orientation = [round(float(v), 9) for v in directions[:, :2].T.ravel()]
    plane = item(ImageOrientationPatient=orientation)
    measures = item(PixelSpacing=[0.8, 0.6], SliceThickness=2.5)
    groups = []
    for number, k in enumerate(order):
        depth = 2.5 * k if positions is None else positions[number]
        at = np.array([-10.0, -20.5, 100.25]) + depth * directions[:, 2]
        group = item(
            PlanePositionSequence=[item(ImagePositionPatient=np.round(at, 6).tolist())],
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=k + 1)],
        )
        if not shared:
            group.PlaneOrientationSequence, group.PixelMeasuresSequence = [plane], [measures]
        if scales is not None:
            slope, intercept = scales[number]
            change = item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
            group.PixelValueTransformationSequence = [change]
        for name, value in frames[number].items() if frames else ():
            setattr(group, name, [value])
        groups.append(group)
    both = item()
    if shared:
        both.PlaneOrientationSequence, both.PixelMeasuresSequence = [plane], [measures]
    pixels = np.ascontiguousarray(volume[list(order)])
    write_slice(path, volume[0], **{**UIDS, "SOPClassUID": sop_class, **tags})
    data = pydicom.dcmread(path)
    data.file_meta.MediaStorageSOPClassUID = sop_class
    data.NumberOfFrames, data.PixelData = len(order), pixels.tobytes()
    data.SharedFunctionalGroupsSequence = [both]
    data.PerFrameFunctionalGroupsSequence = groups
    data.save_as(path, enforce_file_format=True)
    return data
