"""`segweave evaluate`: scores of a run under a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from segweave.cli.options import (
    Checkpoint,
    Device,
    EvaluationFolder,
    Flips,
    Metrics,
    Protocol,
    Quiet,
    UseTiles,
)

EXAMPLES = (
    ("segweave evaluate runs/a", "the test cases, protocol clean"),
    (
        "segweave evaluate runs/a --part validation --protocol published",
        "as the released evaluation counts, on the validation cases",
    ),
    (
        "segweave evaluate runs/a --part validation --metric nsd --metric ece",
        "two more metrics, the second of them of probabilities",
    ),
    (
        "segweave evaluate runs/a --part validation --calibration",
        "with reliability diagrams and error against uncertainty in the report",
    ),
    (
        "segweave evaluate runs/0 --with runs/1 --with runs/2 --part validation",
        "the mean of three seeds, as a separate arm",
    ),
    (
        "segweave evaluate runs/clinicdb --store stores/etis --part all",
        "every case of another data set with the same classes",
    ),
)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)],
    protocol: Protocol = "clean",
    metric: Metrics = None,
    part: Annotated[
        Literal["test", "validation", "training", "all"],
        typer.Option(help="The cases to score; all: every case of the store."),
    ] = "test",
    checkpoint: Checkpoint = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="RUN",
            help="Average the probabilities with those of this run too (another seed). May be "
            "given several times.",
            show_default=False,
        ),
    ] = None,
    flips: Flips = "none",
    tiles: UseTiles = False,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE",
            help="The run's store, if it was moved, one of the stores that it was trained on "
            "together, or another data set with the same classes.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Also measure how far the probabilities can be trusted, before and after the "
            "temperature; drawn in the run's report.",
        ),
    ] = False,
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature/--no-temperature",
            help="Score probabilities at the temperature that segweave calibrate wrote into the "
            "model card. Labels do not depend on it.",
        ),
    ] = True,
    out: EvaluationFolder = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Score test cases a second time, or replace another evaluation."
        ),
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Score a run's model on the cases of its store, or of another one.

    Under "clean" every slice counts at the case's own size, distances are in millimetres and
    a class counts where the reference has it; "published" repeats the released evaluation,
    quirks included. Test cases are scored once: a second time needs --force, because choosing
    between models by their test scores makes the scores worthless. Label maps that exist as
    files are scored by "segweave score".
    """
    from segweave.cli.show import counter, results, score_tables
    from segweave.evaluation import summary_table
    from segweave.prediction.tiles import Tiles
    from segweave.workflow.evaluation_plan import plan_evaluation

    chosen: dict[str, Any] = {
        "part": part,
        "protocol": protocol,
        "metrics": metric or (),
        "calibration": calibration,
        "calibrated": temperature,
        "checkpoint": checkpoint,
        "members": also or (),
        "flips": flips,
        "tiles": Tiles() if tiles else None,
        "store": store,
        "out": out,
        "force": force,
    }
    # Before torch is imported, which takes seconds.
    plan_evaluation(run, **chosen)
    from segweave.workflow.evaluate import evaluate as evaluate_run

    with counter("scoring", show=not quiet) as progress:
        done = evaluate_run(run, **chosen, device=device, progress=progress)
    score_tables(summary_table([done]))
    curves = done.folder / "calibration.json" if calibration else None
    results(
        scores=done.folder / "cases.csv",
        summary=done.folder / "summary.json",
        calibration=curves,
    )
