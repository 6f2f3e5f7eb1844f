"""Writes the reference pages from the cards, the command, the recipes and the docstrings.

Run `python docs/make_reference.py` after a change; a test demands that the pages are up to date.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel

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
MADE = "<!-- Made by docs/make_reference.py: do not edit. -->\n"


def pages() -> dict[str, str]:
    """File name → text of every page that is made."""
    return {
        "command.md": command_page(),
        "networks.md": networks_page(),
        "contexts.md": contexts_page(),
        "datasets.md": datasets_page(),
        "metrics.md": metrics_page(),
        "recipes.md": recipes_page(),
        "python.md": python_page(),
    }


def networks_page() -> str:
    """The networks, from their cards."""
    rows = [
        (f"`{c.name}`", c.title, sizes(c.fixed, c.divisor, c.smallest), forms(c.forms), c.paper)
        for c in registry.networks.cards().values()
    ]
    return page(
        "Networks",
        "What context modules are woven into: `create_network(name, in_channels=, classes=)`, or "
        "`network.name` in a recipe.",
        table(("name", "what it is", "image sizes", "forms", "paper"), rows),
        *(
            options("create_network", c.name, registry.networks) + "\n\n" + positions(c.positions)
            for c in cards(registry.networks)
        ),
    )


def positions(explained: Mapping[str, str]) -> str:
    """What the positions of a network mean where it is not plain."""
    return "\n".join(f"- position `{name}`: {text}" for name, text in explained.items())


def contexts_page() -> str:
    """The context modules, from their cards, by kind."""
    parts = []
    titles = {"module": "Modules", "ablation": "Ablations", "control": "Controls"}
    for kind, title in titles.items():
        rows = [
            (f"`{c.name}`", c.title, forms(c.forms), c.paper, c.equations)
            for c in registry.contexts.cards().values()
            if c.kind == kind
        ]
        columns = ("name", "what it does", "forms", "paper", "equations")
        parts.append(f"## {title}\n\n{table(columns, rows)}")
    return page(
        "Context modules",
        "What is woven in: `create_context(name, channels)`, `weave(network, name, at=...)`, or "
        "`context.name` in a recipe.",
        *parts,
        *(options("create_context", c.name, registry.contexts) for c in cards(registry.contexts)),
    )


def datasets_page() -> str:
    """The data sets, from their cards."""
    parts = []
    for card in registry.datasets.cards().values():
        facts = [
            ("paper", card.paper),
            ("licence", f"{card.licence}. {card.terms}".strip()),
            ("stack", card.stack),
            ("classes", ", ".join(card.classes)),
            ("complete with", ", ".join(f"{n:,} {what}" for what, n in card.expected.items())),
        ]
        shown = table(("", ""), [row for row in facts if row[1]])
        parts.append(f"## {card.name}\n\n{card.title[0].upper()}{card.title[1:]}.\n\n{shown}")
    return page("Data sets", "What `segweave prepare NAME` converts into a store.", *parts)


def metrics_page() -> str:
    """Metrics, losses and augmentations, from their cards."""
    metrics = [
        (f"`{c.name}`", c.title, c.reads, c.unit or "none", c.better, c.paper)
        for c in registry.metrics.cards().values()
    ]
    header = ("name", "what it is", "reads", "unit", "better", "paper")
    losses = [
        (f"`{c.name}`", c.title, "all outputs" if c.reads == "all" else "one map", c.paper)
        for c in registry.losses.cards().values()
    ]
    augmentations = [
        (
            f"`{c.name}`",
            c.title,
            "image and label" if c.changes == "positions" else "image",
            c.paper,
        )
        for c in registry.augmentations.cards().values()
    ]
    return page(
        "Metrics, losses and augmentations",
        "Units: mm and ml where the spacing of a case is known, else px. The protocol determines "
        "which scores a table shows, and what a missing class scores; `--metric NAME` adds any "
        "other metric that does not read images. `segweave.metrics.compute_metric` computes each.",
        "## Metrics\n\n" + table(header, metrics),
        "## Losses\n\n" + table(("name", "what it is", "reads", "paper"), losses),
        "## Augmentations\n\n" + table(("name", "what it does", "changes", "paper"), augmentations),
    )


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


def attributes(text: str) -> tuple[str, dict[str, str]]:
    """A docstring without its "Attributes:" block, and the entries of that block."""
    kept: list[str] = []
    entries: dict[str, str] = {}
    inside, name = False, ""
    for line in text.splitlines():
        if line.strip() == "Attributes:":
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


def python_page() -> str:
    """The public functions with signature and docstring."""
    parts = []
    for name in sorted(segweave.__all__):
        if name.startswith("_"):
            continue
        thing = getattr(segweave, name)
        signature = re.sub(r"(segweave|pathlib)\.(\w+\.)*", "", str(inspect.signature(thing)))
        text = inspect.getdoc(thing) or ""
        parts.append(f"## {name}\n\n`{name}{signature}`\n\n{escaped(definitions(text))}")
    return page(
        "Python",
        "The public surface: `from segweave import ...`. Whatever else is imported from a package "
        "inside it (`segweave.data`, `segweave.evaluation`, ...) may still change.",
        *parts,
    )


def options(function: str, name: str, known: registry.Registry[Any]) -> str:
    """The options that an entry takes beside the common ones."""
    entry = known.entry(name)
    common = {"channels", "out_channels", "both_sides", "form", "in_channels", "classes", "self"}
    preset = known.card(name).options
    taken = [
        p
        for p in inspect.signature(entry).parameters.values()
        if p.name not in common and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    rows = [(f"`{p.name}`", f"`{preset.get(p.name, p.default)!r}`") for p in taken]
    text = first_paragraph(entry)
    return f"### {name}\n\n{text}\n\n" + (table(("option", "default"), rows) if rows else "")


# Text


def page(title: str, *parts: str) -> str:
    """A page with a title and parts."""
    return (
        "\n\n".join([f"# {title}", MADE.strip(), *(part.strip() for part in parts if part)]) + "\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def cards(known: registry.Registry[Any]) -> list[Any]:
    """The cards of a registry whose entries can be looked into."""
    return list(known.cards().values())


def forms(names: Sequence[str]) -> str:
    """Forms of an entry, joined."""
    return ", ".join(names)


def remark(path: Path) -> str:
    """The comment at the top of a recipe."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def first_paragraph(thing: Any) -> str:
    """The first paragraph of a docstring on one line."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return escaped(" ".join(text.split()))


def definitions(text: str) -> str:
    """A docstring whose "Args:" block becomes a list."""
    lines = []
    inside = False
    for line in text.splitlines():
        if line.strip() in ("Args:", "Arguments:"):
            inside = True
            continue
        indent = len(line) - len(line.lstrip())
        if inside and line.strip() and indent == 0:
            inside = False
        named = re.match(r" {4}(\w+): (.*)", line) if inside else None
        if named:
            lines.append(f"- `{named[1]}`: {named[2]}")
        elif inside and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line)
    return "\n".join(lines)


def plain(text: str | None) -> str:
    """Help text without the terminal's markup."""
    return re.sub(r"\\\[", "[", text or "").strip()


def escaped(text: str) -> str:
    """Text in which nothing is taken for HTML."""
    return text.replace("<", "&lt;")


def main() -> None:
    """Write the pages that differ."""
    for name, text in pages().items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
