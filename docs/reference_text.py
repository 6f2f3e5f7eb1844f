"""The Markdown of the reference pages: pages, tables, docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MADE = "<!-- Written by docs/make_reference.py: do not edit. -->\n"
_LISTS = {"Args:": "Arguments", "Attributes:": "Attributes", "Raises:": "Raises"}


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


def shown_parameter(parameter: inspect.Parameter) -> str:
    """A parameter with its type and default, without the quotes of postponed annotations."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {type_name(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {parameter.default!r}"
    return text


def in_words(value: Any) -> str:
    """A field of a card as text."""
    if isinstance(value, dict):
        return "; ".join(f"{key}: {in_words(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(in_words(one) for one in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def type_name(annotation: Any) -> str:
    """A type as a reader writes it."""
    if annotation is inspect.Parameter.empty:
        return "any"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"(\w+\.)+(?=\w)", "", text)


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


def docstring(thing: Any) -> str:
    """A docstring as Markdown: lists of arguments and attributes, examples as code."""
    written = []
    for part in re.split(r"\n(?=\w+:\n    )", inspect.getdoc(thing) or ""):
        title, _, body = part.partition("\n")
        if title in _LISTS:
            inside, after = _indented(body)
            written += [f"**{_LISTS[title]}**\n\n{_list(inside)}", prose(after)]
        elif title == "Returns:":
            inside, after = _indented(body)
            written += [f"**Returns**\n\n{escaped(inspect.cleandoc(inside))}", prose(after)]
        elif title in ("Example:", "Examples:"):
            written.append(f"**Example**\n\n```pycon\n{inspect.cleandoc(body)}\n```")
        else:
            written.append(prose(part))
    return "\n\n".join(part.strip() for part in written if part.strip())


def _indented(body: str) -> tuple[str, str]:
    """The lines of a section, and those after it."""
    lines = body.splitlines()
    inside = next((n for n, line in enumerate(lines) if re.match(r"\S", line)), len(lines))
    return "\n".join(lines[:inside]), "\n".join(lines[inside:])


def prose(text: str) -> str:
    """Paragraphs, and the examples between them as code."""
    written = []
    for part in re.split(r"\n\n+", text.strip("\n")):
        shown = inspect.cleandoc(part)
        example = shown.startswith(">>>") and part.startswith("    ")
        written.append(f"```pycon\n{shown}\n```" if example else escaped(part))
    return "\n\n".join(written)


def _list(body: str) -> str:
    """The named entries of a section as a list."""
    lines = []
    for line in body.splitlines():
        named = re.match(r" {4}(\*{0,2}\w+): (.*)", line)
        text = f"- `{named[1]}`: {named[2]}" if named else f"  {line.strip()}"
        lines.append(escaped(text).rstrip())
    return "\n".join(lines)


def plain(text: str | None) -> str:
    """Help text without the terminal's markup."""
    return re.sub(r"\\\[", "[", text or "").strip()


def escaped(text: str) -> str:
    """Text in which nothing is taken for HTML."""
    return text.replace("<", "&lt;")
