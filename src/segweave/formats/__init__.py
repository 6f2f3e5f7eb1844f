"""Images in and label maps out: NIfTI, MHA, NRRD, DICOM (out as DICOM-SEG and RTSTRUCT), HDF5, npz,
npy, PNG, JPEG, TIFF and BMP.
"""

from segweave.formats.content import Geometry
from segweave.formats.dicom_source import Origin
from segweave.formats.files import find_images
from segweave.formats.guard import as_label, check_finite
from segweave.formats.read import read_array, read_case, read_label, read_label_case
from segweave.formats.table import (
    SUFFIXES,
    case_name,
    label_format,
    label_formats,
    label_name,
    suffix_of,
    suitable_format,
    write_label,
)

__all__ = [
    "SUFFIXES",
    "Geometry",
    "Origin",
    "as_label",
    "case_name",
    "check_finite",
    "find_images",
    "label_format",
    "label_formats",
    "label_name",
    "read_array",
    "read_case",
    "read_label",
    "read_label_case",
    "suffix_of",
    "suitable_format",
    "write_label",
]
