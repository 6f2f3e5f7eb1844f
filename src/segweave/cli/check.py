"""`segweave check`: what a data set holds and what is wrong with it, before it is converted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segweave.checking import CheckReport, Problem

EXAMPLES = (
    ("segweave check downloads/ACDC", "recognised by its layout"),
    ("segweave check scans --as nnunet --strict", "leave with an error where anything is wrong"),
    ("segweave check photos/images --as folder --option masks=photos/masks", "images of your own"),
    ("segweave check scans --json > report.json", "for programs"),
    ("segweave check scans --fix resample", "put labels onto their images, by their headers"),
)

_EXAMPLES_SHOWN = 3
_DIFFER = "differs from file to file: --json lists it for each"


def check(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="The folder that holds the data set (or a CSV table).",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Which data set it is, where it is not recognised."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of that data set, as `segweave prepare NAME --help` lists them; lists "
            "are joined with commas. May be given several times.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Leave with an error where anything is wrong.")
    ] = False,
    how: Annotated[
        Literal["copy-header", "resample"] | None,
        typer.Option(
            "--fix",
            help="Fix labels that are not on their images: copy-header (their voxels are right) or "
            "resample (their headers are). The originals are kept, a log is written.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Look at everything in a data set and convert nothing.

    What was found is shown beside what was expected: cases, slices, sizes, spacing, labels, and
    whether each label is on its image, in millimetres. Every problem is listed with three
    examples and what to do. Damaged files do not end the check.
    """
    from segweave.checking import check as look
    from segweave.checking import fix
    from segweave.cli.show import as_json as print_json
    from segweave.cli.show import counter

    options = _options(option or [], name)
    with counter("checking", show=not (quiet or as_json)) as progress:
        report = look(source, name, progress=progress, **options)
    lines: list[dict[str, Any]] = []
    if how is not None:
        lines = fix(source, report.problems, how, folders=report.folders)
        with counter("checking again", show=not (quiet or as_json)) as progress:
            report = look(source, name, progress=progress, **options)
    if as_json:
        print_json({**report.to_json(), "fixes": lines})
    else:
        _print(report, lines, source)
    if strict and not report.ok:
        raise typer.Exit(2)


def _options(pairs: list[str], name: str | None) -> dict[str, Any]:
    """KEY=VALUE pairs, the values as the data set (any that knows the key) takes them."""
    from segweave.cli.values import option_from_text
    from segweave.errors import UsageError

    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key:
            raise UsageError("reading an option", expected="KEY=VALUE", found=repr(pair))
        known = _annotation(key, name)
        found[key] = text if known is None else option_from_text(key, text, known)
    return found


def _annotation(key: str, name: str | None) -> Any:
    """What an option of a data set takes, None where none has it."""
    import inspect

    from segweave.registry import datasets

    for each in datasets.cards() if name is None else [name]:
        taken = inspect.signature(datasets.entry(each), eval_str=True).parameters
        if key in taken:
            return taken[key].annotation
    return None


def _print(report: CheckReport, lines: list[dict[str, Any]], source: Path) -> None:
    from segweave.checking import log_of
    from segweave.cli.show import remark, results, table

    table(
        f"{report.source}, read as {report.name} ({report.layout})",
        ("", "found", "expected"),
        [(fact.what, fact.found, fact.expected) for fact in report.facts],
    )
    rows = []
    for kind, severity, problems in report.kinds():
        for remedy, alike in _by_remedy(problems).items():
            shown = [_example(problem, report.source) for problem in alike[:_EXAMPLES_SHOWN]]
            rows.append((f"{kind} ({severity})", str(len(alike)), "\n".join(shown), remedy))
    if rows:
        table("Problems", ("problem", "number", "examples", "what to do"), rows)
    fixed = sum(bool(line.get("done")) for line in lines)
    for line in lines:
        if not line.get("done"):
            remark(f"not fixed: {line['file']}: {line['why']}")
    count = len(report.errors)
    warned = sum(problem.severity == "warning" for problem in report.problems)
    verdict = f"{count} thing{'s' if count > 1 else ''} to fix"
    if report.ok:
        verdict = f"no errors, {warned} warnings to look at" if warned else "nothing is wrong"
    values: dict[str, Any] = {"verdict": verdict}
    if lines:
        values |= {"fixed": f"{fixed} labels", "log": log_of(source)}
    results(**values)


def _by_remedy(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """What to do → the problems for which that is to be done; those beyond three remedies are
    together.
    """
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        remedy = problem.what_to_do
        if remedy not in found and len(found) >= _EXAMPLES_SHOWN:
            remedy = _DIFFER
        found.setdefault(remedy, []).append(problem)
    return found


def _example(problem: Problem, source: Path) -> str:
    where = problem.case
    if problem.file is not None:
        try:
            where = str(problem.file.relative_to(source))
        except ValueError:
            where = str(problem.file)
    expected = f" (expected {problem.expected})" if problem.expected else ""
    return f"{where}: {problem.found}{expected}" if where else f"{problem.found}{expected}"
