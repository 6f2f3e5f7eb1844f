"""Writes label maps as DICOM structure sets (RTSTRUCT): contours of every class, slice by slice."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave import __version__
from segweave.data.case import Case
from segweave.data.codes import parts_of
from segweave.data.specs import TargetSpec, class_colours
from segweave.data.target_codes import class_codes
from segweave.errors import InputError
from segweave.formats.contours import outlines
from segweave.formats.dicom import library
from segweave.formats.dicom_source import (
    MAKER,
    RESEARCH,
    Origin,
    Source,
    check_ids,
    frames_of,
    line,
    objects,
    read_source,
    required_target,
    rgb,
)
from segweave.storage import atomic_write

FORMAT = "rtstruct"
_DOING = "writing a DICOM structure set"
_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_SERIES = 9002
_FROM_PATIENT = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip


def write_rtstruct(
    labels: NDArray[np.uint8],
    case: Case,
    path: Path,
    target: TargetSpec | None = None,
    origin: Origin | None = None,
) -> None:
    """Write a label map as closed contours along the edges of its pixels, in the coordinates of the
    patient; holes are joined to their outline by keyholes (`segweave.formats.contours`).

    Raises InputError where the case was not read from DICOM images with positions.
    """
    library(_DOING)
    target, origin = required_target(target, _DOING), origin or Origin()
    check_ids(labels, target, _DOING)
    source = read_source(case, FORMAT, _DOING)
    if source.planes is None:
        raise InputError(
            _DOING,
            file=path,
            expected="images with positions in the patient: contours are in its coordinates",
            found="a picture without a position",
            remedy="choose another format, such as --format dicom-seg",
            kind="unsupported",
        )
    frames = frames_of(labels, case)
    with objects(_DOING, path), atomic_write(path) as temporary:
        structures = _structure_set(frames, source, target, origin)
        structures.save_as(temporary, enforce_file_format=True)


def _structure_set(
    frames: NDArray[np.uint8], source: Source, target: TargetSpec, origin: Origin
) -> Any:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    first, now = source.first, datetime.datetime.now()
    about = (origin.name, origin.digest)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _CLASS
    meta.MediaStorageSOPInstanceUID = source.uid(FORMAT, *about, repr(target), frames.tobytes())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = _item(
        # Names of classes may be in any script.
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=_CLASS,
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        Modality="RTSTRUCT",
        Manufacturer=MAKER,
        ManufacturerModelName=origin.name,
        DeviceSerialNumber=origin.digest[:64] or "unknown",
        SoftwareVersions=f"segweave {__version__}",
        SeriesInstanceUID=source.uid("series", FORMAT, *about),
        SeriesNumber=_SERIES,
        SeriesDescription=f"Contours. {RESEARCH}",
        InstanceNumber=1,
        OperatorsName="",
        FrameOfReferenceUID=first.FrameOfReferenceUID,
        PositionReferenceIndicator=first.get("PositionReferenceIndicator", ""),
        StructureSetLabel="SEGMENTATION",
        StructureSetName=origin.name,
        StructureSetDescription=RESEARCH,
        StructureSetDate=now.strftime("%Y%m%d"),
        StructureSetTime=now.strftime("%H%M%S"),
        InstanceCreationDate=now.strftime("%Y%m%d"),
        InstanceCreationTime=now.strftime("%H%M%S"),
        ApprovalStatus="UNAPPROVED",
        ReferencedFrameOfReferenceSequence=[_references(source)],
    )
    data.file_meta = meta
    for name in _FROM_PATIENT:
        if name in first:
            setattr(data, name, first[name].value)
    codes, colours = class_codes(target), class_colours(target)
    rois, contours, observations = [], [], []
    for number, (label, name) in enumerate(target.foreground.items(), start=1):
        masks = frames[..., label] > 0 if target.kind == "overlapping" else frames == label
        rois.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=first.FrameOfReferenceUID,
                ROIName=line(name, 64),
                ROIDescription=RESEARCH,
                ROIGenerationAlgorithm="AUTOMATIC",
                ROIGenerationDescription=origin.version,
            )
        )
        contour = _item(ROIDisplayColor=list(rgb(colours[label])), ReferencedROINumber=number)
        if lines := _contours(masks, source):
            contour.ContourSequence = lines
        contours.append(contour)
        scheme, value, meaning = parts_of(codes[label].type)
        code = _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
        observations.append(
            _item(
                ObservationNumber=number,
                ReferencedROINumber=number,
                RTROIInterpretedType="",
                ROIInterpreter="",
                ROIObservationLabel=line(name, 16),
                RTROIIdentificationCodeSequence=[code],
            )
        )
    data.StructureSetROISequence, data.ROIContourSequence = rois, contours
    data.RTROIObservationsSequence = observations
    return data


def _contours(masks: NDArray[np.bool_], source: Source) -> list[Any]:
    assert source.planes is not None
    found: list[Any] = []
    for number in np.flatnonzero(masks.any(axis=(1, 2))):
        plane = source.planes[number]
        for outline in outlines(masks[number]):
            # Corners of pixels are half a pixel before their centres.
            rows, columns = outline.T - 0.5
            points = (plane @ np.stack([columns, rows, np.ones(len(outline))])).T
            found.append(
                _item(
                    ContourImageSequence=[source.reference(int(number))],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourNumber=len(found) + 1,
                    ContourData=[f"{value:.4f}" for value in points.ravel()],
                )
            )
    return found


def _references(source: Source) -> Any:
    first = source.first
    series = _item(
        SeriesInstanceUID=first.SeriesInstanceUID,
        ContourImageSequence=[source.reference(k) for k in range(len(source.planes or ()))],
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _item(**fields: Any) -> Any:
    from pydicom.dataset import Dataset

    data = Dataset()
    for name, value in fields.items():
        setattr(data, name, value)
    return data
