"""`segweave send`: DICOM files into an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segweave.cli.options import LoginFile, Quiet

EXAMPLES = (
    ("segweave send series/ --to 127.0.0.1:4242 --called ORTHANC", "a folder, by C-STORE"),
    ("segweave send a.dcm b.dcm --to http://127.0.0.1:8042/dicom-web", "files, by DICOMweb"),
    (
        "segweave send results/ --to https://archive.example/dicom-web --login-file login",
        "to an archive that asks for a login",
    ),
)


def send(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="DICOM files, and folders with them.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="host:port of a DICOM node (C-STORE), or the URL of a DICOMweb service.",
            show_default=False,
        ),
    ],
    aet: Annotated[
        str, typer.Option(metavar="TITLE", help="The AE title of this program, for C-STORE.")
    ] = "SEGWEAVE",
    called: Annotated[
        str, typer.Option(metavar="TITLE", help="The AE title of the archive, for C-STORE.")
    ] = "ANY-SCP",
    login_file: LoginFile = None,
    quiet: Quiet = False,
) -> None:
    """Send DICOM files to an archive, by C-STORE or by DICOMweb.

    The archive is asked first whether it is there (C-ECHO, or a search). Every file is accounted
    for: what the archive refuses is listed with its reason, the others are sent, and the exit code
    is 0 only where the archive has taken all. Sending a file again does no harm. In folders, files
    that are not DICOM are left out.

    C-STORE is not encrypted. Give an https address, or send within one machine or a network that
    you trust.
    """
    from segweave.archive.send import send as run
    from segweave.cli.show import counter, remark, results
    from segweave.errors import SegweaveError, one_line
    from segweave.serve.token import read_token

    login = None if login_file is None else read_token(login_file, shortest=1, what="a login")
    with counter("sending", show=not quiet) as progress:
        report = run(inputs, to, aet=aet, called=called, login=login, progress=progress)
    for file, text in report.warnings.items():
        remark(f"{file}: {text}")
    results(sent=f"{len(report.sent)} files to {to}")
    if report.failures:
        total = len(report.sent) + len(report.failures)
        lines = [f"\n    {file}: {one_line(error)}" for file, error in report.failures.items()]
        raise SegweaveError(
            f"sending: the archive has not taken {len(report.failures)} of {total} files",
            found="".join(lines),
            remedy=next(iter(report.failures.values())).remedy,
        )
