"""DICOM in and out of archives: files are sent, new series are found, segmented and stored back.

It needs the extra `dicom`; what is imported here does not.
"""

from segweave.archive.errors import UnreachableError
from segweave.archive.rule import Rule, read_rule

__all__ = ["Rule", "UnreachableError", "read_rule"]
