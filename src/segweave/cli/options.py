"""Options that several commands have, and how a wrong value of an option is answered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from segweave.errors import UsageError, nearest

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_WRONG_CHOICE = re.compile(r"'(?P<value>.*)' is not one of (?P<known>'.*')")


class Command(TyperCommand):
    """A command that answers a wrong value of a fixed choice with the nearest right one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line; raises UsageError for a wrong choice."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            wrong = _WRONG_CHOICE.search(error.message)
            if wrong is None:
                raise
            option = error.param.opts[0] if error.param is not None else ""
            raise UsageError(
                "reading the command line",
                found=f"{option} {wrong['value']}",
                remedy=nearest(wrong["value"], re.findall(r"'([^']*)'", wrong["known"])),
            ) from None


def _check_device(value: str) -> str:
    # The syntax alone: whether there is such a device is asked of torch, later.
    if _DEVICE.fullmatch(value) is None:
        raise UsageError(
            "choosing a device", expected="auto, cpu, cuda or cuda:NUMBER", found=repr(value)
        )
    return value


FlipsChoice = Literal["none", "rows", "columns", "both"]
GeometryChoice = Literal["check", "pixdim", "affine"]

Device = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:1.", callback=_check_device),
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
        help="Where a NIfTI header contradicts itself: refuse the file (check), or take its pixdim "
        "or its affine."
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
Force = Annotated[bool, typer.Option("--force", help="Replace results that exist.")]
EvaluationFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The evaluation folder. Default: RUN/evaluation/NAME.",
        show_default=False,
    ),
]
