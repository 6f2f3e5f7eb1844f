"""`segweave rank`: which cases to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from segweave.cli.options import Device, Flips, Force, Geometry, Quiet, UseTiles

EXAMPLES = (
    ("segweave rank stores/mine --run runs/a --out ranking", "the unlabelled cases of a store"),
    (
        "segweave rank scans/ --run runs/0 --run runs/1 --by mutual-information --diverse "
        "--out ranking",
        "a folder of images: where two runs disagree, and not near-duplicates first",
    ),
)
_SHOWN = 20


def rank(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="STORE|FOLDER", help="A store, or a folder of images.", show_default=False
        ),
    ],
    run: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN",
            help="The run whose uncertainty counts. Several are averaged.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="The folder for rank.csv, rank.json and rank.html.",
            show_default=False,
        ),
    ],
    by: Annotated[
        Literal["entropy", "mutual-information"],
        typer.Option(
            help="The entropy of the probabilities, or how far several runs or flips disagree."
        ),
    ] = "entropy",
    diverse: Annotated[
        bool,
        typer.Option(
            "--diverse",
            help="Put cases that the encoder sees as near-duplicates of earlier ones later.",
        ),
    ] = False,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled",
            help="Rank cases that have labels too; never those that a run learned from or is "
            "tested on.",
        ),
    ] = False,
    pictures: Annotated[
        int,
        typer.Option(metavar="NUMBER", min=0, help="How many of the first cases are drawn."),
    ] = 12,
    flips: Flips = "none",
    tiles: UseTiles = False,
    geometry: Geometry = "check",
    force: Force = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """List cases without labels in the order in which labelling them should teach most.

    A case scores the mean uncertainty of the pixels near the predicted boundaries; where nothing
    is predicted, that of its most uncertain pixels. Write labels for the first cases, prepare the
    data set again, and train again.
    """
    from segweave.cli.show import counter, remark, results, table
    from segweave.errors import InputError
    from segweave.prediction.tiles import Tiles
    from segweave.workflow.rank_plan import CSV, JSON, plan_ranking

    chosen: dict[str, Any] = {
        "by": by,
        "flips": flips,
        "labelled": labelled,
        "geometry": geometry,
        "force": force,
    }
    # Before torch is imported, which takes seconds.
    plan_ranking(source, run, out, **chosen)
    from segweave.workflow.rank import rank as rank_cases

    with counter("ranking", show=not quiet) as progress:
        done = rank_cases(
            source,
            run,
            out,
            **chosen,
            tiles=Tiles() if tiles else None,
            diverse=diverse,
            pictures=pictures,
            device=device,
            progress=progress,
        )
    if done.labelled:
        remark(f"{done.labelled} cases have a label and are left out (--labelled ranks them too)")
    if done.known:
        remark(f"{done.known} cases that the runs learned from or are tested on are left out")
    columns = ("case", "score", "slice", "region") + (("distance",) if diverse else ())
    rows = [
        (one.case, f"{one.score:.4f}", str(one.slice + 1), one.region)
        + (("–" if one.distance is None else f"{one.distance:.3f}",) if diverse else ())
        for one in done.cases[:_SHOWN]
    ]
    more = len(done.cases) - _SHOWN
    note = f"and {more} more in {CSV}" if more > 0 else ""
    table("to label first", columns, rows, note=note)
    results(ranking=done.folder / CSV, json=done.folder / JSON, page=done.page)
    if done.failures:
        total = len(done.failures) + len(done.cases)
        raise InputError(
            f"ranking {len(done.failures)} of {total} cases failed",
            found="".join(f"\n    {name}: {error}" for name, error in done.failures.items()),
        )
