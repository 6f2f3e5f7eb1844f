"""The HTML page stands alone, escapes what it is given and is well formed."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segweave.errors import MissingExtraError
from segweave.report import Image, Page, Section, Table, write_page

PNG = b"\x89PNG not really"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Balanced(HTMLParser):
    """Fails where tags do not close in the order in which they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def text(tmp_path: Path) -> str:
    rows = [("<b>", "< 0.001", "many words in one cell, long ones"), ("y", "[−1, 0]", "")]
    table = Table(("arm", "Dice", "note"), rows, "one & two")
    page = Page(
        "A <title>",
        [
            Section("First", ["a < b"], [table], [Image(PNG, 'a "picture"')], "key: <value>"),
            Section("Second"),
            Section("Third"),
        ],
        warning="shows how it works, not evidence",
        facts=[("seed", "0")],
    )
    return write_page(page, tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_is_balanced_and_has_every_part(text: str) -> None:
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert {"table", "figure", "pre", "nav", "dl", "caption"} <= parser.seen
    assert "shows how it works, not evidence" in text


def test_what_comes_from_outside_is_escaped(text: str) -> None:
    assert "<b>" not in text
    for escaped in ("&lt;b&gt;", "a &lt; b", "A &lt;title&gt;", "one &amp; two", "&lt;value&gt;"):
        assert escaped in text


def test_the_page_stands_alone(text: str) -> None:
    assert "data:image/png;base64," in text
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_columns_of_numbers_are_flush_right(text: str) -> None:
    header = re.findall(r"<th [^>]*>", text)
    assert ["number" in cell for cell in header] == [False, True, False]
    assert ["words" in cell for cell in header] == [False, False, True]


def test_wide_tables_have_room_and_their_headers_wrap(text: str) -> None:
    (width,) = re.findall(r"body \{[^}]*max-width: (\d+)rem", text)
    assert int(width) * 16 >= 1500
    (header,) = re.findall(r"thead th \{([^}]*)\}", text)
    assert "white-space: normal" in header


def test_without_jinja_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"segweave\[report\]"):
        write_page(Page("x", []), tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
