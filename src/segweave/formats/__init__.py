"""Images in and label maps out: NIfTI, MHA, NRRD, DICOM (in), HDF5, npz, npy, PNG, JPEG, TIFF and
BMP.
"""

from segweave.formats.files import (
    SUFFIXES,
    case_name,
    find_images,
    label_name,
    suffix_of,
)
from segweave.formats.guard import as_label, check_finite, check_labels
from segweave.formats.read import read_array, read_case, read_label, read_label_case
from segweave.formats.write import write_label

__all__ = [
    "SUFFIXES",
    "as_label",
    "case_name",
    "check_finite",
    "check_labels",
    "find_images",
    "label_name",
    "read_array",
    "read_case",
    "read_label",
    "read_label_case",
    "suffix_of",
    "write_label",
]
