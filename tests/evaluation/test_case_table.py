"""Tables of cases as spreadsheets write them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segweave.errors import InputError
from segweave.evaluation.case_table import Entry, read_entries

CELLS = st.text("abcdeé._- 0123456789", min_size=1, max_size=8).filter(lambda t: t.strip())


@given(
    st.dictionaries(CELLS.map(str.strip), CELLS.map(str.strip), min_size=1, max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.lists(st.integers(0, 6), max_size=3),
)
def test_every_way_of_writing_is_read(
    groups: dict[str, str], separator: str, end: str, mark: bool, empty: list[int]
) -> None:
    lines = [f"{name}{separator}{group}" for name, group in groups.items()]
    for index in empty:
        lines.insert(min(index, len(lines)), separator)
    text = end.join([f"Case{separator}group", *lines, separator, ""])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cases.csv"
        file.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
        assert read_entries(file) == {name: Entry(group=group) for name, group in groups.items()}


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("case,group\np0,a\n".encode("utf-16"), "UTF-16"),
        ("case,group\nmüller,a\n".encode("cp1252"), "of another encoding"),
    ],
)
def test_another_encoding_has_a_remedy(tmp_path: Path, block: bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(block)
    with pytest.raises(InputError, match=words) as caught:
        read_entries(tmp_path / "t.csv")
    assert "save it as CSV UTF-8" in str(caught.value)


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("\ncase,seed\n\n,,,\np0,1\n\np1,one\np0,2\n")
    with pytest.raises(InputError) as caught:
        read_entries(table)
    assert "line 7: seed 'one' is not a whole number" in str(caught.value)
    assert "line 8: p0 comes twice" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "remedy"),
    [
        ("case,Patient", "call that column group"),
        ("case,split", "call that column part"),
        ("file,group", "call that column case"),
        ("case,grup", "did you mean group"),
        ("case,group,group", "each once"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, header: str, remedy: str) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\np0,a,b\n")
    with pytest.raises(InputError, match=remedy):
        read_entries(tmp_path / "t.csv")


def test_names_are_compared_in_one_form(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case\nMu\u0308ller\n", encoding="utf-8")
    assert list(read_entries(tmp_path / "t.csv")) == ["M\u00fcller"]


@pytest.mark.parametrize("seed", ["1²", "--1", "9" * 30, "1.0"])
def test_numbers_that_are_none(tmp_path: Path, seed: str) -> None:
    (tmp_path / "t.csv").write_text(f"case,seed\np0,{seed}\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not a whole number"):
        read_entries(tmp_path / "t.csv")
