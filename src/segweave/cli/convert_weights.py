"""`segweave convert-weights`: a file of the authors as a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = (
    (
        "segweave convert-weights best_model_SALSTM.pth --recipe acdc-mt-unet-sa-lstm-published "
        "--classes RV,myocardium,LV --out models/salstm",
        "a whole released model; then segweave evaluate models/salstm --store stores/acdc",
    ),
    (
        "segweave convert-weights unet.pth --network unet --set input.size=[256,256] "
        "--set input.channels=[red,green,blue] --classes polyp --out models/unet",
        "a network alone",
    ),
)


def convert_weights(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .pth or .safetensors file of tensors.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="MODEL", help="The model folder to write.", show_default=False)
    ],
    classes: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="Names of the foreground classes in the order of their ids, joined with commas.",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="The recipe that describes the model: network, module, input.",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="In place of a recipe: a network alone, with its default options.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        Literal["exclusive", "binary", "overlapping"] | None,
        typer.Option(
            help="One class per pixel, background included (exclusive), one map of one class "
            "(binary), or one map per class (overlapping). Default: binary for one class, else "
            "exclusive.",
            show_default=False,
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override any field of the recipe. May be given several times.",
        ),
    ] = None,
) -> None:
    """Turn weights that the authors of a network released into a model folder.

    Their names are mapped to ours, and every tensor must fit: those that do not are listed, and
    nothing is written. predict and info take the folder, and evaluate with --store. A pickle that
    would run code is refused.
    """
    from segweave.cli.show import remark, results
    from segweave.data.specs import TargetSpec
    from segweave.words import few
    from segweave.workflow.convert_weights import convert_weights as convert

    names = [name.strip() for name in classes.split(",")]
    chosen = kind or ("binary" if len(names) == 1 else "exclusive")
    report = convert(
        file,
        out,
        TargetSpec(
            kind=chosen,
            names=tuple(names) if chosen == "overlapping" else ("background", *names),
        ),
        recipe=recipe,
        network=network,
        sets=sets or (),
    )
    if report.dead:
        remark(f"left out, because no output depends on them: {few(report.dead)}")
    results(tensors=f"{len(report.matched)} converted", model=out)
