"""`segweave train`: a recipe and a store in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from segweave.cli.options import Device, Quiet
from segweave.cli.plan import Weights

EXAMPLES = (
    (
        "segweave train acdc-unet-128 --store stores/acdc --out runs/unet",
        "a shipped recipe by name",
    ),
    (
        "segweave train acdc-unet-128 --context sa-lstm --at bottleneck --slices 3 --store "
        "stores/acdc --out runs/sa-lstm",
        "the same with a context module",
    ),
    (
        "segweave train mine.yaml --start-from runs/unet --store stores/mine --out runs/mine",
        "from the weights of a finished run",
    ),
    (
        "segweave train mine.yaml --store stores/mine --out runs/b --set training.epochs=10",
        "a file of yours, one field overridden",
    ),
    (
        "segweave train acdc-unet-128 --store stores/acdc --out runs/c --seed 1",
        "the same command again continues an interrupted run, bit for bit",
    ),
    (
        "segweave train auto --store stores/acdc --hours 1 --out runs/auto",
        "plan for the store and this machine, then train, all in an hour",
    ),
)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="The name of a shipped recipe, a YAML file, or `auto`: plan one for the store "
            "(see `segweave plan`).",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run folder to write. With `auto`, runs/auto-STORE unless given.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="STORE",
            help="What `segweave prepare` wrote. Given several times: train on all of "
            "them together. Default: the recipe's data.store.",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Another network, with its default options.", show_default=False
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A context module; `none` for the network alone.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION",
            help="Where the module is woven in: encoder, bottleneck, skips, decoder, output or a "
            "dotted name.",
            show_default=False,
        ),
    ] = None,
    slices: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Length of the window, odd. With --context, 3 unless the recipe has a longer "
            "window or tiles.",
            show_default=False,
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Start from the weights of this finished run (or model folder, or file of "
            "weights). For other classes add --set network.new_head=true.",
            show_default=False,
        ),
    ] = None,
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
    hours: Annotated[
        float | None,
        typer.Option(
            metavar="H",
            help="End the training in this time, behind a whole epoch; with `auto`, also plan for "
            "it (default: 1).",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
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
    """Train a network by a recipe, on a store that `segweave prepare` wrote.

    The run folder has everything to repeat, continue and use the training: the recipe with every
    default written out, the environment, the curves, the checkpoints and the model. Every choice
    is made on the validation cases; test cases are not touched.

    Options override the recipe; --set overrides both. Where network, context module or position
    are changed, the label of the arm is NETWORK+CONTEXT@POSITION.
    """
    from segweave.cli.show import counter, remark, results
    from segweave.errors import UsageError
    from segweave.recipes import chosen_sets
    from segweave.runs.run_folder import Run, RunLayout
    from segweave.workflow.training_plan import plan_training

    if recipe == "auto":
        from segweave.cli.train_auto import train_auto

        fixed = {"--network": network, "--context": context, "--at": at, "--slices": slices}
        train_auto(
            store or [],
            out,
            fixed={**fixed, "--start-from": start_from},
            hours=1.0 if hours is None else hours,
            weights=weights,
            sets=sets or (),
            seed=seed,
            fold=fold,
            precision=precision,
            device=device,
            resume=resume,
            quiet=quiet,
        )
        return
    if out is None or weights is not None:
        raise UsageError(
            "training",
            expected="a run folder (--out RUN)" if out is None else "--weights only with auto",
            found="none" if out is None else f"--weights {weights}",
            remedy="give --out RUN" if out is None else "--set network.pretrained=imagenet:FILE",
        )
    overrides = chosen_sets(
        recipe,
        sets or (),
        network=network,
        context=context,
        at=at,
        slices=slices,
        start_from=start_from,
    )
    chosen: dict[str, Any] = {
        "sets": overrides,
        "seed": seed,
        "fold": fold,
        "precision": precision,
        "resume": resume,
    }
    # Before torch is imported, which takes seconds.
    plan_training(recipe, store or None, out, **chosen)
    layout = RunLayout(out)
    if layout.finished:
        done = "nothing was done" if layout.report.is_file() else "no training is done"
        remark(f"the run is finished already: {done}; for another one choose another RUN")
    if layout.finished and layout.report.is_file():
        run = Run(out)
    else:
        from segweave.workflow.train import train as train_run

        with counter("training", show=not quiet) as progress:
            run = train_run(
                recipe, store or None, out, **chosen, device=device, hours=hours, progress=progress
            )
    results(
        run=run.folder,
        model=run.layout.model,
        curves=run.layout.metrics,
        report=run.report,
    )
