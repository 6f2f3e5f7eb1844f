"""Reads CSV tables as spreadsheets write them: separated by commas, semicolons or tabs, with empty
rows, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from pathlib import Path

from segweave.errors import InputError
from segweave.formats.guard import check_file
from segweave.words import cell_text, few

_OTHER_WORDS = {
    **dict.fromkeys(("patient", "patient_id", "subject", "video", "sequence"), "group"),
    **dict.fromkeys(("split", "set", "subset"), "part"),
    **dict.fromkeys(("label", "seg", "segmentation", "annotation", "gt"), "mask"),
    **dict.fromkeys(("img", "scan"), "image"),
    **dict.fromkeys(("file", "name", "filename", "id", "image"), "case"),
}
"""What others call the columns; "image" is the case where a table has no images."""


def read_lines(path: str | Path, doing: str, expected: str = "") -> list[tuple[int, list[str]]]:
    """(line number, cells without blanks around them) of the rows that are not empty, the header
    first. Raises InputError, with what was `expected`, where it is not a CSV file in UTF-8.
    """
    file = Path(path)
    check_file(file, doing)
    block = _content(file, doing, expected)
    try:
        text = block.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = block[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise InputError(
            doing,
            file=file,
            expected="a CSV file in UTF-8",
            found="UTF-16" if wide else f"byte {block[error.start]:#x}, of another encoding",
            remedy="save it as CSV UTF-8",
            kind="layout",
        ) from None
    filled = (line for line in io.StringIO(text, newline=None) if line.strip(" ,;\t\r\n"))
    head, separator = next(filled, "").strip("\r\n"), ""
    if head.lower().startswith("sep=") and len(head) == 5:
        separator = head[4]  # a line for Excel
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator or max(",;\t", key=head.count)
    )
    lines: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            stripped = [cell_text(cell.strip()) for cell in cells]
            if any(stripped):
                lines.append((reader.line_num, stripped))
    except csv.Error as error:
        raise InputError(
            doing, file=file, expected=expected or "a CSV file", found=str(error), kind="layout"
        ) from error
    return lines[1:] if separator else lines


def check_columns(names: Sequence[str], known: Sequence[str], doing: str, file: Path) -> list[str]:
    """A warning that names the columns of a user's table that nothing reads.

    Raises InputError where one of them looks like one that would be read ("patient", "gruop"), so
    that no split and no group is lost for its name.
    """
    unused = [name for name in names if name not in known]
    for name in unused:
        meant = _OTHER_WORDS.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), "")
        if meant in known and meant not in names:
            raise InputError(
                doing,
                file=file,
                expected=f"the columns {', '.join(known)}",
                found=f"a column {name!r}",
                remedy=f"call that column {meant}; or remove it, if it is something else",
                kind="layout",
            )
    return [f"columns of {file.name} that are not used: {few(unused)}"] if unused else []


def other_word(name: str) -> str | None:
    """What this project calls a column that others call `name`; None where that is not known."""
    return _OTHER_WORDS.get(name)


def _content(file: Path, doing: str, expected: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            doing,
            file=file,
            expected=expected or "a CSV file",
            found=str(error.strerror),
            kind="layout",
        ) from error
