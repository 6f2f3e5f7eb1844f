"""`segweave summarise`: the scores of runs, seeds and folds, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    ("segweave summarise runs/cv", "all runs of a cross-validation: every case once"),
    (
        "segweave summarise runs/cv/*/fold-* --evaluation published --out cv.md",
        "under another protocol, written to a file too",
    ),
)


def summarise(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Runs, a folder of runs, or evaluation folders.",
            show_default=False,
        ),
    ],
    evaluation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The evaluation in each run: clean, published, clean-validation.",
        ),
    ] = "clean",
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write the tables too: .md, .tex, or .csv with one row per run. May be given "
            "several times.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Put the scores of runs together: one row per arm, over all its seeds and folds.

    Of a cross-validation every case is in the table once, with the scores of the fold that was
    not trained on it. One arm is enough; nothing is tested, "segweave compare" does that.
    """
    from segweave.cli.show import results, score_tables
    from segweave.comparison.pooling import pool, write_pooled

    pooled = pool(runs, evaluation=evaluation)
    written = [write_pooled(pooled, path) for path in out or ()]
    score_tables(pooled.table, pooled.runs)
    for path in written:
        results(summary=path)
