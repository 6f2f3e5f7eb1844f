"""Reads a CSV file of boxes, one for each image or for each slice of it."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from segweave.data.boxes import Box, CaseBoxes, check_box
from segweave.errors import InputError, SegweaveError
from segweave.words import few

COLUMNS = ("case", "x0", "y0", "x1", "y1")
SLICE = "slice"
_DOING = "reading a file of boxes"

GivenBoxes: TypeAlias = CaseBoxes | Mapping[str, CaseBoxes]
"""Boxes for all images, or for each by its name."""


def read_boxes(file: str | Path) -> dict[str, CaseBoxes]:
    """The boxes of a CSV file: name of an image → its box, or its boxes by slice.

    The columns are case, x0, y0, x1, y1, and slice where an image has several: a row without a
    slice number holds for all slices. `case` is the name of the image's file, with or without its
    ending. Raises InputError, with the line, for what is no such file.
    """
    path = Path(file)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = [name.strip() for name in reader.fieldnames or ()]
            if not set(COLUMNS) <= set(header):
                raise InputError(
                    _DOING,
                    file=path,
                    expected=f"the columns {', '.join(COLUMNS)} and, for volumes, {SLICE}",
                    found=", ".join(header) or "an empty file",
                )
            reader.fieldnames = header
            found: dict[str, dict[int | None, Box]] = {}
            for row in reader:
                _add(row, found, path, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            _DOING, file=path, expected="a CSV file in UTF-8", found=str(error)
        ) from error
    return {
        name: boxes[None]
        if None in boxes
        else {index: box for index, box in boxes.items() if index is not None}
        for name, boxes in found.items()
    }


def boxes_for(given: GivenBoxes | None, names: Collection[str]) -> CaseBoxes | None:
    """The boxes of the image that is called one of `names`; None where there are none for it."""
    if not isinstance(given, Mapping):
        return given
    by_slice: dict[int, Any] = {key: value for key, value in given.items() if isinstance(key, int)}
    if by_slice:
        return by_slice
    by_name: dict[str, Any] = {key: value for key, value in given.items() if isinstance(key, str)}
    return next((by_name[name] for name in names if name in by_name), None)


def check_used(given: GivenBoxes | None, names: Collection[str]) -> None:
    """Raise InputError where boxes are given for images that are not among `names`."""
    if not isinstance(given, Mapping):
        return
    unknown = [key for key in given if isinstance(key, str) and key not in names]
    if unknown:
        raise InputError(
            "predicting from boxes",
            expected="boxes of the images that are predicted",
            found=f"boxes for {few(unknown)}, which are not among them",
            remedy="the column case holds the names of image files",
        )


def _add(
    row: Mapping[str, str | None], found: dict[str, dict[int | None, Box]], path: Path, line: int
) -> None:
    def wrong(expected: str, value: object) -> InputError:
        return InputError(f"{_DOING}, line {line}", file=path, expected=expected, found=f"{value}")

    case = (row["case"] or "").strip()
    if not case:
        raise wrong("the name of an image in the column case", "nothing")
    text = (row.get(SLICE) or "").strip()
    try:
        index = int(text) if text else None
    except ValueError:
        raise wrong("a slice number, or nothing for all slices", text) from None
    try:
        box = check_box([float(row[name] or "") for name in COLUMNS[1:]], _DOING)
    except (ValueError, SegweaveError):
        values = " ".join(str(row[name]) for name in COLUMNS[1:])
        raise wrong("x0 ≤ x1 and y0 ≤ y1, numbers from 0 on", values) from None
    boxes = found.setdefault(case, {})
    if index in boxes or (boxes and (index is None) != (None in boxes)):
        raise wrong(f"one box for {case}, or one for each of its slices", "another box for it")
    boxes[index] = box
