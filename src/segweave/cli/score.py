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
        "segweave score labels/ truth/ --out scores --group '^(p[0-9]+)_' --images images/ "
        "--page scores.html",
        "p12_left and p12_right are of one patient; a page with pictures",
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
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Finds the patient or video in the name of a case, where the table states none: "
            "the first bracket, or the whole match.",
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
            help="Names of the classes from id 1 on, joined with commas; background may be given "
            "before them.",
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
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The images, over which --page and segweave compare draw the label maps.",
            show_default=False,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write a page too: the table, the worst, median and best case, all cases.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Score a folder of label maps against a folder of true ones with the same names.

    The label maps may come from segweave, from nnU-Net, from any other program or from a
    person. Files with equal names belong together first; then names are compared without _gt,
    _mask, _segmentation and the like. Every file that is missing, left over or does not fit is
    listed, and nothing is written then; a note names images that were passed over.
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
            group=group,
            images=images,
            stack=stack,
            classes=[name.strip() for name in classes.split(",")] if classes else None,
            geometry=geometry,
            mask_threshold=mask_threshold,
            force=force,
            progress=progress,
        )
    score_tables(summary_table([done]))
    written = None
    if page is not None:
        from segweave.report import write_scores

        written = write_scores(done, page)
    results(scores=done.folder / "cases.csv", summary=done.folder / "summary.json", page=written)
