"""How names and texts are shown: lists in messages, no control characters in a terminal, cells that
spreadsheets do not compute.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_CONTROL = ("Cc", "Cf", "Cs")  # Unicode: control, format, halves of a pair
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_MARKED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)


def few(names: Sequence[object], limit: int = 6) -> str:
    """The first entries of a list, and how many more there are: "a, b and 3 more"."""
    rest = len(names) - limit
    shown = ", ".join(str(name) for name in names[:limit])
    return shown + (f" and {rest} more" if rest > 0 else "")


def printable(text: str) -> str:
    """The text with control characters as escapes, line ends and tabs excepted: a file name must
    not move the cursor or change the colours of a terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one in "\n\t" or unicodedata.category(one) not in _CONTROL else ascii(one)[1:-1]
        for one in text
    )


def printable_line(text: str) -> str:
    """The text without control characters, on one line."""
    return text if text.isprintable() else printable(text).replace("\n", r"\n").replace("\t", " ")


def text_cell(text: str) -> str:
    """A text for a CSV file that people open in a spreadsheet: what would be computed there (a name
    that begins with = + - @ or a tab) gets the apostrophe that marks a text. Numbers stay.
    """
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def cell_text(cell: str) -> str:
    """The text of such a cell."""
    return cell[1:] if _MARKED.match(cell) else cell


def text_cells(row: Iterable[object]) -> list[object]:
    """A row with `text_cell` for its texts, without control characters; numbers and None stay."""
    return [text_cell(printable_line(cell)) if isinstance(cell, str) else cell for cell in row]
