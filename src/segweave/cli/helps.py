"""Makes the help texts: paragraphs that fill the terminal, and examples under them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

Examples = Sequence[tuple[str, str]]
_ARGUMENT = re.compile(r" {4}(\w+): (.*)")


def paragraphs(function: Callable[..., Any]) -> str:
    """The docstring of a command with each paragraph on one line, for the terminal to wrap."""
    text = inspect.getdoc(function) or ""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """Argument → its text in the section `Args:` of a docstring."""
    lines = inspect.getdoc(function) or ""
    _, _, section = lines.partition("\nArgs:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if match := _ARGUMENT.fullmatch(line):
            name = match[1]
            texts[name] = match[2]
        else:
            texts[name] += " " + line.strip()
    return texts


def examples(pairs: Examples, title: str = "Examples") -> str:
    """Commands and their purpose, as the last section of a help text."""
    lines = [f"[cyan]{command}[/cyan]\n  [dim]{remark}[/dim]" for command, remark in pairs]
    return f"[bold]{title}[/bold]\n\n" + "\n\n".join(lines)
