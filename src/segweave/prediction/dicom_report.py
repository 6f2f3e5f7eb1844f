"""Writes measurements as a DICOM structured report (TID 1500) on a DICOM segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segweave import __version__
from segweave.data.case import Case
from segweave.data.codes import ClassCode
from segweave.data.specs import TargetSpec
from segweave.data.target_codes import class_codes
from segweave.errors import UsageError
from segweave.formats.dicom import library
from segweave.formats.dicom_seg import FORMAT as SEGMENTATION
from segweave.formats.dicom_seg import concept
from segweave.formats.dicom_source import (
    MAKER,
    RESEARCH,
    Origin,
    Source,
    line,
    objects,
    objects_library,
    read_source,
)
from segweave.prediction.measurements import Measurement
from segweave.storage import atomic_write

SUFFIX = ".sr.dcm"
_DOING = "writing a DICOM report"
_SERIES = 9003
_PROCEDURES = {
    "CT": "CTUnspecifiedBodyRegion",
    "MR": "MRIUnspecifiedBodyRegion",
    "PT": "PETUnspecifiedBodyRegion",
    "NM": "NMUnspecifiedBodyRegion",
}


def check_report(format: str | None) -> None:
    """Raise UsageError unless the label maps are segmentation objects: a report refers to one."""
    if format != SEGMENTATION:
        raise UsageError(
            _DOING,
            expected=f"--format {SEGMENTATION}: the report refers to the segmentation object",
            found=f"--format {format}" if format else "no --format",
        )


def write_dicom_report(
    measurements: Sequence[Measurement],
    case: Case,
    segmentation: Path,
    path: Path,
    target: TargetSpec,
    origin: Origin,
) -> None:
    """Write the measurements of a case as a structured report.

    Args:
        measurements: what `segweave.prediction.measure` returned.
        case: the case, read from a DICOM series.
        segmentation: the DICOM-SEG object of its label map, which the report refers to.
        path: the file to write.
        target: the classes.
        origin: the model.

    Each class is a measurement group with its volume in ml (of volumes) and its largest diameter
    within a slice in mm. Raises InputError as `write_label` does for DICOM-SEG.
    """
    highdicom, pydicom = objects_library(_DOING), library(_DOING)
    source = read_source(case, SEGMENTATION, _DOING)
    with objects(_DOING, path):
        seg = pydicom.dcmread(segmentation, stop_before_pixels=True)
        groups = [
            _group(highdicom, one, number, class_codes(target)[one.label], seg, source, origin)
            for number, one in enumerate(measurements, start=1)
        ]
        report = _report(highdicom, groups, seg, source, origin)
        with atomic_write(path) as temporary:
            report.save_as(temporary)


def _report(highdicom: Any, groups: list[Any], seg: Any, source: Source, origin: Origin) -> Any:
    from pydicom.sr.codedict import codes

    procedure = _PROCEDURES.get(str(source.first.Modality), "ImagingProcedure")
    device = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=source.uid("device", origin.name, origin.digest),
        name=f"{MAKER}. {RESEARCH}",
        manufacturer_name=MAKER,
        model_name=origin.name,
        serial_number=origin.digest[:64] or "unknown",
    )
    observer = highdicom.sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    content = highdicom.sr.MeasurementReport(
        highdicom.sr.ObservationContext(observer_device_context=observer),
        getattr(codes.cid100, procedure),
        groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    report = highdicom.sr.ComprehensiveSR(
        [*source.distinct, seg],
        content[0],
        series_instance_uid=source.uid("series", "report", origin.name, origin.digest),
        series_number=_SERIES,
        sop_instance_uid=source.uid("report", str(seg.SOPInstanceUID)),
        instance_number=1,
        manufacturer=MAKER,
        is_complete=True,
        series_description=f"Measurements. {RESEARCH}",
        manufacturer_model_name=origin.name,
        software_versions=f"segweave {__version__}",
        specific_character_set="ISO_IR 192",
    )
    report.CompletionFlagDescription = RESEARCH
    return report


def _group(
    highdicom: Any,
    one: Measurement,
    number: int,
    code: ClassCode,
    seg: Any,
    source: Source,
    origin: Origin,
) -> Any:
    from pydicom.sr.codedict import codes

    sr = highdicom.sr
    found = []
    if one.volume_ml is not None:
        millilitre = sr.CodedConcept("ml", "UCUM", "milliliter")
        found.append(sr.Measurement(codes.SCT.Volume, round(one.volume_ml, 4), millilitre))
    if one.in_mm and one.pixels:
        longest = round(one.largest_diameter, 3)
        found.append(sr.Measurement(codes.SCT.LongAxis, longest, codes.UCUM.Millimeter))
    side = None if code.modifier is None else concept(highdicom, code.modifier)
    finding = concept(highdicom, code.type)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(
            uid=source.uid("measured", origin.name, origin.digest, str(one.label), one.name),
            identifier=line(one.name, 64),
        ),
        referenced_segment=sr.ReferencedSegment(
            str(seg.SOPClassUID),
            str(seg.SOPInstanceUID),
            number,
            source_series=sr.SourceSeriesForSegmentation(str(source.first.SeriesInstanceUID)),
        ),
        finding_category=concept(highdicom, code.category),
        finding_type=finding,
        finding_sites=None if side is None else [sr.FindingSite(finding, laterality=side)],
        algorithm_id=sr.AlgorithmIdentification(origin.name, origin.version),
        measurements=found or None,
    )
