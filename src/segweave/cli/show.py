"""Prints: tables and results to stdout, progress and remarks to stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from segweave.words import printable

if TYPE_CHECKING:
    from segweave.evaluation import Table as ScoreTable
    from segweave.registry import Card
    from segweave.runtime.progress import Progress as ProgressCallback

_SECONDS = 30.0


def stdout() -> Console:
    """A console for results; where stdout is not a terminal it never cuts a line."""
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False, highlight=False)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = ""
) -> None:
    """A table with `columns` to stdout; the first column is never wrapped."""
    shown = Table(
        title=_escaped(title), title_justify="left", caption=_escaped(note), caption_justify="left"
    )
    for index, column in enumerate(columns):
        shown.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        shown.add_row(*(_escaped(cell) for cell in row))
    stdout().print(shown)


def cards_as_json(cards: Mapping[str, Card]) -> None:
    """The cards as a JSON list, for scripts."""
    as_json([asdict(card) for card in cards.values()])


def as_json(content: Any) -> None:
    """Anything that JSON takes, indented, to stdout."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    if printable(text) != text:
        text = json.dumps(content, indent=2, default=str)
    sys.stdout.write(text + "\n")


def results(**paths: Any) -> None:
    """The last lines of a command: a name and a path per line; a path of None is left out."""
    paths = {name: path for name, path in paths.items() if path is not None}
    width = max(len(name) for name in paths)
    for name, path in paths.items():
        line = f"{name.replace('_', ' ') + ':':<{width + 1}} {path}"
        sys.stdout.write(_clean(line) + "\n")


def _clean(text: str) -> str:
    return text if text.isprintable() else printable(text)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(_clean(text))


def facts(title: str, found: Mapping[str, Any]) -> None:
    """Names and values, one line each; nested mappings are indented."""
    console = stdout()
    console.print(_clean(title), style="bold", markup=False)
    width = max((len(str(name)) for name in found), default=0)
    for name, value in found.items():
        if isinstance(value, Mapping):
            console.print(f"  {_clean(str(name))}", markup=False)
            inner = max((len(str(key)) for key in value), default=0)
            for key, item in value.items():
                line = f"    {_clean(str(key)):<{inner}}  {_plain(item)}"
                console.print(line, markup=False, soft_wrap=True)
        else:
            line = f"  {_clean(str(name)):<{width}}  {_plain(value)}"
            console.print(line, markup=False, soft_wrap=True)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_clean(str(key))} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else _clean(str(value))


def remark(text: str) -> None:
    """A line for the person at the terminal, to stderr."""
    Console(stderr=True, highlight=False).print(
        _clean(text), markup=False, soft_wrap=True, style="yellow"
    )


@contextmanager
def counter(title: str, *, show: bool) -> Iterator[ProgressCallback | None]:
    """Show progress on stderr: yields the callback, or None where `show` is False.

    In a terminal it is a bar; elsewhere (a file, a pipe) a line at the start, then one per 10 % or
    30 seconds.
    """
    if not show:
        yield None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressLines(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[name]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, name="")

        def update(done: float, total: float, name: str) -> None:
            bar.update(task, completed=done, total=total, name=_escaped(name))

        yield update


class ProgressLines:
    """Progress as lines on stderr, for logs."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._clock = clock
        self._total = math.nan
        self._tenth = -1
        self._last = 0.0

    def __call__(self, done: float, total: float, name: str) -> None:
        """Print a line where the work began, is 10 % further, or 30 seconds have passed."""
        tenth = math.floor(10 * done / total) if total else 10
        now = self._clock()
        if total == self._total and tenth == self._tenth and now - self._last < _SECONDS:
            return
        self._total, self._tenth, self._last = total, tenth, now
        line = f"{self._title}: {math.floor(done)} of {math.floor(total)}"
        sys.stderr.write(_clean(f"{line} ({name})" if name else line) + "\n")
        sys.stderr.flush()


def score_tables(*tables: ScoreTable, heading: str = "") -> None:
    """Tables of scores to stdout: drawn in a terminal, as Markdown in a file."""
    if sys.stdout.isatty():
        console = Console()
        if heading:
            console.print(heading, style="bold", markup=False)
        for shown in tables:
            console.print(shown.rich())
    else:
        parts = [f"## {heading}\n"] if heading else []
        sys.stdout.write("\n".join([*parts, *(shown.markdown() for shown in tables)]) + "\n")
