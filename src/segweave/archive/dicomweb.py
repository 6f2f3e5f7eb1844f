"""An archive by DICOMweb: asks for series, fetches and stores objects, in errors of this project.

Its addresses and answers hold UIDs; no name of a patient is asked for or repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segweave.archive.errors import UnreachableError, library
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats.dicom_file import read_data
from segweave.serve.gate import is_loopback

_DOING = "talking to an archive"
_TIMEOUT = (10.0, 300.0)  # seconds to connect, and between two pieces of an answer
_AT_ONCE = 500  # records of one answer
_NOT_ALLOWED = (401, 403)
_UNKNOWN = (400, 404, 405)
_STORING = "storing an object"
_DUPLICATE = 0x0111
Record = Mapping[str, Any]


class DicomWeb:
    """The DICOMweb service at an address."""

    def __init__(self, url: str, login: str | None = None) -> None:
        """Look at the address; nothing is sent.

        Args:
            url: such as http://127.0.0.1:8042/dicom-web.
            login: a bearer token, or `user:password`.

        Raises UsageError for another address, MissingExtraError without the libraries.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise UsageError(
                _DOING,
                expected="an address such as http://127.0.0.1:8042/dicom-web",
                found=repr(url.rpartition("@")[2]),
                remedy="a login goes into a file: --login-file" if "@" in parts.netloc else None,
            )
        self.url = url.rstrip("/")
        self._requests = library(_DOING, "requests")
        self._pydicom = library(_DOING, "pydicom")
        session = self._requests.Session()
        # The login must not follow to another address.
        session.max_redirects = 0
        if is_loopback(parts.hostname):
            session.trust_env = False
        user, colon, password = (login or "").partition(":")
        if colon:
            session.auth = (user, password)
        elif user:
            session.headers["Authorization"] = f"Bearer {user}"
        client = library(_DOING, "dicomweb_client").DICOMwebClient
        self._client = client(self.url, session=session, timeout=_TIMEOUT, permissive_uid=True)
        self._client.set_http_retry_params(retry=False)

    def echo(self) -> None:
        """Ask for one study. Raises UnreachableError where nothing answers, and InputError."""
        with self._asking("asking an archive"):
            self._client.search_for_studies(limit=1)

    def series(self, fields: Sequence[str], filters: Mapping[str, str]) -> list[Record]:
        """The series of the archive: records of DICOM JSON. Raises as `echo` does."""
        with self._asking("looking for series"):
            return self._pages(
                self._client.search_for_series, fields=list(fields), search_filters=dict(filters)
            )

    def count(self, study: str, series: str) -> int:
        """How many objects a series has."""
        with self._asking("looking at a series"):
            search = self._client.search_for_instances
            return len(self._pages(search, study_instance_uid=study, series_instance_uid=series))

    def _pages(self, search: Callable[..., list[Record]], **asked: Any) -> list[Record]:
        found: list[Record] = []
        while page := search(limit=_AT_ONCE, offset=len(found), **asked):
            if found and page[0] == found[0]:  # an archive that knows no offset gives all at once
                break
            # A short page need not be the last one: an archive may have a limit below ours.
            found += page
        return found

    def header(self, study: str, series: str) -> Record:
        """The header of one object of a series, {} where there is none."""
        with self._asking("looking at a series"):
            some = self._client.search_for_instances(study, series, limit=1)
            if not some:
                return {}
            metadata: Record = self._client.retrieve_instance_metadata(
                study, series, text_of(some[0], "SOPInstanceUID")[0]
            )
            return metadata

    def holds(self, study: str, object: str) -> bool:
        """Whether a study has the object of that SOP instance UID."""
        with self._asking("looking for an object"):
            filters = {"SOPInstanceUID": object}
            return bool(self._client.search_for_instances(study, search_filters=filters))

    def fetch(self, study: str, series: str, folder: Path) -> int:
        """Write the objects of a series into `folder` as 000001.dcm ...; returns how many."""
        count = 0
        with self._asking("fetching a series"):
            for data in self._client.iter_series(study, series, media_types=_ANY_SYNTAX):
                count += 1
                data.save_as(folder / f"{count:06d}.dcm", enforce_file_format=True)
        return count

    def store(self, file: Path) -> None:
        """Store the object in a file; one that is there already is as good.

        Raises SegweaveError with the archive's reason where it refuses.
        """
        data = read_data(self._pydicom, file, _STORING)
        with self._asking(_STORING):
            answer = self._client.store_instances([data])
        for item in answer.get("FailedSOPSequence", ()):
            reason = int(item.get("FailureReason", 0))
            if reason != _DUPLICATE:
                raise SegweaveError(
                    _STORING,
                    expected="an archive that takes it",
                    found=f"it was refused with the reason 0x{reason:04X}",
                    remedy="look at the log of the archive",
                )

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        errors = self._requests.exceptions
        try:
            yield
        except SegweaveError:
            raise
        except errors.HTTPError as error:
            raise self._refused(doing, error.response.status_code) from None
        except (errors.InvalidJSONError, errors.TooManyRedirects) as error:
            raise self._other(doing, type(error).__name__) from None
        except errors.RequestException as error:
            raise UnreachableError(
                doing,
                expected=f"an archive that answers at {self.url}",
                found=_reason(error),
                remedy="start it, or correct the address",
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._other(doing, type(error).__name__) from None
        except self._pydicom.errors.InvalidDicomError as error:
            raise self._other(doing, type(error).__name__) from None

    def _refused(self, doing: str, status: int) -> SegweaveError:
        if status in (429, 502, 503, 504):
            return UnreachableError(doing, found=f"the archive is not ready (status {status})")
        if status in _NOT_ALLOWED:
            return InputError(
                doing,
                expected=f"an archive at {self.url} that allows it",
                found=f"it asks for a login, or for other rights (status {status})",
                remedy="give --login-file FILE, with user:password or a token in it",
            )
        if status in _UNKNOWN and doing != _STORING:
            return self._other(doing, f"status {status}")
        return SegweaveError(
            doing,
            found=f"the archive refused it with status {status}",
            remedy="look at the log of the archive",
        )

    def _other(self, doing: str, found: str) -> InputError:
        return InputError(
            doing,
            expected=f"a DICOMweb service at {self.url}",
            found=f"something else ({found})",
            remedy="give its whole address; that of Orthanc ends in /dicom-web",
        )


_ANY_SYNTAX = (("application/dicom", "*"),)


def text_of(record: Record, keyword: str) -> list[str]:
    """The values of an attribute in DICOM JSON as texts; names of people are left out."""
    from pydicom.datadict import tag_for_keyword

    found = record.get(f"{tag_for_keyword(keyword):08X}")
    values = found.get("Value", ()) if isinstance(found, Mapping) else ()
    return [str(value) for value in values if isinstance(value, str | int | float)]


def _reason(error: BaseException) -> str:
    """What the system said, without the library's words around it."""
    while error.__cause__ or error.__context__ or getattr(error, "reason", None):
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return getattr(error, "strerror", None) or type(error).__name__
