"""Writes the reference pages from the cards, the command, the recipes and the docstrings.

Run `python docs/make_reference.py` after a change; a test demands that the pages are up to date.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from reference_text import (
    docstring,
    escaped,
    first_paragraph,
    in_words,
    page,
    plain,
    remark,
    shown_parameter,
    table,
    type_name,
)

import segweave
from segweave import registry
from segweave.cli import app as command_line
from segweave.cli.networks import sizes
from segweave.recipes import (
    Recipe,
    as_set,
    list_recipe_parts,
    list_recipes,
    load_recipe,
    recipe_file,
)

FOLDER = Path(__file__).parent / "reference"


RETURNED = (
    ("segweave.comparison", "Comparison"),
    ("segweave.context", "ContextModule"),
    ("segweave.prediction", "Ensemble"),
    ("segweave.evaluation", "Evaluation"),
    ("segweave.prediction", "Prediction"),
    ("segweave.prediction", "Predictor"),
    ("segweave.datasets", "PrepareReport"),
    ("segweave.runs.run_folder", "Run"),
    ("segweave.networks", "SegmentationNetwork"),
    ("segweave.prediction", "Session"),
    ("segweave.weaving", "WovenNetwork"),
)
"""Module and name of what the public functions take and return."""

_UNSHOWN = ("name", "title", "entry", "options", "tiny_options")
_COMMON = {
    "channels",
    "out_channels",
    "both_sides",
    "form",
    "in_channels",
    "classes",
    "self",
    "source",
}


@dataclass(frozen=True)
class Kind:
    """What the pages of one registry show.

    Attributes:
        folder: where the pages of its entries are, and the overview's name.
        entries: the registry.
        title: of the overview.
        intro: below the title of the overview.
        use: how an entry NAME is used.
        columns: of the overview's table, beside name and title.
        cells: a card's cells of these columns.
    """

    folder: str
    entries: registry.Registry[Any]
    title: str
    intro: str
    use: str
    columns: tuple[str, ...] = ("paper",)
    cells: Callable[[Any], tuple[str, ...]] = lambda card: (card.paper,)


KINDS = (
    Kind(
        "networks",
        registry.networks,
        "Networks",
        "What context modules are woven into: `create_network(name, in_channels=, classes=)`, or "
        "`network.name` in a recipe.",
        '`create_network("NAME", in_channels=1, classes=4)`; in a recipe `network: {name: NAME}`.',
        ("image sizes", "forms", "paper"),
        lambda c: (sizes(c.fixed, c.divisor, c.smallest), ", ".join(c.forms), c.paper),
    ),
    Kind(
        "contexts",
        registry.contexts,
        "Context modules",
        "What is woven in: `weave(network, name, at=...)`, `create_context(name, channels)`, or "
        "`--context name` of `segweave train`. Controls are what a module has to beat.",
        '`weave(network, "NAME", at="bottleneck")`, or `segweave train RECIPE --context NAME`.',
        ("kind", "forms", "paper", "equations"),
        lambda c: (c.kind, ", ".join(c.forms), c.paper, c.equations),
    ),
    Kind(
        "datasets",
        registry.datasets,
        "Data sets",
        "What `segweave prepare NAME SOURCE STORE` converts into a store.",
        "`segweave prepare NAME SOURCE STORE`; `segweave check NAME SOURCE` looks at it first.",
        ("stack", "classes"),
        lambda c: (c.stack, ", ".join(c.classes)),
    ),
    Kind(
        "metrics",
        registry.metrics,
        "Metrics",
        "Units: mm where the spacing of a case is known, else px. Which scores a table shows, and "
        "what happens where a class is missing, is the protocol's matter; "
        "`segweave evaluate RUN --metric NAME` adds any of these.",
        '`segweave evaluate RUN --metric NAME`, or `segweave.metrics.compute_metric("NAME", '
        "prediction, reference)`.",
        ("unit", "better", "reads", "paper"),
        lambda c: (c.unit or "none", c.better, c.reads, c.paper),
    ),
    Kind(
        "losses",
        registry.losses,
        "Losses",
        "What a training minimises: `training.loss` in a recipe, a list of terms with weights.",
        "In a recipe: `training: {loss: [{name: NAME, weight: 1.0}]}`.",
    ),
    Kind(
        "augmentations",
        registry.augmentations,
        "Augmentations",
        "What training images are changed by: `training.augmentation` in a recipe.",
        "In a recipe: `training: {augmentation: [{name: NAME}]}`.",
        (),
        lambda card: (),
    ),
)


def pages() -> dict[str, str]:
    """File name → text of every page that is generated."""
    written = {"command.md": command_page(), "recipes.md": recipes_page(), **python_pages()}
    for kind in KINDS:
        written |= registry_pages(kind)
    return written


def registry_pages(kind: Kind) -> dict[str, str]:
    """The overview of one registry and a page for each of its entries."""
    found = kind.entries.cards()
    rows = [
        (f"[`{name}`]({kind.folder}/{name}.md)", card.title, *kind.cells(card))
        for name, card in found.items()
    ]
    overview = page(kind.title, kind.intro, table(("name", "what it is", *kind.columns), rows))
    objects = {f"{kind.folder}/{name}.md": entry_page(kind, card) for name, card in found.items()}
    return {f"{kind.folder}.md": overview, **objects}


def entry_page(kind: Kind, card: registry.Card) -> str:
    """One entry: its card, how it is used, its docstring and its options."""
    facts = []
    for one in fields(card):
        value = getattr(card, one.name)
        if one.name in _UNSHOWN or value in ("", (), {}, None, False, (0, "")):
            continue
        facts.append((one.name.replace("_", " "), escaped(in_words(value))))
    entry = kind.entries.entry(card.name)
    parts = [
        f"{card.title[:1].upper()}{card.title[1:]}.",
        kind.use.replace("NAME", card.name),
        table(("", ""), facts),
        docstring(entry),
        options(entry, card),
    ]
    return page(card.name, *parts)


def options(entry: Any, card: registry.Card) -> str:
    """The options that an entry takes beside the common ones."""
    taken = [
        p
        for p in inspect.signature(entry, eval_str=True).parameters.values()
        if p.name not in _COMMON and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    described = arguments(entry)
    rows = []
    for parameter in taken:
        default = card.options.get(parameter.name, parameter.default)
        shown = "required" if default is inspect.Parameter.empty else f"`{default!r}`"
        meaning = escaped(described.get(parameter.name, ""))
        rows.append((f"`{parameter.name}`", values_of(parameter.annotation), shown, meaning))
    if not rows:
        return ""
    columns = ("option", "allowed", "default", "what it is")
    return "## Options\n\n" + table(columns, rows)


def arguments(thing: Any) -> dict[str, str]:
    """What the docstring of a function or a class states of its arguments; of those that a class
    does not explain, what the classes above it do.
    """
    found: dict[str, str] = {}
    for one in reversed(inspect.getmro(thing)) if inspect.isclass(thing) else [thing]:
        found |= attributes(inspect.cleandoc(one.__doc__ or ""), "Args:")[1]
    return found


def values_of(annotation: Any) -> str:
    """The values of a choice, else the type."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value!r}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(values_of(one) for one in get_args(annotation))
    return "`None`" if annotation is type(None) else f"`{type_name(annotation)}`"


def recipes_page() -> str:
    """The shipped recipes, their parts, and every field of a recipe."""
    rows = []
    for name in list_recipes():
        recipe = load_recipe(name)
        context = recipe.context
        length = recipe.training
        rows.append(
            (
                f"`{name}`",
                recipe.network.name,
                "–" if context is None else f"{context.name} at {recipe.weaving.at}",
                str(recipe.slices),
                f"{length.epochs} epochs" if length.epochs else f"{length.steps} steps",
                remark(recipe_file(name)),
            )
        )
    columns = ("recipe", "network", "context", "slices", "length", "what it is")
    parts = [(f"`{name}`", remark(recipe_file(name))) for name in list_recipe_parts()]
    resolved = load_recipe("demo").to_yaml()
    return page(
        "Recipes",
        "`segweave train NAME ...` takes a shipped recipe by name, or a YAML file that `extends:` "
        "some. `--set key.key=value` overrides any field; a wrong key names the nearest. "
        "`--network`, `--context`, `--at` and `--slices` change network, context module, position "
        "and window.",
        table(columns, rows),
        "## Parts\n\n`extends:` takes a name or a list of names, merged in order: recipes, parts, "
        "or files of yours.\n\n" + table(("part", "what it is"), parts),
        "## Every field\n\nFields without a default have to be given, by a recipe or by what it "
        "extends.",
        *sections(Recipe, "recipe", "The recipe"),
        "## With all defaults\n\nThe recipe `demo` as it is written into a run folder:\n\n"
        f"```yaml\n{resolved}```",
    )


def sections(model: type[BaseModel], path: str, title: str) -> list[str]:
    """A table of the fields of a section, then of the sections inside it."""
    text, described = attributes(inspect.getdoc(model) or "")
    rows = []
    inner: list[str] = []
    for name, field in model.model_fields.items():
        dotted = name if path == "recipe" else f"{path}.{name}"
        section = section_of(field.annotation)
        if section is not None:
            inner += sections(section, dotted, f"`{dotted}`")
            if section_of(field.annotation) is field.annotation:
                continue
        default = "" if field.is_required() else default_text(field)
        rows.append(
            (
                f"`{name}`",
                allowed(field.annotation, field.metadata),
                default,
                escaped(described.get(name, "")),
            )
        )
    shown = table(("field", "allowed", "default", "what it is"), rows) if rows else ""
    return [f"### {title}\n\n{escaped(text)}\n\n{shown}", *inner]


def attributes(text: str, title: str = "Attributes:") -> tuple[str, dict[str, str]]:
    """A docstring without its block of that title, and the entries of that block."""
    kept: list[str] = []
    entries: dict[str, str] = {}
    inside, name = False, ""
    for line in text.splitlines():
        if line.strip() == title:
            inside = True
        elif inside and (named := re.match(r" {4}(\w+): (.*)", line)):
            name = named[1]
            entries[name] = named[2]
        elif inside and line.startswith("        "):
            entries[name] += f" {line.strip()}"
        elif line.strip() or not inside:
            inside = False
            kept.append(line)
    return "\n".join(kept).strip(), entries


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds: itself, one of a list, or one that may be null."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (section_of(inner) for inner in get_args(annotation))
    return next((section for section in found if section is not None), None)


def allowed(annotation: Any, limits: Sequence[Any] = ()) -> str:
    """The values that a field takes, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if annotation is type(None):
        text = "null"
    elif origin is Literal:
        text = ", ".join(f"`{value}`" for value in inner)
    elif origin in (Union, types.UnionType):
        text = " or ".join(allowed(one) for one in inner)
    elif origin is tuple:
        items = [one for one in inner if one is not Ellipsis]
        kinds = ", ".join(dict.fromkeys(allowed(one) for one in items))
        text = f"list of {kinds}" if Ellipsis in inner else f"list of {len(items)}: {kinds}"
    elif origin is dict or annotation is dict:
        text = "keys and values"
    elif section_of(annotation) is not None:
        text = "section"
    else:
        text = words.get(annotation, "any value")
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in limits
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([text, *bounds])


def default_text(field: Any) -> str:
    """The default of a field as YAML."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or (isinstance(value, tuple) and section_of(field.annotation)):
        return "see below"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{as_set('', value).removeprefix('=')}`"


def command_page() -> str:
    """Every command with its arguments, options and examples."""
    root = typer.main.get_command(command_line.app)
    parts = []
    for name in command_line.ORDER:
        command = root.commands[name]
        parts.append(command_text(name, command, level=2))
        if hasattr(command, "commands"):
            parts += [
                command_text(f"{name} {sub}", command.get_command(None, sub), level=3)
                for sub in command.list_commands(None)
            ]
    return page(
        "Command",
        f"{plain(root.help)}\n\n{parameters(root)}",
        *parts,
    )


def command_text(name: str, command: Any, level: int) -> str:
    """One command's section."""
    title = f"{'#' * level} {name}"
    parts = [title, plain(command.help), parameters(command), shown_examples(command.epilog or "")]
    return "\n\n".join(part for part in parts if part)


def parameters(command: Any) -> str:
    """A table of a command's arguments and options."""
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        given = parameter.metavar or ""
        name = given if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
        if not argument and given:
            name += f" {given}"
        default = "" if parameter.default in (None, False, ()) else f"`{parameter.default}`"
        if default == "`True`":
            default = f"`{parameter.opts[0]}`"
        rows.append(
            (f"`{name}`", plain(parameter.help), "required" if parameter.required else default)
        )
    return table(("", "", "default"), rows) if rows else ""


def shown_examples(epilog: str) -> str:
    """The examples of a help text as a list."""
    found = re.findall(r"\[cyan\](.*?)\[/cyan\]\n\s*\[dim\](.*?)\[/dim\]", epilog)
    return "\n".join(f"- `{command}`: {remark}" for command, remark in found)


def python_pages() -> dict[str, str]:
    """The public surface: an overview, and a page for each object."""
    rows = []
    written = {}
    for name in sorted(segweave.__all__):
        if name.startswith("_"):
            continue
        thing = getattr(segweave, name)
        rows.append((f"[`{name}`](python/{name}.md)", first_paragraph(thing)))
        heading = f"```text\n{signature_of(name, thing)}\n```"
        written[f"python/{name}.md"] = page(name, heading, docstring(thing))
    returned = []
    for module, name in RETURNED:
        thing = getattr(importlib.import_module(module), name)
        returned.append((f"[`{name}`](python/{name}.md)", f"`{module}`", first_paragraph(thing)))
        written[f"python/{name}.md"] = page(
            name, f"`from {module} import {name}`", docstring(thing), members(thing)
        )
    overview = page(
        "Python",
        "The public surface: `from segweave import ...`. Whatever else is imported from a package "
        "below (`segweave.data`, `segweave.evaluation`, ...) may still change.",
        table(("name", "what it is"), rows),
        "## What they take and return",
        table(("name", "in", "what it is"), returned),
    )
    return {"python.md": overview, **written}


def members(thing: type) -> str:
    """The methods and properties that a class has beside its fields."""
    rows = []
    for name, member in inspect.getmembers(thing):
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        owner = next(one for one in thing.__mro__ if name in vars(one))
        if not owner.__module__.startswith("segweave."):
            continue
        if isinstance(member, (property, functools.cached_property)):
            rows.append((f"`{name}`", first_paragraph(member)))
        elif inspect.isfunction(member):
            parameters = list(inspect.signature(member).parameters.values())[1:]
            shown = ", ".join(shown_parameter(p) for p in parameters)
            rows.append((f"`{name}({shown})`", first_paragraph(member)))
    return "**Members**\n\n" + table(("", ""), rows) if rows else ""


def signature_of(name: str, thing: Any) -> str:
    """A call with its parameters, one per line where they are many."""
    signature = inspect.signature(thing)
    parameters = [shown_parameter(p) for p in signature.parameters.values()]
    starred = [p.kind for p in signature.parameters.values()]
    if (
        inspect.Parameter.KEYWORD_ONLY in starred
        and inspect.Parameter.VAR_POSITIONAL not in starred
    ):
        parameters.insert(starred.index(inspect.Parameter.KEYWORD_ONLY), "*")
    result = signature.return_annotation
    arrow = "" if result is inspect.Signature.empty else f" -> {type_name(result)}"
    joined = ", ".join(parameters)
    if len(joined) > 80:
        joined = "\n    " + ",\n    ".join(parameters) + ",\n"
    return f"{name}({joined}){arrow}"


def main() -> None:
    """Write the pages that differ, and remove those of entries that are gone."""
    wanted = pages()
    for folder in {Path(name).parent for name in wanted} - {Path()}:
        for path in (FOLDER / folder).glob("*.md"):
            if f"{folder}/{path.name}" not in wanted:
                path.unlink()
    for name, text in wanted.items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
