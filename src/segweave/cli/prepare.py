"""`segweave prepare`: one sub-command per data set, built from its card and from the options of its
function, whose `Args:` are the help.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from segweave.cli.helps import argument_texts, examples, paragraphs
from segweave.cli.run import guarded
from segweave.cli.values import from_text, simple

if TYPE_CHECKING:
    from segweave.datasets import PrepareReport
    from segweave.registry import DatasetCard

EXAMPLES = (
    ("segweave prepare acdc ACDC/database stores/acdc", "a public data set, as it is released"),
    (
        "segweave prepare folder photos/images photos/masks stores/photos",
        "images of your taken, each with a mask of the same name",
    ),
    ("segweave prepare folder --help", "all options for images of your taken"),
)


class _Datasets(TyperGroup):
    """One sub-command per card, those of plug-ins included."""

    def list_commands(self, ctx: Any) -> list[str]:
        from segweave.registry import datasets

        return list(datasets.cards())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from segweave.registry import datasets

        cards = datasets.cards()
        return _command(cards[cmd_name]) if cmd_name in cards else None


def prepare() -> None:
    """Convert a data set into a store, from which everything else reads.

    Every image is read and checked once and kept at its taken size, without loss, together with
    its geometry, its patient and the split. What is missing of a public data set is named. An
    interrupted conversion continues when the command is given again.
    """


app = typer.Typer(cls=_Datasets, no_args_is_help=True)
app.callback(help=paragraphs(prepare), epilog=examples(EXAMPLES))(prepare)


def _command(card: DatasetCard) -> Any:
    """The sub-command of one data set."""
    from segweave.registry import datasets

    options = inspect.signature(datasets.entry(card.name), eval_str=True).parameters
    taken = {n: p for n, p in options.items() if n != "source" and n not in card.options}
    texts = argument_texts(datasets.entry(card.name))
    required = [n for n, p in taken.items() if p.default is inspect.Parameter.empty or n == "masks"]

    def run(**given: Any) -> None:
        _convert(card, taken, given)

    source = ("IMAGES", "The folder of images.")
    if "masks" not in taken:
        source = ("SOURCE", "The folder that holds the data set.")
    if card.source == "table":
        source = ("TABLE", "The CSV file, or the folder that holds it.")
    parameters = [_argument("source", *source)]
    parameters += [_argument(name, name.upper(), texts.get(name, "")) for name in required]
    parameters += [_argument("out", "STORE", "The store to write.")]
    for name, parameter in taken.items():
        if name not in required:
            parameters.append(_option(name, parameter, texts.get(name, "")))
    parameters += [
        _flag(
            "strict",
            "Refuse where anything of the data set is missing, or one image is in two parts of a "
            "split.",
        ),
        _flag("overwrite", "Replace a store that is already there."),
        _flag("quiet", "No progress bar.", "-q"),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )
    shown = examples(card.examples) if card.examples else None
    single.command(card.name, help=_about(card), epilog=shown)(guarded(run))
    return typer.main.get_command(single)


def _convert(card: DatasetCard, taken: dict[str, inspect.Parameter], given: dict[str, Any]) -> None:
    from segweave.cli.show import counter
    from segweave.datasets import prepare as convert

    options = {
        name: from_text(given[name], parameter.annotation)
        for name, parameter in taken.items()
        if given[name] is not None
    }
    with counter(f"preparing {card.name}", show=not given["quiet"]) as progress:
        report = convert(
            card.name,
            given["source"],
            given["out"],
            strict=given["strict"],
            overwrite=given["overwrite"],
            progress=progress,
            **options,
        )
    _print(report)


def _print(report: PrepareReport) -> None:
    from segweave.cli.show import remark, results

    for line in report.missing:
        remark(f"missing: {line}")
    for line in report.warnings:
        remark(f"note: {line}")
    if report.resumed:
        remark(f"note: {report.resumed} cases were there from an earlier attempt")
    splits = [
        f"{name}: " + ", ".join(f"{count} {part}" for part, count in parts.items())
        for name, parts in report.splits.items()
    ]
    results(
        store=report.path,
        layout=report.layout,
        holds=f"{report.groups} groups, {report.cases} cases, {report.slices} slices",
        cases_by_split="; ".join(splits) or "none",
    )


def _layouts(plan: Callable[..., Any]) -> list[str]:
    """The paragraphs of a data set's docstring before its arguments."""
    return paragraphs(plan).partition("\n\nArgs:")[0].split("\n\n")


def _about(card: DatasetCard) -> str:
    from segweave.registry import datasets

    title = card.title[0].upper() + card.title[1:]
    parts = [f"{title}.", *_layouts(datasets.entry(card.name))]
    if card.classes:
        parts.append("Classes: " + ", ".join(card.classes) + ".")
    if card.expected:
        counts = ", ".join(f"{count:,} {what}" for what, count in card.expected.items())
        parts.append(f"Complete with {counts}; what is missing is named, the rest is converted.")
    if card.terms:
        parts.append(f"Terms ({card.licence}): {card.terms}")
    return "\n\n".join(part.replace("[", "\\[") for part in parts)


def _argument(name: str, metavar: str, text: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[Path, typer.Argument(metavar=metavar, help=text)],
    )


def _option(name: str, parameter: inspect.Parameter, text: str) -> inspect.Parameter:
    kind, metavar = simple(parameter.annotation)
    flags = "--" + name.replace("_", "-")
    default = parameter.default
    if isinstance(default, tuple | list):
        default = ",".join(str(value) for value in default)
    about = typer.Option(flags, metavar=metavar, help=text)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, about],
    )


def _flag(name: str, text: str, *short: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option(f"--{name}", *short, help=text)],
    )
