"""Puts the commands together; importing it imports no torch, so that help and lists answer at
once.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from segweave.cli import (
    check,
    compare,
    contexts,
    convert_weights,
    demo,
    denoise,
    evaluate,
    export_nnunet,
    grid,
    info,
    networks,
    predict,
    prepare,
    score,
    serve,
    summarise,
    train,
)
from segweave.cli.guard import Command, Settings, guarded
from segweave.cli.helps import Examples, examples, paragraphs
from segweave.errors import printable

ORDER = (
    "demo",
    "check",
    "prepare",
    "train",
    "grid",
    "predict",
    "denoise",
    "serve",
    "evaluate",
    "score",
    "summarise",
    "compare",
    "networks",
    "contexts",
    "convert-weights",
    "export-nnunet",
    "info",
)

_BEGIN = (
    ("segweave demo", "all of it on synthetic images, in minutes"),
    ("segweave prepare acdc RELEASE stores/acdc", "a public data set"),
    ("segweave prepare folder IMAGES MASKS stores/mine", "your own images"),
    ("segweave train RECIPE --store stores/acdc --out runs/a", "a network, with a recipe"),
    ("segweave predict runs/a scan.nii.gz --out labels", "label maps for new images"),
)


class _Commands(TyperGroup):
    """The commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(ORDER)


def _show_version(wanted: bool) -> None:
    if wanted:
        from segweave import __version__

        typer.echo(f"segweave {__version__}")
        raise typer.Exit


@guarded
def common(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.py",
            help="Register the networks, context modules, data sets, metrics and losses of your "
            "file (it is run). May be given several times.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Segment medical images with context modules woven into any network.

    A context module reads the feature maps of neighbouring slices and returns one. Prepare a data
    set once, train with a recipe, predict files in their own geometry, and score under a protocol
    that states its rules. Research software, not a medical device.
    """
    Settings.debug = debug
    if "SEGWEAVE_PARENT" in os.environ:
        from segweave.grid.processes import end_with_parent

        end_with_parent()
    if not debug and not sys.warnoptions:
        # Warnings of libraries are for developers; users get errors and notes.
        warnings.simplefilter("ignore")
    if plugin:
        from segweave.registry import register_plugin

        for file in plugin:
            register_plugin(file)


app = typer.Typer(
    name="segweave",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(help=paragraphs(common), epilog=examples(_BEGIN, "Where to begin"))(common)


class _Printable(logging.Formatter):
    """What is logged for the person at the terminal, without control characters of names."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _add(name: str, function: Callable[..., None], shown: Examples) -> None:
    app.command(name, cls=Command, help=paragraphs(function), epilog=examples(shown))(
        guarded(function)
    )


_add("demo", demo.demo, demo.EXAMPLES)
_add("check", check.check, check.EXAMPLES)
_add("export-nnunet", export_nnunet.export_nnunet, export_nnunet.EXAMPLES)
_add("train", train.train, train.EXAMPLES)
_add("grid", grid.grid, grid.EXAMPLES)
_add("predict", predict.predict, predict.EXAMPLES)
_add("denoise", denoise.denoise, denoise.EXAMPLES)
_add("serve", serve.serve, serve.EXAMPLES)
_add("evaluate", evaluate.evaluate, evaluate.EXAMPLES)
_add("score", score.score, score.EXAMPLES)
_add("summarise", summarise.summarise, summarise.EXAMPLES)
_add("compare", compare.compare, compare.EXAMPLES)
_add("networks", networks.networks, networks.EXAMPLES)
_add("contexts", contexts.contexts, contexts.EXAMPLES)
_add("convert-weights", convert_weights.convert_weights, convert_weights.EXAMPLES)
_add("info", info.info, info.EXAMPLES)
app.add_typer(prepare.app, name="prepare")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on `arguments` (default: those of the process) and exit with its code.

    0: done; 2: wrong use or input; 1: a failure; 130: interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is not valid text is shown with its invalid bytes escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())
    words = list(arguments) if arguments is not None else None
    guarded(lambda: app(words, prog_name="segweave"))()
