"""What a DICOM object made from a series takes over from it: the headers of its images in the order
of the case's slices, and what the object states of its making.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave import __version__
from segweave.data.case import Case, case_affine, farthest_apart, ids_in
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, MissingExtraError, SegweaveError
from segweave.formats.dicom import library, ordered_slices
from segweave.formats.dicom_file import is_dicom, quiet, read_data
from segweave.formats.multiframe import has_frames, share_geometry
from segweave.formats.series import Slice
from segweave.formats.turned import LPS_TO_RAS

RESEARCH = "Research use only, not a medical device"
MAKER = "segweave"
_OFTEN_MISSING = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "StudyID", "ReferringPhysicianName",
)  # fmt: skip
SegmentationType = Literal["binary", "labelmap"]


@dataclass(frozen=True)
class Origin:
    """What made a label map, for the formats that state it.

    Attributes:
        card: the model card, or the part of it that a session has; its title and the checksums of
            its weights are stated.
        segments: how a DICOM-SEG object holds exclusive classes: each as a bit map ("binary",
            which every viewer reads), or all in one map of ids ("labelmap", DICOM of 2024).
    """

    card: Mapping[str, Any] = field(default_factory=dict)
    segments: SegmentationType = "binary"

    @property
    def name(self) -> str:
        """What the model is called, in at most 64 characters."""
        return line(str(self.card.get("title") or "a segmentation network"), 64)

    @property
    def digest(self) -> str:
        """The checksum of the weights, of those of all members; "" where none is known."""
        members = self.card.get("members") or [self.card]
        return "+".join(str(one.get("weights_sha256", ""))[:16] for one in members).strip("+")

    @property
    def version(self) -> str:
        """The version of the algorithm: the checksum of its weights, else that of the library."""
        return (f"weights {self.digest}" if self.digest else f"segweave {__version__}")[:64]


@dataclass(frozen=True, eq=False)
class Source:
    """The images of a series, as headers without pixels, first to last.

    Attributes:
        images: a header for each slice; one header where one file holds all slices.
        planes: for each slice the affine (column, row, 1) → LPS mm (3×3); None for a picture
            without a position.
        step: the vector in mm from one slice to the next, None without positions.
        frames: the index of each slice in the file where one file holds all; else None.
    """

    images: list[Any]
    planes: list[NDArray[np.float64]] | None
    step: NDArray[np.float64] | None
    frames: list[int] | None = None

    @property
    def first(self) -> Any:
        """The header of the first image."""
        return self.images[0]

    @property
    def distinct(self) -> list[Any]:
        """The headers, each once."""
        return self.images if self.frames is None else self.images[:1]

    def reference(self, number: int) -> Any:
        """An item that refers to the image of slice `number`."""
        from pydicom.dataset import Dataset

        image, item = self.images[number], Dataset()
        item.ReferencedSOPClassUID = image.SOPClassUID
        item.ReferencedSOPInstanceUID = image.SOPInstanceUID
        if self.frames is not None:
            item.ReferencedFrameNumber = self.frames[number] + 1
        return item

    def uid(self, *parts: str | bytes) -> str:
        """A UID that is the same for the same series and `parts`: an object that is made again
        replaces the earlier one in an archive.
        """
        from pydicom.uid import generate_uid

        digest = hashlib.sha256()
        uids = [str(image.SOPInstanceUID) for image in self.distinct]
        for part in (MAKER, str(self.first.SeriesInstanceUID), *uids, *parts):
            digest.update(part.encode() if isinstance(part, str) else part)
            digest.update(b"\0")
        return str(generate_uid(entropy_srcs=[digest.hexdigest()]))


def objects_library(doing: str) -> Any:
    """highdicom; raises MissingExtraError where it is not installed."""
    try:
        import highdicom
    except ImportError as error:
        raise MissingExtraError(doing, library="highdicom", extra="dicom") from error
    return highdicom


def refuse_other_source(path: Path, format: str, doing: str) -> None:
    """Raise InputError unless `path` is a DICOM file or a folder of them."""
    if not (path.is_dir() or is_dicom(path)):
        raise InputError(
            doing,
            file=path,
            expected=f"DICOM images: an object of the format {format} refers to the images that it "
            "was made from, and takes patient, study and frame of reference from them",
            found="an image of another format",
            remedy="give the DICOM series that the image was converted from, or choose another "
            "format, such as --format nifti",
            kind="unsupported",
        )


def read_source(case: Case, format: str, doing: str) -> Source:
    """The headers of the images that a case was read from.

    Raises InputError where they were not DICOM, are no longer there or are others, and where they
    lack what an object of another series needs.
    """
    path = Path(case.provenance.file) if case.provenance is not None else Path()
    if case.provenance is None or path == Path():
        raise InputError(
            doing,
            expected="a case that was read from DICOM images",
            found=f"the case {case.id!r}, which was not read from a file",
            remedy="read it with read_case(FOLDER OF THE SERIES)",
            kind="unsupported",
        )
    refuse_other_source(path, format, doing)
    pydicom = library(doing)
    kept, affine = ordered_slices(path, doing)
    _check_same(case, len(kept), affine, path, doing)
    files = list(dict.fromkeys(one.file for one in kept))
    frames = None if kept[0].frame is None else [one.frame or 0 for one in kept]
    if frames is not None and len(files) > 1:
        raise InputError(
            doing,
            file=path,
            expected="one file with all frames, or one file per slice",
            found=f"{len(files)} files of several frames",
            remedy="choose another format, such as --format nifti",
            kind="unsupported",
        )
    headers = {file: read_data(pydicom, file, doing, stop_before_pixels=True) for file in files}
    images = [headers[one.file] for one in kept]
    step = None if affine is None else affine[:3, 2]
    with objects(doing, path):
        for image in headers.values():
            _complete(image, images[0], step, path, doing)
        if frames is not None and affine is not None:
            share_geometry(images[0], kept[0], decimal(float(np.linalg.norm(affine[:3, 2]))))
    planes = None if affine is None else [_plane(affine, one) for one in kept]
    return Source(images, planes, step, frames)


def _plane(affine: NDArray[np.float64], one: Slice) -> NDArray[np.float64]:
    """(column, row, 1) → LPS mm in a slice, whose position may be rounded in its header."""
    plane = affine[:3, [0, 1, 3]].copy()
    plane[:, 2] = one.position
    return plane


def _check_same(
    case: Case, slices: int, affine: NDArray[np.float64] | None, path: Path, doing: str
) -> None:
    grid = case.source_grid
    same = case.slices == slices if grid is None else grid.shape[2] == slices
    if same and grid is not None and affine is not None and case.affine is not None:
        apart = farthest_apart(
            case_affine(LPS_TO_RAS @ affine, grid), case.affine, (case.slices, *case.size)
        )
        same = apart < 1e-3
    if not same or (grid is None) != (affine is None):
        raise InputError(
            doing,
            file=path,
            expected="the series that the case was read from",
            found="images at other positions",
            remedy="leave the series as it is while it is segmented, and try again",
            kind="geometry",
        )


def _complete(
    image: Any, first: Any, step: NDArray[np.float64] | None, path: Path, doing: str
) -> None:
    """Give a header what it may lack, and what all images of a series share."""
    wanted = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
    if step is not None:
        wanted.append("FrameOfReferenceUID")
    lacking = [name for name in wanted if not image.get(name)]
    if lacking:
        raise InputError(
            doing,
            file=path,
            expected="images with the UIDs that an object made from them must repeat",
            found=f"no {', '.join(lacking)}",
            remedy="export the series again with its UIDs, or choose another format, such as "
            "--format nifti",
            kind="unsupported",
        )
    for name in _OFTEN_MISSING:
        if name not in image:
            setattr(image, name, "")
    if "Modality" not in image or not image.Modality:
        image.Modality = "OT"
    if step is None:
        if "FrameOfReferenceUID" in image and "ImagePositionPatient" not in image:
            del image.FrameOfReferenceUID
        return
    if has_frames(image):
        return
    # The reader takes small differences between the slices of a series for rounding.
    for name in ("ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"):
        setattr(image, name, getattr(first, name))
    distance = float(np.linalg.norm(step))
    if not image.get("SliceThickness"):
        image.SliceThickness = decimal(distance)
    image.SpacingBetweenSlices = decimal(distance)


def decimal(value: float) -> Any:
    """A number as DICOM writes it, in at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return DSfloat(float(value), auto_format=True)


def in_file_order(frames: NDArray[Any], source: Source) -> NDArray[Any]:
    """Frames in the order of the slices → in the order of the frames of the source's file."""
    if source.frames is None:
        return frames
    stored = np.empty_like(frames)
    stored[source.frames] = frames
    return stored


def frames_of(labels: NDArray[Any], case: Case) -> NDArray[np.uint8]:
    """Labels on the case's axes → (images, rows, columns) in the order of the source's images, with
    a class axis last where classes overlap.
    """
    if labels.ndim == 4:
        planes = [frames_of(labels[:, k], case) for k in range(labels.shape[1])]
        return np.stack(planes, axis=-1)
    grid = case.source_grid
    frames = labels if grid is None else grid.to_file(labels).transpose(2, 1, 0)
    return np.ascontiguousarray(frames, dtype=np.uint8)


@contextmanager
def objects(doing: str, path: Path) -> Iterator[None]:
    """Turn what libraries raise on unusual headers into one InputError without their words, which
    may quote the header; they do not warn either.
    """
    try:
        with quiet():
            yield
    except (SegweaveError, OSError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            doing,
            file=path,
            expected="images whose headers an object can refer to",
            found=f"headers that the library refuses ({type(error).__name__})",
            remedy="choose another format, such as --format nifti; --debug shows more",
            kind="unsupported",
        ) from error


def required_target(target: TargetSpec | None, doing: str) -> TargetSpec:
    """The target; raises InputError without one."""
    if target is None:
        raise InputError(
            doing, expected="target=, the classes of the label map", found="none", kind="missing"
        )
    return target


def check_ids(labels: NDArray[np.uint8], target: TargetSpec, doing: str) -> None:
    """Raise InputError for labels that are none of the target's."""
    known = {0, 1} if target.kind == "overlapping" else {0, *target.foreground}
    others = [id for id in ids_in(labels) if id not in known]
    if others:
        raise InputError(
            doing,
            expected=f"the ids {', '.join(map(str, sorted(known)))} of its classes",
            found=", ".join(map(str, others[:8])),
            remedy="give the target of the label map; an ignored id can't be stored",
            kind="unsupported",
        )


def line(text: str, most: int) -> str:
    """A text in one line of at most `most` characters that DICOM allows."""
    plain = "".join(one if one.isprintable() and one != "\\" else " " for one in text)
    return " ".join(plain.split())[:most]


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
