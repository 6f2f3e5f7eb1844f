"""The one table of formats: name → suffixes, reader, writer of label maps, and what it can hold;
and what is done by it: naming and writing a label map.

A new format is one file with its functions and one row here; `predict --format`, the reader, the
search for images and the error messages read the rows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError, nearest
from segweave.formats.arrays import read_npy, read_npz, write_npz
from segweave.formats.content import HEADER_ATTRIBUTE, Content, Request
from segweave.formats.dicom import ENDINGS, is_placed, read_dicom
from segweave.formats.dicom_file import is_dicom
from segweave.formats.dicom_seg import write_dicom_seg
from segweave.formats.dicom_source import Origin, refuse_other_source
from segweave.formats.hdf5 import read_h5, write_h5
from segweave.formats.meta import write_meta
from segweave.formats.mha import read_mha
from segweave.formats.nifti import read_nifti, write_nifti
from segweave.formats.nrrd import read_nrrd
from segweave.formats.pictures import read_picture, write_picture
from segweave.formats.rtstruct import write_rtstruct

Family = Literal["volume", "array", "picture", "series"]
Reader = Callable[[Path, Request], Content]
Writer = Callable[..., None]
"""(labels, case, path, target), and `origin` where `Format.refers`."""


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
        name: what `--format` calls it.
        suffixes: the endings of its files, in lower case; the first is used for new files.
        family: "volume" (has a geometry), "array", "picture", or "series" (slices in a folder).
        read: reads a file; None for a format that is only written.
        write: writes labels (slices, height, width) or (slices, classes, height, width); None for a
            format that is only read.
        labels: the formats for label maps of such an image; the first that can hold them is used.
        slices: whether a label map in this format may have several slices.
        overlapping: whether it may have a class axis.
        refers: whether it refers to the DICOM images that the label map was made from, and states
            what made it.
        real: whether it may hold the values of an image.
    """

    name: str
    suffixes: tuple[str, ...]
    family: Family
    read: Reader | None
    write: Writer | None
    labels: tuple[str, ...]
    slices: bool = True
    overlapping: bool = False
    refers: bool = False
    real: bool = True

    def holds(self, *, slices: int = 1, overlapping: bool = False, real: bool = False) -> bool:
        """Whether label maps of so many slices, with a class axis if `overlapping`, fit in; with
        `real`, an image.
        """
        fits = (self.slices or slices == 1) and (self.overlapping or not overlapping)
        fits = fits and (self.real or not real)
        return self.write is not None and fits


FORMATS = (
    Format("nifti", (".nii.gz", ".nii"), "volume", read_nifti, write_nifti, ("nifti",),
           overlapping=True),
    Format("mha", (".mha",), "volume", read_mha, write_meta, ("mha", "nifti")),
    Format("nrrd", (".nrrd",), "volume", read_nrrd, write_meta, ("nrrd", "nifti")),
    Format("npz", (".npz",), "array", read_npz, write_npz, ("npz",), overlapping=True),
    Format("h5", (".h5", ".npy.h5", ".hdf5"), "array", read_h5, write_h5, ("npz",),
           overlapping=True),
    Format("npy", (".npy",), "array", read_npy, None, ("npz",)),
    Format("png", (".png",), "picture", read_picture, write_picture, ("png", "npz"), slices=False,
           real=False),
    Format("jpeg", (".jpg", ".jpeg"), "picture", read_picture, None, ("png", "npz")),
    Format("tiff", (".tif", ".tiff"), "picture", read_picture, None, ("png", "npz")),
    Format("bmp", (".bmp",), "picture", read_picture, None, ("png", "npz")),
    Format("dicom", ENDINGS, "series", read_dicom, None, ("nifti",)),
    Format("dicom-seg", (".seg.dcm",), "series", None, write_dicom_seg, (), overlapping=True,
           refers=True),
    Format("rtstruct", (".rtstruct.dcm",), "series", None, write_rtstruct, (), overlapping=True,
           refers=True),
)  # fmt: skip
"""Every format, those that keep the geometry first."""

_BY_NAME = {format.name: format for format in FORMATS}
_BY_SUFFIX = {
    suffix: format for format in FORMATS if format.read is not None for suffix in format.suffixes
}
SUFFIXES = tuple(_BY_SUFFIX)
"""Endings of the files that can be read; case does not matter."""


def suffixes(family: Family) -> tuple[str, ...]:
    """The endings of the formats of one family."""
    return tuple(suffix for suffix, format in _BY_SUFFIX.items() if format.family == family)


NIFTI = _BY_NAME["nifti"].suffixes
ARRAYS = suffixes("array")
PICTURES = suffixes("picture")
DICOM = suffixes("series")


def suffix_of(path: str | Path) -> str:
    """The ending of a file that can be read, in lower case, or "" for any other."""
    name = Path(path).name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def format_of(path: str | Path) -> Format | None:
    """The format of a file by its ending, None for an unknown one."""
    return _BY_SUFFIX.get(suffix_of(path))


def label_formats() -> tuple[str, ...]:
    """The names of the formats in which label maps can be written: the choices of `--format`.

    `label_name(image, format=NAME)` gives the file name of an image's label map in that format, and
    `write_label(labels, case, path, format=NAME, target=target)` writes it:

    >>> from segweave.formats import label_formats, label_name
    >>> label_formats()
    ('nifti', 'mha', 'nrrd', 'npz', 'h5', 'png', 'dicom-seg', 'rtstruct')
    >>> label_name("scans/p1.nrrd", format="nifti")
    'p1.nii.gz'
    """
    return tuple(format.name for format in FORMATS if format.write is not None)


def label_format(name: str) -> Format:
    """The format of that name, in which label maps can be written; raises UsageError for another
    name.
    """
    if name not in label_formats():
        raise UsageError(
            "choosing the format of label maps",
            found=repr(name),
            remedy=nearest(name, label_formats()),
        )
    return _BY_NAME[name]


def case_name(path: str | Path) -> str:
    """A file's name without its ending: the id of its case unless another is given."""
    name = _name_of(path)
    return name[: len(name) - len(suffix_of(path))] or name


def whole_name(path: str | Path) -> str:
    """The name of a file without its ending, in the form NFC: macOS decomposes umlauts."""
    return unicodedata.normalize("NFC", case_name(path))


def _name_of(path: str | Path) -> str:
    """A path's last name, that of the folder itself for "." and ".."."""
    name = Path(path).name
    return Path(os.path.abspath(path)).name if name in ("", "..") else name


def _has_no_place(path: Path) -> bool:
    """Whether it is a DICOM file that names no position, so that a label map has no geometry."""
    return path.is_file() and is_placed(path) is False


def label_name(
    path: str | Path,
    *,
    overlapping: bool = False,
    slices: int = 1,
    format: str | None = None,
    real: bool = False,
) -> str:
    """The file name of the label map of an image, or of the image that is predicted for it.

    NIfTI, MHA and NRRD images keep their name, DICOM gets .nii.gz (and .png where it names no
    position in a patient); other images get .png, arrays (and overlapping classes of an image)
    .npz.

    Args:
        path: the image: a file, or the folder of a DICOM series.
        overlapping: whether the label map has a class axis.
        slices: the number of slices of the label map.
        format: the name of the format (`label_formats()`), else the one that suits the image.
        real: whether it is an image (of one channel unless `overlapping`).

    Raises UsageError for an unknown format and for one that can't hold such a label map, InputError
    for a format that refers to DICOM images where the image is not one.
    """
    of_image = format_of(path)
    if Path(path).is_dir() or (of_image is None and is_dicom(Path(path))):
        of_image = _BY_NAME["dicom"]
    if format is not None:
        chosen = label_format(format)
        if chosen.refers:
            refuse_other_source(Path(path), chosen.name, "naming a label map")
        if not chosen.holds(slices=slices, overlapping=overlapping, real=real):
            raise cannot_hold("naming a label map", Path(path), slices, overlapping, real)
    else:
        names = of_image.labels if of_image is not None else ("npz",)
        if of_image is _BY_NAME["dicom"] and _has_no_place(Path(path)):
            names = _BY_NAME["png"].labels
        chosen = next(
            _BY_NAME[name]
            for name in (*names, "npz")
            if _BY_NAME[name].holds(slices=slices, overlapping=overlapping, real=real)
        )
    if chosen is of_image:
        return _name_of(path)
    return case_name(path) + chosen.suffixes[0]


def write_label(
    labels: NDArray[Any],
    case: Case,
    path: str | Path,
    *,
    format: str | None = None,
    target: TargetSpec | None = None,
    origin: Origin | None = None,
) -> None:
    """Write a label map, or a predicted image, to a file, which appears whole or not at all.

    NIfTI (.nii.gz, .nii) keeps the header of the case's own file, .mha and .nrrd its geometry, .npz
    and .h5 hold the array `label` and its spacing, .png is a grey image of class ids (0 and 255 of
    a binary target), .seg.dcm is a DICOM segmentation of the series that the case was read from.

    Args:
        labels: (slices, height, width) or (slices, classes, height, width) on the case's axes. Real
            numbers (slices, channels, height, width) are the values of an image: whole numbers
            where the case's image has such (rounded, within the range of its type), else float32.
        case: the case, whose geometry the label map gets.
        path: the file to write.
        format: the name of its format (`label_formats()`); by the ending of `path` unless given.
        target: the classes, for formats that say more of them than their ids.
        origin: what made the label map, for DICOM objects, which state it.

    Raises InputError for labels of another size than the case and for a case without the geometry
    or the DICOM images that the format needs, UsageError for a format that can't hold them.
    """
    file, doing = Path(path), "writing a label map"
    grid = (case.slices, *case.size)
    if labels.ndim not in (3, 4) or (labels.shape[0], *labels.shape[-2:]) != grid:
        raise InputError(
            doing,
            file=file,
            expected="labels of the case's size, {} × {} × {}".format(*grid),
            found=" × ".join(map(str, labels.shape)),
            kind="size",
        )
    chosen = _written_as(file) if format is None else label_format(format)
    real = labels.dtype.kind == "f"
    if real and labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    overlapping = labels.ndim == 4
    fits = chosen is not None and chosen.holds(
        slices=case.slices, overlapping=overlapping, real=real
    )
    if chosen is None or chosen.write is None or not fits:
        raise cannot_hold(doing, file, case.slices, overlapping, real)
    values = as_image(labels, case.image.dtype) if real else labels.astype(np.uint8, copy=False)
    more = {"origin": origin} if chosen.refers else {}
    chosen.write(np.ascontiguousarray(values), case, file, target, **more)


def _written_as(file: Path) -> Format | None:
    """The format of a new label map by its ending."""
    name = file.name.lower()
    ends = {end: one for one in FORMATS if one.refers for end in one.suffixes}
    return next((one for end, one in ends.items() if name.endswith(end)), format_of(file))


def as_image(values: NDArray[Any], like: np.dtype[Any]) -> NDArray[Any]:
    """Predicted values of an image, float32, in the type in which such an image is stored: int16
    where all values of the type `like` of the source fit in it, else float32.
    """
    whole = like.kind in "iu" and np.can_cast(like, np.int16)
    if not whole:
        return values.astype(np.float32, copy=False)
    least, most = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    return np.rint(np.clip(values, least, most)).astype(np.int16)


def suitable_format(case: Case, *, overlapping: bool = False, real: bool = False) -> str:
    """The name of the format that keeps the most of a case's label map: nifti where the case has
    the geometry for it, png for a single image of exclusive classes, else npz. `real` for the
    values of an image.
    """
    if HEADER_ATTRIBUTE in case.attributes and case.source_grid is not None:
        return "nifti"
    return "png" if case.stack == "single" and not (overlapping or real) else "npz"


def cannot_hold(
    doing: str, file: Path, slices: int, overlapping: bool, real: bool = False
) -> UsageError:
    """The error for a format that can't hold a label map; it names those that can."""
    fits = [
        format
        for format in FORMATS
        if format.holds(slices=slices, overlapping=overlapping, real=real) and not format.refers
    ]
    what = "overlapping classes" if overlapping else "exclusive classes"
    what = "an image" if real else what
    return UsageError(
        doing,
        file=file,
        expected="one of the formats "
        + ", ".join(f"{format.name} ({' '.join(format.suffixes)})" for format in fits),
        found=f"{file.name} for {slices} slice{'s' if slices > 1 else ''} of {what}",
    )
