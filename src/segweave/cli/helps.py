"""Makes the help texts: paragraphs that fill the terminal, and examples under them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

Examples = Sequence[tuple[str, str]]


def paragraphs(function: Callable[..., Any]) -> str:
    """The docstring of a command with each paragraph on one line, for the terminal to wrap."""
    text = inspect.getdoc(function) or ""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def examples(pairs: Examples, title: str = "Examples") -> str:
    """Commands and their purpose, as the last section of a help text."""
    lines = [f"[cyan]{command}[/cyan]\n  [dim]{remark}[/dim]" for command, remark in pairs]
    return f"[bold]{title}[/bold]\n\n" + "\n\n".join(lines)
