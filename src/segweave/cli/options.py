"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segweave.cli.run import check_device

FlipsChoice = Literal["none", "rows", "columns", "both"]
GeometryChoice = Literal["check", "pixdim", "affine", "qform"]

Device = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:1.", callback=check_device),
]
Precision = Annotated[
    Literal["32", "bf16"],
    typer.Option(
        help="bf16 is faster where the device multiplies in bfloat16; it may change a few labels "
        "at edges."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not show progress.")]
Checkpoint = Annotated[
    Literal["last", "best", "best-on-test"] | None,
    typer.Option(help="Use this checkpoint of a run instead of its model.", show_default=False),
]
Flips = Annotated[
    FlipsChoice,
    typer.Option(
        help="Average over mirror images too: rows (left-right), columns (up-down) or both. "
        "Useful where the training mirrored images in the same way.",
    ),
]
UseTiles = Annotated[
    bool,
    typer.Option(
        "--tiles",
        help="Read images in overlapping tiles of the network's size, at their own resolution. "
        "Useful where the training saw that resolution.",
    ),
]
Geometry = Annotated[
    GeometryChoice,
    typer.Option(
        help="Where a NIfTI header contradicts itself: refuse the file (check), or take its "
        "pixdim, its affine (the sform) or its qform."
    ),
]
LoginFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with what the archive asks for: user:password, or a token.",
        show_default=False,
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The rules of scoring: clean, penalised, or published, that of the data set; by name "
        "published-polyps, -isic, -glas, -synapse.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Compute this metric too (a plug-in's as well). May be given several times.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace results that exist.")]
EvaluationFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The evaluation folder. Default: RUN/evaluation/NAME.",
        show_default=False,
    ),
]
