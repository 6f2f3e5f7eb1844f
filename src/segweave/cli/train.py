"""`segweave train`: a recipe and a store in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segweave.cli.options import Device, Quiet

EXAMPLES = (
    (
        "segweave train acdc-unet-128-sa-lstm --store stores/acdc --out runs/a",
        "a published recipe by name",
    ),
    (
        "segweave train mine.yaml --store stores/mine --out runs/b --set training.epochs=10",
        "a file of yours, one field overridden",
    ),
    (
        "segweave train acdc-unet-128 --store stores/acdc --out runs/c --seed 1",
        "the same command again continues an interrupted run, bit for bit",
    ),
)


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="The name of a published recipe or a YAML file.")
    ],
    store: Annotated[
        Path,
        typer.Option(metavar="STORE", help="What `segweave prepare` wrote.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(metavar="RUN", help="The run folder to write.", show_default=False)
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override one field of the recipe, such as network.options.width=8. "
            "May be given several times.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Override the recipe's seed.")
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Cross-validation: use the store's split fold-K, whose test cases are fold K.",
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Override the recipe's precision.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Continue what the run folder holds, or refuse."),
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Train a network as a recipe says, on a store that `segweave prepare` wrote.

    The run folder holds all that is needed to repeat, continue and use the training: the
    recipe with every default written out, the environment, the curves, the checkpoints and
    the model. Every choice is made on the validation cases; test cases are not touched.
    """
    from segweave.cli.show import counter, results
    from segweave.workflow.train import train as train_run

    with counter("training", show=not quiet) as progress:
        run = train_run(
            recipe,
            store,
            out,
            sets=sets or (),
            seed=seed,
            fold=fold,
            device=device,
            precision=precision,
            resume=resume,
            progress=progress,
        )
    results(
        run=run.folder,
        model=run.folder / "model",
        curves=run.folder / "metrics.csv",
        report=run.report,
    )
