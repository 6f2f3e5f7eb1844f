"""`segweave compare`: does one arm beat another, for new patients and new trainings?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    (
        "segweave compare runs/*/evaluation/clean --reference unet",
        "all arms, seeds and folds at once, joined by arm",
    ),
    (
        "segweave compare scores/a scores/b --reference a --margin 0.01 --out a-b.html",
        "is b as good as a, give or take 0.01 Dice? with pictures",
    ),
    ("segweave compare --published", "the significance that the source papers print, recomputed"),
)


def compare(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER...",
            help="Evaluation folders of all arms, seeds and folds.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="ARM", help="The arm that the others are compared with.", show_default=False
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="DICE",
            help="A difference too small to matter, such as 0.01: tests whether arms are "
            "equivalent.",
            show_default=False,
        ),
    ] = None,
    training_groups: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Of folds: how many groups each was trained on. Evaluations of runs say it; of "
            "other predictions it is taken to be all that the fold was not tested on.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write the comparison too: .md, .tex, .csv, or .html with pictures. May be given "
            "several times.",
            show_default=False,
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Instead: recompute the significance tables of the source papers from the Dice "
            "values that they print.",
        ),
    ] = False,
) -> None:
    """Compare arms from their evaluation folders, whoever made the predictions.

    The unit is the group (patient, video), and trainings are a sample too: the main test asks
    whether a difference would show again with new groups and new seeds. Below six groups it gives
    no p-value, below three seeds it speaks of these weights only. One endpoint, the macro Dice,
    is tested, with Holm's correction over the arms; everything else is exploratory.

    Arms under different protocols, on different cases, or known to be chosen by different rules
    are refused.
    """
    from segweave.cli.show import results, score_tables
    from segweave.errors import UsageError
    from segweave.words import printable_line

    if published:
        from segweave.comparison.published_tables import published_tables

        if folders or out or any(x is not None for x in (reference, margin, training_groups)):
            raise UsageError(
                "reading the command line",
                expected="--published alone",
                found="folders or options beside it",
            )
        score_tables(*published_tables())
        return
    if not folders or reference is None:
        raise UsageError(
            "reading the command line",
            expected="evaluation folders and --reference ARM",
            found="no folders" if not folders else "no --reference",
            remedy="segweave compare scores/a scores/b --reference a; for one arm over its seeds "
            "and folds, segweave summarise RUN...",
        )
    from segweave.comparison import compare as compare_arms
    from segweave.comparison import comparison_tables
    from segweave.report.comparison_report import write_comparison

    comparison = compare_arms(folders, reference, margin=margin, training_groups=training_groups)
    written = [write_comparison(comparison, path) for path in out or ()]
    verdicts = "\n".join(f"{printable_line(verdict)}\n" for verdict in comparison.verdicts)
    # In a terminal the end is seen first, in a file the beginning.
    in_a_file = not sys.stdout.isatty()
    if in_a_file:
        typer.echo(verdicts)
    score_tables(*comparison_tables(comparison))
    if not in_a_file:
        typer.echo(verdicts)
    for path in written:
        results(comparison=path)
