"""Writes one self-contained HTML page: text, tables and pictures, no script, no outside address."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from segweave.errors import MissingExtraError
from segweave.storage import atomic_write

_LONG = 24


@dataclass(frozen=True)
class Image:
    """A PNG and a caption, which also serves readers who can't see it."""

    png: bytes
    caption: str

    @property
    def address(self) -> str:
        """The picture itself as a data address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Table:
    """A table; a column whose cells all begin as numbers and intervals do is set flush right, one
    with long cells of words breaks them.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def kinds(self) -> list[str]:
        """What each column holds: "number", "words" (long ones), else ""."""
        return [_kind([row[i] for row in self.rows]) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables, pictures and pre-formatted text under it."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    images: Sequence[Image] = ()
    code: str = ""


@dataclass(frozen=True)
class Page:
    """The page: a title, a warning above everything, and sections."""

    title: str
    sections: Sequence[Section]
    warning: str = ""
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)


def write_page(page: Page, path: str | Path) -> Path:
    """Write `page` as one HTML file, whole or not at all; returns the path.

    Everything that comes from names and files is escaped. Raises MissingExtraError without jinja2.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("writing a report", library="jinja2", extra="report") from error
    from segweave import __version__

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        page=page,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _kind(cells: Sequence[str]) -> str:
    if cells and all(_is_number(cell) for cell in cells if cell):
        return "number"
    return "words" if any(len(cell) > _LONG for cell in cells) else ""


def _is_number(text: str) -> bool:
    return text.strip()[:1].isdigit() or text.strip()[:1] in "+-−–[<" or text.strip() == "n/a"
