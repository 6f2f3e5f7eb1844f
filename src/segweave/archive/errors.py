"""Errors of talking to an archive, and its libraries with their talk switched off."""

from __future__ import annotations

import logging
from typing import Any

from segweave.errors import MissingExtraError, SegweaveError
from segweave.serve.messages import silence_readers


class UnreachableError(SegweaveError):
    """An archive does not answer now; it may later."""


def library(doing: str, name: str) -> Any:
    """Import a library of the extra `dicom`; what it logs quotes headers, so it logs nothing.

    Raises MissingExtraError.
    """
    import importlib

    silence_readers()
    for noisy in ("pynetdicom", "dicomweb_client", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL + 1)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).split(".")[0].replace("_", "-")
        raise MissingExtraError(doing, library=missing, extra="dicom") from error
