"""`segweave plan`: a store and a time in, a recipe with reasons out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segweave.cli.options import Device, Quiet

EXAMPLES = (
    ("segweave plan stores/acdc", "a recipe for an hour on this machine, in plan.yaml"),
    ("segweave plan stores/acdc --hours 8 --out night.yaml", "for a night"),
    ("segweave train plan.yaml --out runs/planned", "then train it"),
    ("segweave train auto --store stores/acdc --hours 1", "both in one go"),
)

Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="For colour pictures: a file of the ImageNet weights of EfficientNet-Lite0, or the "
        "word imagenet, for timm to download them. Default: where timm has them already.",
        show_default=False,
    ),
]


def plan(
    store: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE...",
            help="What `segweave prepare` wrote. Several: train on all of them together.",
        ),
    ],
    hours: Annotated[float, typer.Option(metavar="H", help="The time for the training.")] = 1.0,
    out: Annotated[
        Path, typer.Option(metavar="FILE.yaml", help="The recipe file to write.")
    ] = Path("plan.yaml"),
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The split to train on. Default: the first with training and validation cases.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a recipe file that exists.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write a recipe for a store and this machine, with the reason beside each value.

    Reads kinds, sizes, spacing and class shares of the training cases, times some real training
    steps, and chooses image size, window, batch, network, loss, augmentation and the number of
    epochs that fit into the time. What it read is printed; the recipe is an ordinary one, to be
    changed and trained with `segweave train`.
    """
    from segweave.cli.show import counter, facts, results
    from segweave.errors import UsageError

    if out.exists() and not force:
        raise UsageError(
            "planning a training",
            file=out,
            expected="a new file",
            found="one that exists",
            remedy="choose another one with --out, or replace it with --force",
        )
    from segweave.workflow.plan import plan as make_plan

    with counter("planning", show=not quiet) as progress:
        made = make_plan(
            store, hours=hours, device=device, split=split, weights=weights, progress=progress
        )
    facts("What was read and measured", made.rows())
    results(recipe=made.write(out))
