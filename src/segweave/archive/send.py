"""Sends DICOM files to an archive: C-STORE, or DICOMweb (STOW-RS)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from segweave.archive.dicomweb import DicomWeb
from segweave.archive.errors import UnreachableError, library
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats.dicom_file import is_dicom, read_data
from segweave.formats.files import visible
from segweave.runtime.progress import Progress

_DOING = "sending"
_MOST_CONTEXTS = 127  # of an association; one is for the echo
_RECONNECTS = 3
_TIMEOUT = 60.0
_AET = re.compile(r"[ !#-\[\]-~]{1,16}")
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")


class Peer(NamedTuple):
    """Where C-STORE goes."""

    host: str
    port: int


class Object(NamedTuple):
    """A DICOM file, with its kind and how it is encoded."""

    file: Path
    kind: str
    syntax: str


@dataclass
class SendReport:
    """What was sent.

    Attributes:
        sent: the files that the archive has taken.
        warnings: those that it took with a warning → the warning.
        failures: the others → why.
    """

    sent: list[Path] = field(default_factory=list)
    warnings: dict[Path, str] = field(default_factory=dict)
    failures: dict[Path, SegweaveError] = field(default_factory=dict)


def parse_address(text: str) -> Peer | str:
    """An address: host:port of a DICOM node, or the URL of a DICOMweb service.

    Raises UsageError.
    """
    if "://" in text:
        return text
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise UsageError(
            _DOING,
            expected="host:port, such as 127.0.0.1:4242, or the address of a DICOMweb service, "
            "such as http://127.0.0.1:8042/dicom-web",
            found=repr(text),
        )
    return Peer(match["v6"] or match["host"], int(match["port"]))


def find_objects(inputs: Sequence[str | Path]) -> list[Object]:
    """The DICOM files among files and in folders (with their subfolders), each once.

    Raises InputError for a file that is not DICOM, for a damaged one and where there is none.
    """
    pydicom = library(_DOING, "pydicom")
    files: dict[Path, None] = {}
    for path in map(Path, inputs):
        if path.is_dir():
            some = [one for one in visible(path, _DOING) if one.is_file() and is_dicom(one)]
            some = [one for one in some if one.name.upper() != "DICOMDIR"]
            if not some:
                raise InputError(_DOING, file=path, expected="DICOM files", found="none")
        else:
            some = [path]
        files |= dict.fromkeys(some)
    return [_object(pydicom, file) for file in files]


def _object(pydicom: Any, file: Path) -> Object:
    data = read_data(
        pydicom,
        file,
        _DOING,
        stop_before_pixels=True,
        specific_tags=["SOPClassUID", "SOPInstanceUID"],
    )
    meta = getattr(data, "file_meta", {})
    syntax = str(meta.get("TransferSyntaxUID", ""))
    kind = str(data.get("SOPClassUID", ""))
    missing = [
        name
        for name, value in (
            ("TransferSyntaxUID", syntax),
            ("SOPClassUID", kind),
            ("SOPInstanceUID", data.get("SOPInstanceUID")),
        )
        if not value
    ]
    if missing:
        raise InputError(
            _DOING,
            file=file,
            expected="a DICOM file that states what it is",
            found="no " + ", ".join(missing),
            remedy="export it again, or rewrite its header (for instance with dcmconv)",
        )
    return Object(file, kind, syntax)


def send(
    inputs: Sequence[str | Path],
    to: str,
    *,
    aet: str = "SEGWEAVE",
    called: str = "ANY-SCP",
    login: str | None = None,
    progress: Progress | None = None,
) -> SendReport:
    """Send DICOM files and folders of them; sending again what the archive has does no harm.

    Args:
        inputs: files and folders.
        to: host:port of a DICOM node (C-STORE), or the URL of a DICOMweb service.
        aet: the AE title of this program, for C-STORE.
        called: the AE title of the archive, for C-STORE.
        login: for DICOMweb, a token or `user:password`.
        progress: called with the number of files done, of all files, and "".

    The archive is asked first whether it is there (C-ECHO, or a search). A file that it refuses is
    in the report, and the others are sent; where the connection is lost it is made again.

    Raises InputError for what is not DICOM, UsageError for a wrong address or AE title,
    UnreachableError where nothing answers, MissingExtraError without the extra `dicom`.
    """
    address = parse_address(to)
    for title in (aet, called):
        if not _AET.fullmatch(title) or not title.strip():
            raise UsageError(
                _DOING, expected="an AE title of 1 to 16 characters of ASCII", found=repr(title)
            )
    web = None if isinstance(address, Peer) else DicomWeb(address, login)
    objects = find_objects(inputs)
    report = SendReport()

    def done() -> None:
        if progress is not None:
            progress(len(report.sent) + len(report.failures), len(objects), "")

    if web is not None:
        _by_web(web, objects, report, done)
    else:
        assert isinstance(address, Peer)
        for some in _groups(objects):
            _by_store(some, address, aet, called, report, done)
    return report


def _by_web(
    web: DicomWeb, objects: Sequence[Object], report: SendReport, done: Callable[[], None]
) -> None:
    web.echo()
    for one in objects:
        try:
            web.store(one.file)
        except SegweaveError as error:
            report.failures[one.file] = error
        else:
            report.sent.append(one.file)
        done()


def _groups(objects: Sequence[Object]) -> Iterator[list[Object]]:
    """Objects whose kinds and encodings fit into one association."""
    some: list[Object] = []
    kinds: set[tuple[str, str]] = set()
    for one in objects:
        if len(kinds | {one[1:]}) > _MOST_CONTEXTS:
            yield some
            some, kinds = [], set()
        some.append(one)
        kinds.add(one[1:])
    yield some


def _by_store(
    objects: Sequence[Object],
    peer: Peer,
    aet: str,
    called: str,
    report: SendReport,
    done: Callable[[], None],
) -> None:
    waiting, lost = list(objects), 0
    while waiting:
        with _associated(waiting, peer, aet, called) as association:
            accepted = {
                (str(context.abstract_syntax), str(syntax))
                for context in association.accepted_contexts
                for syntax in context.transfer_syntax
            }
            while waiting:
                one = waiting[0]
                if (one.kind, one.syntax) not in accepted:
                    report.failures[one.file] = _not_taken(one)
                else:
                    status = _store(association, one, report)
                    if status is None:
                        # The connection is gone; whether the file arrived is not known.
                        lost += 1
                        if lost > _RECONNECTS:
                            raise _lost(peer, report, len(waiting))
                        break
                waiting.pop(0)
                done()


def _store(association: Any, one: Object, report: SendReport) -> int | None:
    """Send one object; its status, or None where the connection was lost."""
    try:
        status = (
            association.send_c_store(one.file).get("Status")
            if (association.is_established)
            else None
        )
    except (ValueError, AttributeError, OSError) as error:
        report.failures[one.file] = InputError(
            _DOING, file=one.file, expected="a whole DICOM file", found=type(error).__name__
        )
        return 0
    if status is None:
        return None
    if status == 0 or 0xB000 <= status <= 0xBFFF:
        report.sent.append(one.file)
        if status:
            report.warnings[one.file] = f"the archive changed it (status 0x{status:04X})"
    else:
        report.failures[one.file] = SegweaveError(
            _DOING,
            file=one.file,
            expected="an archive that takes it",
            found=f"status 0x{status:04X}, {_meaning(status)}",
            remedy="look at the log of the archive",
        )
    return int(status)


def _meaning(status: int) -> str:
    if status >> 8 == 0xA7:
        return "it is out of resources"
    if status >> 8 == 0xA9:
        return "the data do not fit their kind"
    if status >> 12 == 0xC:
        return "it does not understand it"
    return {0x0122: "it does not take this kind", 0x0124: "it does not allow it"}.get(
        status, "a failure"
    )


def _not_taken(one: Object) -> SegweaveError:
    uid = library(_DOING, "pydicom").uid.UID
    return SegweaveError(
        _DOING,
        file=one.file,
        expected="an archive that takes this kind and encoding",
        found=f"it refuses {uid(one.kind).name} as {uid(one.syntax).name}",
        remedy="decompress the file first (for instance with dcmdjpeg), or allow it in the archive",
    )


def _lost(peer: Peer, report: SendReport, left: int) -> SegweaveError:
    return UnreachableError(
        _DOING,
        expected=f"a connection to {peer.host}:{peer.port} that stays",
        found=f"it broke again and again; {len(report.sent)} files were taken, {left} were not",
        remedy="the same command sends all of them again, which does no harm",
    )


@contextmanager
def _associated(objects: Sequence[Object], peer: Peer, aet: str, called: str) -> Iterator[Any]:
    """An association that was echoed, with a context for each kind and encoding."""
    net = library(_DOING, "pynetdicom")
    verification = "1.2.840.10008.1.1"
    entity = net.AE(ae_title=aet)
    entity.connection_timeout = entity.acse_timeout = 10.0
    entity.dimse_timeout = entity.network_timeout = _TIMEOUT
    contexts = [net.build_context(verification)]
    pairs = dict.fromkeys(one[1:] for one in objects)
    contexts += [net.build_context(kind, syntax) for kind, syntax in pairs]
    net._config.STORE_SEND_CHUNKED_DATASET = True
    association = entity.associate(peer.host, peer.port, contexts=contexts, ae_title=called)
    where = f"{peer.host}:{peer.port}"
    if not association.is_established:
        rejected = association.is_rejected
        raise UnreachableError(
            _DOING,
            expected=f"a DICOM node at {where}",
            found="it refuses the connection" if rejected else "nothing answers there",
            remedy=f"allow the AE title {aet} there, and give the node's own with --called"
            if rejected
            else "start it, or correct the address",
        )
    try:
        kinds = {str(context.abstract_syntax) for context in association.accepted_contexts}
        if verification in kinds and association.send_c_echo().get("Status") != 0:
            raise UnreachableError(
                _DOING, expected=f"a DICOM node at {where}", found="no answer to an echo"
            )
        yield association
    finally:
        if association.is_established:
            association.release()
