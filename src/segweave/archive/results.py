"""Makes the result of a series: what its objects are called follows from the images and the model,
so that a result that is made twice is the same object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segweave.archive.errors import library
from segweave.errors import InputError
from segweave.formats import read_case, write_label
from segweave.formats.dicom import series_files
from segweave.formats.dicom_file import read_data
from segweave.formats.dicom_source import Origin
from segweave.prediction import Session
from segweave.storage import atomic_write, canonical_json, sha256_of_text

ResultFormat = Literal["dicom-seg", "nifti"]
ENDINGS: dict[ResultFormat, str] = {"dicom-seg": ".dcm", "nifti": ".nii.gz"}
_DOING = "segmenting a series"


@dataclass(frozen=True)
class Names:
    """The UIDs of a result, and the name of its file."""

    series: str
    object: str
    file: str


def model_digest(session: Session, format: ResultFormat) -> str:
    """What identifies a model: a digest of its weights, input and classes, and of the format of
    results.
    """
    keys = ("weights_sha256", "input", "target")
    known = {key: session.card.get(key) for key in keys}
    known |= {"target": session.target.model_dump(mode="json"), "format": format}
    return sha256_of_text(canonical_json(known))


def names_of(folder: Path, series: str, model: str, format: ResultFormat) -> Names:
    """The names of the result of the images in `folder`, made of their UIDs and the model."""
    pydicom = library(_DOING, "pydicom")
    objects = sorted(
        str(
            read_data(
                pydicom, file, _DOING, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]
            ).get("SOPInstanceUID", "")
        )
        for file in series_files(folder)
    )
    if not all(objects) or len(set(objects)) < len(objects):
        raise InputError(
            _DOING,
            expected="images with different SOP instance UIDs",
            found="none in some" if not all(objects) else "the same twice",
            remedy="send the series again",
        )
    sources = [series, model, *objects]
    uid = str(pydicom.uid.generate_uid(entropy_srcs=["segweave object", *sources]))
    own = str(pydicom.uid.generate_uid(entropy_srcs=["segweave series", *sources]))
    return Names(own, uid, file_name(series, uid, format))


def file_name(series: str, object: str, format: ResultFormat) -> str:
    """The name of the file of a result."""
    return f"{series}.{sha256_of_text(object)[:8]}{ENDINGS[format]}"


def write_result(
    session: Session, folder: Path, file: Path, names: Names, format: ResultFormat
) -> None:
    """Segment the series in `folder` and write the result to `file` in one piece."""
    case = read_case(folder, id=names.object, with_label=False)
    labels, target = session.predict(case).labels, session.target
    if format == "nifti":
        write_label(labels, case, file, format=format, target=target)
        return
    pydicom = library(_DOING, "pydicom")
    with atomic_write(file) as temporary:
        origin = Origin(session.card)
        write_label(labels, case, temporary, format=format, target=target, origin=origin)
        data = pydicom.dcmread(temporary)
        data.SeriesInstanceUID = names.series
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = names.object
        data.save_as(temporary, enforce_file_format=True)
