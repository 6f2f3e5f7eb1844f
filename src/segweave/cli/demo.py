"""`segweave demo`: everything on synthetic images, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    (
        "segweave demo",
        "about three minutes on two cores; a second call continues an interrupted one",
    ),
    ("segweave demo --quick --out /tmp/demo", "as short as possible, to see that all of it runs"),
)


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path(
        "demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="As little as possible of everything.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Write synthetic hearts, train a small UNet alone and with each module, score and compare.

    Writes synthetic stacks in the layout of a public release, converts them as the real ones,
    trains every arm with the same batches, scores the test cases under both protocols, and ends
    with tables, a figure and an HTML report: about three minutes on two cores. It shows how
    everything works and is not evidence: synthetic images, minutes of training.
    """
    from segweave.cli.bars import run_bars
    from segweave.cli.show import remark, results, score_tables, shown
    from segweave.demo import HEADING, run_demo

    with run_bars(show=not quiet) as report:
        done = run_demo(out, quick=quick, report=report)
    score_tables(*done.tables, heading=HEADING)
    results(
        figure=done.figure,
        report=done.report,
        table=done.folder / "table.md",
        runs=done.folder / "runs",
        new_images=done.examples,
    )
    remark(
        f"look at them: segweave serve {shown(done.folder / 'runs' / 'unet')}, and drop a file or "
        f"a folder of {shown(done.examples)} into its page"
    )
