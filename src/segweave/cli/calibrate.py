"""`segweave calibrate`: a temperature, fitted on validation cases, for honest probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from segweave.cli.options import Device, Flips, Quiet, UseTiles

EXAMPLES = (
    ("segweave calibrate runs/a", "the model of a run"),
    (
        "segweave calibrate runs/0 --with runs/1 --with runs/2 --flips rows",
        "the mean of three runs and their mirror images",
    ),
    (
        "segweave calibrate models/heart --store stores/acdc",
        "a model folder, on the validation part of a data set",
    ),
)


def calibrate(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder or a model folder.", show_default=False),
    ],
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="RUN",
            help="Calibrate the mean with this run. May be given several times.",
            show_default=False,
        ),
    ] = None,
    flips: Flips = "none",
    tiles: UseTiles = False,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE",
            help="The run's store, if it was moved; for a model folder a data set with a "
            "validation part.",
            show_default=False,
        ),
    ] = None,
    voxels: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, help="How many voxels are sampled at most.")
    ] = 200_000,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Seed of the sample.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the temperature that was fitted before.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Fit the temperature that makes a model's probabilities as certain as they are right.

    One number, fitted to the least negative log likelihood on voxels of the validation cases,
    never on test cases, and kept in the model card. "segweave predict" and "segweave evaluate"
    use it from then on for the probabilities of the same models, flips and tiles. Labels do not
    change.
    """
    from segweave.cli.show import counter, results, table
    from segweave.prediction.tiles import Tiles
    from segweave.workflow.calibration_plan import plan_calibration

    chosen: dict[str, Any] = {
        "members": also or (),
        "flips": flips,
        "tiles": Tiles() if tiles else None,
        "store": store,
        "force": force,
    }
    # Before torch is imported, which takes seconds.
    plan_calibration(run, **chosen)
    from segweave.workflow.calibrate import calibrate as fit

    with counter("calibrating", show=not quiet) as progress:
        done = fit(run, **chosen, voxels=voxels, seed=seed, device=device, progress=progress)
    rows = [
        ("negative log likelihood", *done.nll),
        ("ECE", *done.ece),
        ("ECE, foreground", *done.ece_foreground),
    ]
    table(
        f"temperature {done.temperature:g}",
        ("validation cases", "before", "after"),
        [(name, f"{before:.4f}", f"{after:.4f}") for name, before, after in rows],
        note=f"{done.voxels:,} voxels of {done.cases} validation cases; ECE with 15 bins",
    )
    results(model_card=done.card)
