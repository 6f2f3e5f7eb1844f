"""`segweave watch`: new series of a folder or an archive are segmented, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from segweave.cli.options import Device, LoginFile, Precision

EXAMPLES = (
    (
        "segweave watch runs/a incoming --modality CT --out results",
        "a folder into which series are copied",
    ),
    (
        "segweave watch models/liver http://127.0.0.1:8042/dicom-web --rule liver.yaml",
        "an archive, by a rule in a file",
    ),
    (
        "segweave watch runs/a incoming --description '*axial*' --minimum-slices 20 --once",
        "what is there now, for a scheduler",
    ),
    ("segweave watch --list", "what was done, and what failed"),
)
_DOING = "watching"


def watch(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="A run folder or a model folder.", show_default=False),
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="A folder with DICOM files, or the URL of a DICOMweb service.",
            show_default=False,
        ),
    ] = None,
    rule: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Which series are segmented: modality, body_part, description, minimum_slices, "
            "attributes. The options below replace what the file says.",
            show_default=False,
        ),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Only this modality (CT, MR). May be given several times.",
            show_default=False,
        ),
    ] = None,
    body_part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only where BodyPartExamined fits; * stands for anything.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only where SeriesDescription fits.", show_default=False
        ),
    ] = None,
    minimum_slices: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Only series of at least N slices.", show_default=False
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATTERN",
            help="Only where this DICOM attribute fits (Manufacturer=SIEMENS*). May be given "
            "several times.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Of a folder: where results go. Default: a folder beside it, "
            "SOURCE-segmentations. Results of an archive go back into it.",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="The folder of the ledger: what was done with each series."
        ),
    ] = Path("segweave-watch"),
    format: Annotated[
        Literal["dicom-seg", "nifti"],
        typer.Option(help="What results are; an archive takes dicom-seg alone."),
    ] = "dicom-seg",
    settle: Annotated[
        float,
        typer.Option(
            metavar="S", min=0, help="A series is complete when it has not changed for S seconds."
        ),
    ] = 30.0,
    every: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds between two looks.")
    ] = 10.0,
    tries: Annotated[
        int, typer.Option(metavar="N", min=1, help="How often a series is tried.")
    ] = 3,
    once: Annotated[
        bool, typer.Option("--once", help="End after one round: what is there now.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what was given up.")
    ] = False,
    list: Annotated[
        bool, typer.Option("--list", help="Show the ledger instead of watching.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --list: as JSON.")] = False,
    login_file: LoginFile = None,
    device: Device = "auto",
    precision: Precision = "32",
) -> None:
    """Segment every new series of a folder or an archive that fits a rule, and store the result.

    Research software, not a medical device. The source is looked at regularly. A series is taken
    when it is complete, segmented once, and its result goes into a folder or back into the archive,
    under the study of its images. What was done is in a ledger, so that after a crash the same
    command goes on, and nothing is segmented or stored twice. An archive that does not answer is
    waited for. A series that fails is tried again some times; `segweave watch --list` shows why it
    failed. Names of patients are in no line that is printed and in no file name.

    Ctrl-C ends it after the current series; a second Ctrl-C at once.
    """
    from segweave.errors import UsageError

    if list:
        _list(state, json)
        return
    if model is None or source is None:
        raise UsageError(
            _DOING,
            expected="MODEL and SOURCE: a run folder, and a folder or an address",
            found="none" if model is None else "one of them",
            remedy="segweave watch runs/a incoming, or segweave watch --list",
        )
    if json:
        raise UsageError(_DOING, expected="--json with --list", found="--json alone")
    from segweave.archive.rule import read_rule

    asked = read_rule(
        rule,
        modality=modality,
        body_part=body_part,
        description=description,
        minimum_slices=minimum_slices,
        attributes=_attributes(attribute or []),
    )
    _run(
        model,
        _source(source, out, format, login_file, asked),
        state,
        asked,
        {
            "format": format,
            "settle": settle,
            "every": every,
            "tries": tries,
            "once": once,
        },
        retry_failed,
        device,
        precision,
    )


def _source(source: str, out: Path | None, format: str, login_file: Path | None, rule: Any) -> Any:
    """The folder or the archive that SOURCE names. Raises UsageError for options that don't fit."""
    from segweave.archive.sources import FolderSource, WebSource
    from segweave.errors import InputError, UsageError
    from segweave.serve.token import read_token

    if "://" in source:
        if out is not None or format != "dicom-seg":
            raise UsageError(
                "watching an archive",
                expected="results in the format dicom-seg, which go back into it",
                found=f"--out {out}" if out is not None else f"--format {format}",
            )
        login = None if login_file is None else read_token(login_file, shortest=1, what="a login")
        return WebSource(source, login, keywords=rule.keywords, modality=rule.one_modality)
    if login_file is not None:
        raise UsageError(
            "watching a folder", expected="--login-file with an address", found="a folder"
        )
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(
            _DOING,
            file=folder,
            expected="a folder, or an address such as http://127.0.0.1:8042/dicom-web",
            found="a file" if folder.exists() else "nothing there",
        )
    whole = folder.resolve()
    results = out if out is not None else whole.with_name(f"{whole.name}-segmentations")
    if results.resolve() == whole:
        raise UsageError(
            _DOING, expected="another folder for results", found="the one that is watched"
        )
    return FolderSource(folder, results)


def _attributes(given: list[str]) -> dict[str, str]:
    from segweave.errors import UsageError

    pairs = [one.partition("=") for one in given]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise UsageError(
                "choosing series", expected="--attribute NAME=PATTERN", found=repr(name)
            )
    return {name: pattern for name, _, pattern in pairs}


def _run(
    model: Path,
    source: Any,
    state: Path,
    rule: Any,
    settings: dict[str, Any],
    retry_failed: bool,
    device: str,
    precision: Literal["32", "bf16"],
) -> None:
    import sys
    import time

    from segweave.archive.watching import WatchSettings
    from segweave.archive.watching import watch as run
    from segweave.cli.show import remark, results
    from segweave.errors import SegweaveError
    from segweave.prediction import load
    from segweave.words import printable_line

    def say(text: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        sys.stdout.write(f"{now} {printable_line(text)}\n")
        sys.stdout.flush()

    if not rule.model_dump(exclude_defaults=True):
        remark("no rule: every series of images is segmented")
    session = load(model, device=device, precision=precision).session()
    say(f"watching {source.name}")
    report = run(
        session,
        source,
        state,
        rule=rule,
        settings=WatchSettings(**settings),
        retry_failed=retry_failed,
        say=say,
    )
    results(stored=f"{report.stored} series", ledger=state.absolute())
    if report.failed_tries and settings["once"]:
        raise SegweaveError(
            "watching: some series failed",
            found=f"{report.failed_tries} of {report.failed_tries + report.stored}",
            remedy=f"look at them with segweave watch --list --state {state}",
        )


def _list(state: Path, as_json: bool) -> None:
    from dataclasses import asdict
    from datetime import datetime

    from segweave.archive.ledger import FILE, Ledger
    from segweave.cli.show import as_json as show_json
    from segweave.cli.show import table
    from segweave.errors import InputError

    if not (state / FILE).is_file():
        raise InputError(
            "listing what a watch did",
            file=state,
            expected=f"a folder with {FILE}",
            found="none" if state.exists() else "nothing there",
            remedy="give the folder with --state",
        )
    ledger = Ledger(state / FILE)
    entries = ledger.every()
    ledger.close()
    if as_json:
        show_json([asdict(entry) for entry in entries])
        return
    rows = [
        (
            entry.uid,
            entry.modality,
            str(entry.slices),
            entry.state,
            str(entry.attempts),
            datetime.fromtimestamp(entry.changed).strftime("%Y-%m-%d %H:%M"),
            "; ".join(
                filter(
                    None,
                    [
                        entry.message or entry.place,
                        "it has changed since, and was not segmented again" if entry.grew else "",
                    ],
                )
            ),
        )
        for entry in entries
    ]
    columns = ("series", "modality", "slices", "state", "tries", "when", "where, or why not")
    table(f"{len(rows)} series in {state}", columns, rows)
