"""`segweave score`: scores of label maps in files, whatever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segweave.cli.options import Force, Geometry, Metrics, Protocol, Quiet

EXAMPLES = (
    (
        "segweave score labels/ truth/ --out scores --classes RV,myocardium,LV",
        "all files of the same names",
    ),
    (
        "segweave score labels/ truth/ --out scores --cases patients.csv",
        "with a table of the cases' patients",
    ),
)


def score(
    predictions: Annotated[
        Path,
        typer.Argument(metavar="PREDICTIONS", help="The folder of label maps.", show_default=False),
    ],
    references: Annotated[
        Path,
        typer.Argument(
            metavar="REFERENCES", help="The folder of true label maps.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="The evaluation folder.", show_default=False),
    ],
    protocol: Protocol = "clean",
    metric: Metrics = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="A table with the column case and any of group, part, stack, arm, seed, fold, id, "
            "slice. Parts without a file are skipped. Without groups each file is its own.",
            show_default=False,
        ),
    ] = None,
    stack: Annotated[
        Literal["space", "time", "single"] | None,
        typer.Option(
            help="What the slices of a file are, where the table does not say: space (a volume, "
            "scored in 3D), time (frames of a video, scored one by one) or single.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names of the classes from id 1 on, joined with commas.",
            show_default=False,
        ),
    ] = None,
    geometry: Geometry = "check",
    mask_threshold: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="In grey or JPEG masks, values above this are foreground (127).",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Score a folder of label maps against a folder of true ones with the same names.

    The label maps may come from segweave, from nnU-Net, from any other program or from a
    person. Names are compared without their ending and without _gt, _mask, _segmentation and
    the like. Every file that is missing, left over or does not fit is listed, and nothing is
    written then.
    """
    from segweave.cli.show import counter, results, score_tables
    from segweave.evaluation import summary_table
    from segweave.workflow.score import score as score_files

    with counter("scoring", show=not quiet) as progress:
        done = score_files(
            predictions,
            references,
            out,
            protocol=protocol,
            metrics=metric or (),
            cases=cases,
            stack=stack,
            classes=[name.strip() for name in classes.split(",")] if classes else None,
            geometry=geometry,
            mask_threshold=mask_threshold,
            force=force,
            progress=progress,
        )
    score_tables(summary_table([done]))
    results(scores=done.folder / "cases.csv", summary=done.folder / "summary.json")
