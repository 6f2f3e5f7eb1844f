"""Cells that spreadsheets do not compute, and texts that move no cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segweave.words import cell_text, few, printable, printable_line, text_cell, text_cells

_NAMES = st.text(st.sampled_from("=+-@\t\r'\"ab1. ,;\n\x1b"), max_size=6)


@given(text=_NAMES)
def test_no_cell_is_computed_and_every_text_comes_back(text: str) -> None:
    cell = text_cell(text)
    assert cell_text(cell) == text
    with_sign = text[:1] in ("+", "-")
    if not (with_sign and text[1:2].isdigit()):
        assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")


@pytest.mark.parametrize("number", ["-1", "+0.5", "-1e-3", "-2.", "7"])
def test_numbers_stay_numbers(number: str) -> None:
    assert text_cell(number) == number


def test_lists_texts_and_rows_are_shown_without_control_characters() -> None:
    assert few(["a", "b"], 2) == "a, b"
    assert few(["a", "b", "c", "d", "e"], 2) == "a, b and 3 more"
    assert printable("a\x1b[31m\nb\tc") == r"a\x1b[31m" + "\nb\tc"
    assert printable_line("a\nb\tc") == r"a\nb c"
    assert text_cells(["=1+1", "a\nb", 2, None]) == ["'=1+1", r"a\nb", 2, None]
