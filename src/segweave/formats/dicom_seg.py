"""Writes label maps as DICOM segmentation objects (DICOM-SEG), with highdicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave import __version__
from segweave.data.case import Case
from segweave.data.codes import ClassCode, parts_of
from segweave.data.specs import TargetSpec, class_colours
from segweave.data.target_codes import class_codes
from segweave.errors import UsageError
from segweave.formats.dicom_source import (
    MAKER,
    RESEARCH,
    Origin,
    Source,
    check_ids,
    frames_of,
    in_file_order,
    line,
    objects,
    objects_library,
    read_source,
    required_target,
    rgb,
)
from segweave.storage import atomic_write

FORMAT = "dicom-seg"
_DOING = "writing a DICOM segmentation"
_SERIES = 9001


def write_dicom_seg(
    labels: NDArray[np.uint8],
    case: Case,
    path: Path,
    target: TargetSpec | None = None,
    origin: Origin | None = None,
) -> None:
    """Write a label map (slices, height, width), or one with a class axis after slices, as a
    DICOM-SEG object on the voxels of the series that the case was read from.

    Raises InputError where the case was not read from DICOM, UsageError for overlapping classes in
    a label map object, MissingExtraError without highdicom.
    """
    seg = segmentation(labels, case, required_target(target, _DOING), origin or Origin())
    with atomic_write(path) as temporary, objects(_DOING, path):
        seg.save_as(temporary)


def segmentation(labels: NDArray[np.uint8], case: Case, target: TargetSpec, origin: Origin) -> Any:
    """The object that `write_dicom_seg` writes, a `highdicom.seg.Segmentation`."""
    highdicom = objects_library(_DOING)
    check_segments(target, origin)
    check_ids(labels, target, _DOING)
    source = read_source(case, FORMAT, _DOING)
    frames = frames_of(labels, case)
    assert case.provenance is not None
    with objects(_DOING, Path(case.provenance.file)):
        described = _segments(highdicom, source, target, origin)
        return highdicom.seg.Segmentation(
            source.distinct,
            in_file_order(frames, source),
            origin.segments.upper(),
            described,
            series_instance_uid=source.uid("series", FORMAT, origin.name, origin.digest),
            series_number=_SERIES,
            sop_instance_uid=source.uid(
                FORMAT, origin.segments, origin.name, origin.digest, repr(target), frames.tobytes()
            ),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=origin.name,
            software_versions=f"segweave {__version__}",
            device_serial_number=origin.digest[:64] or "unknown",
            content_label="SEGMENTATION",
            content_description=RESEARCH,
            content_creator_name=MAKER,
            series_description=f"Segmentation. {RESEARCH}",
            # Names of classes may be in any script.
            specific_character_set="ISO_IR 192",
        )


def check_segments(target: TargetSpec, origin: Origin) -> None:
    """Raise UsageError for overlapping classes in a label map object."""
    if origin.segments == "labelmap" and target.kind == "overlapping":
        raise UsageError(
            _DOING,
            expected="exclusive classes in a label map object: it has one class per voxel",
            found="a model of overlapping classes",
            remedy="write a binary object (--seg-type binary)",
        )


def _segments(highdicom: Any, source: Source, target: TargetSpec, origin: Origin) -> list[Any]:
    codes, colours = class_codes(target), class_colours(target)
    algorithm = algorithm_of(highdicom, origin)
    described = []
    for number, (label, name) in enumerate(target.foreground.items(), start=1):
        code = codes[label]
        segment = highdicom.seg.SegmentDescription(
            number,
            line(name, 64),
            concept(highdicom, code.category),
            concept(highdicom, code.type),
            "AUTOMATIC",
            algorithm,
            tracking_uid=source.uid("segment", origin.name, origin.digest, str(label), name),
            tracking_id=f"{MAKER} class {label}",
            display_color=highdicom.color.CIELabColor.from_rgb(*rgb(colours[label])),
        )
        segment.SegmentDescription = RESEARCH
        _add_modifier(highdicom, segment, code)
        described.append(segment)
    return described


def _add_modifier(highdicom: Any, segment: Any, code: ClassCode) -> None:
    if code.modifier is not None:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(highdicom, code.modifier)]


def algorithm_of(highdicom: Any, origin: Origin) -> Any:
    """The identity of the model, for an object of highdicom."""
    from pydicom.sr.codedict import codes

    return highdicom.AlgorithmIdentificationSequence(
        name=origin.name,
        family=codes.cid7162.ArtificialIntelligence,
        version=origin.version,
        source=f"segweave {__version__}",
    )


def concept(highdicom: Any, text: str) -> Any:
    """SCHEME:VALUE:MEANING as a coded concept of highdicom."""
    scheme, value, meaning = parts_of(text)
    return highdicom.sr.CodedConcept(value, scheme, meaning)
