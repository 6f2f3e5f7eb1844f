"""Reads the headers of the frames of enhanced (multi-frame) CT, MR and PET files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError
from segweave.formats.series import Slice, as_numbers

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_NOT_IMAGES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_SPLIT = (
    "choose one of them: dcm2niix -o FOLDER FILE writes each as a separate NIfTI file; or export "
    "the one that is wanted as a separate series"
)
_DIMENSIONS: tuple[tuple[str, str, str], ...] = (
    ("b-value", "MRDiffusionSequence", "DiffusionBValue"),
    ("time", "FrameContentSequence", "TemporalPositionIndex"),
    ("echo time", "MREchoSequence", "EffectiveEchoTime"),
    ("percentage of the heart cycle", "CardiacSynchronizationSequence",
     "NominalPercentageOfCardiacPhase"),
    ("trigger delay", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("frame type", "MRImageFrameTypeSequence", "FrameType"),
    ("frame type", "CTImageFrameTypeSequence", "FrameType"),
    ("time", "FrameContentSequence", "FrameAcquisitionDateTime"),
)  # fmt: skip
"""What may tell apart frames at one position: its name, its functional group, its element."""

_CODE = re.compile(r"[A-Z0-9 _]{1,16}")


def has_frames(data: Any) -> bool:
    """Whether a header has the functional groups of a multi-frame file."""
    return bool(data.get(GROUPS[1]))


def value_of(data: Any, frame: int, group: str, name: str) -> Any:
    """An element of a functional group, of the frame or of all frames; None where there is none."""
    per_frame, shared = data.get(GROUPS[1]) or (), data.get(GROUPS[0]) or ()
    for item in (*per_frame[frame : frame + 1], *shared[:1]):
        inner = item.get(group)
        if inner and inner[0].get(name) not in (None, ""):
            return inner[0].get(name)
    return None


def slices_of(data: Any, whole: Slice, frames: int, doing: str) -> list[Slice]:
    """A slice for each frame of an enhanced file, in the order of the file.

    `whole` is what its header says of the file. Raises InputError for a segmentation, for
    functional groups that do not fit the number of frames, and for several stacks or several images
    at one position.
    """
    file = whole.file
    if str(data.get("SOPClassUID", "")) in _NOT_IMAGES:
        raise InputError(
            doing,
            file=file,
            expected="an image",
            found="a segmentation of one",
            remedy="give the images that it was made from",
            kind="unsupported",
        )
    groups = len(data.get(GROUPS[1]))
    if groups != frames:
        raise InputError(
            doing,
            file=file,
            expected=f"a description of each of {frames} frames",
            found=f"{groups} of them",
            remedy="the header is damaged; export the file again",
            kind="damaged",
        )
    found = [_frame(data, whole, frame, doing) for frame in range(frames)]
    _check_stacks(data, file, frames, doing)
    _check_dimensions(data, found, doing)
    return found


def _frame(data: Any, whole: Slice, frame: int, doing: str) -> Slice:
    def numbers(group: str, name: str, count: int) -> NDArray[Any] | None:
        return as_numbers(value_of(data, frame, group, name), name, count, whole.file, doing)

    return Slice(
        file=whole.file,
        series=whole.series,
        modality=whole.modality,
        size=whole.size,
        samples=whole.samples,
        bytes=whole.bytes,
        spacing=numbers("PixelMeasuresSequence", "PixelSpacing", 2),
        orientation=numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        position=numbers("PlanePositionSequence", "ImagePositionPatient", 3),
        thickness=numbers("PixelMeasuresSequence", "SliceThickness", 1),
        frame=frame,
        scale=_scale(data, frame, whole.file, doing),
    )


def _scale(data: Any, frame: int, file: Path, doing: str) -> tuple[float, float]:
    """Slope and intercept of a frame: those of the modality, else of its real-world values."""
    slope = value_of(data, frame, "PixelValueTransformationSequence", "RescaleSlope")
    if slope is not None:
        intercept = value_of(data, frame, "PixelValueTransformationSequence", "RescaleIntercept")
        return float(slope), float(intercept or 0)
    for number in (frame, None):
        items = data.get(GROUPS[0 if number is None else 1]) or ()
        item = items[number or 0] if len(items) > (number or 0) else {}
        maps = item.get("RealWorldValueMappingSequence") or ()
        linear = [one for one in maps if one.get("RealWorldValueSlope") is not None]
        if len(linear) > 1:
            raise InputError(
                doing,
                file=file,
                expected="one real-world value of each pixel",
                found=f"{len(linear)} mappings to real-world values in frame {frame + 1}",
                remedy="export it with one of them, or convert it with dcm2niix",
                kind="unsupported",
            )
        if linear:
            one = linear[0]
            return float(one.RealWorldValueSlope), float(one.get("RealWorldValueIntercept") or 0)
    return 1.0, 0.0


def _check_stacks(data: Any, file: Path, frames: int, doing: str) -> None:
    names = [value_of(data, k, "FrameContentSequence", "StackID") for k in range(frames)]
    counts = Counter(str(name) for name in names if name is not None)
    if len(counts) > 1:
        listed = [f"{n} frames in stack {k + 1}" for k, n in enumerate(counts.values())]
        raise InputError(
            doing,
            file=file,
            expected="one stack of slices in a file",
            found=f"{len(counts)} stacks: {', '.join(listed[:6])}",
            remedy=_SPLIT,
            kind="layout",
        )


def _check_dimensions(data: Any, frames: Sequence[Slice], doing: str) -> None:
    """Raise InputError where there are several frames at a position, naming what differs."""
    places: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for number, one in enumerate(frames):
        if one.position is None:
            return
        places[tuple(np.round(one.position, 3).tolist())].append(number)
    several = [numbers for numbers in places.values() if len(numbers) > 1]
    # A doubled slice or two are found, and named, where the slices are put in order.
    if 2 * len(several) <= len(places):
        return
    first = several[0]
    differing = {}
    for what, group, name in _DIMENSIONS:
        values = [value_of(data, number, group, name) for number in first]
        texts = list(dict.fromkeys(map(_shown, values)))
        if None not in values and len(texts) > 1 and what not in differing:
            differing[what] = texts
    shown = "; ".join(
        f"{what} {', '.join(texts[:4])}{', ...' if len(texts) > 4 else ''}"
        for what, texts in list(differing.items())[:2]
    )
    raise InputError(
        doing,
        file=frames[0].file,
        expected="one image of each slice: one time, one b-value, one echo",
        found=f"{len(first)} images at each of {len(places)} positions"
        + (f", which differ in {shown}" if shown else ""),
        remedy=_SPLIT,
        kind="layout",
    )


def _shown(value: Any) -> str:
    """A number, a code or the time of a moment; "" for any other text, which may be a name."""
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(_shown(part) for part in value)[:40]
    text = str(value)
    return text[8:] if text[:8].isdecimal() else text if _CODE.fullmatch(text) else ""


def share_geometry(data: Any, first: Slice, distance: Any) -> None:
    """State the orientation and the pixels' size of all frames once, where objects that refer to
    the file look for them.
    """
    from pydicom.dataset import Dataset

    assert first.orientation is not None
    assert first.spacing is not None
    shared = (data.get(GROUPS[0]) or [Dataset()])[0]
    plane, measures = Dataset(), Dataset()
    plane.ImageOrientationPatient = first.orientation.tolist()
    measures.PixelSpacing = first.spacing.tolist()
    measures.SliceThickness = distance if first.thickness is None else float(first.thickness[0])
    measures.SpacingBetweenSlices = distance
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    for frame, item in enumerate(data.get(GROUPS[1])):
        at = Dataset()
        position = value_of(data, frame, "PlanePositionSequence", "ImagePositionPatient")
        at.ImagePositionPatient = position
        item.PlanePositionSequence = [at]
        for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            if name in item:
                del item[name]
