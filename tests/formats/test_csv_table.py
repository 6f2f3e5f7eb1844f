"""Tables of users: what spreadsheets write is read alike, and no column is lost for its name."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import InputError
from segweave.formats.csv_table import check_columns, read_lines

ROWS = [["case", "group", "part"], ["Müller", "p;1", "train"], ["b", "", "valid"], ["c", "x", ""]]


@given(
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    gaps=st.lists(st.sampled_from(["none", "blank", "separators"]), min_size=5, max_size=5),
    quoted=st.booleans(),
    excel=st.booleans(),
)
@settings(max_examples=60)
def test_what_spreadsheets_write_is_read_alike(
    tmp_path_factory: pytest.TempPathFactory,
    separator: str,
    end: str,
    encoding: str,
    gaps: list[str],
    quoted: bool,
    excel: bool,
) -> None:
    lines = [f"sep={separator}"] if excel else []
    numbers = []
    for row, gap in zip([*ROWS, []], gaps, strict=True):
        lines += {"none": [], "blank": ["", " "], "separators": [separator * 4]}[gap]
        if row:
            cells = [f'"{cell}"' if quoted or ";" in cell else f" {cell} " for cell in row]
            lines.append(separator.join(cells))
            numbers.append(len(lines))
    if not excel and gaps[0] == "separators":
        lines = lines[1:]
        numbers = [number - 1 for number in numbers]
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    found = read_lines(path, "reading")
    assert [cells for _, cells in found] == ROWS
    assert [number for number, _ in found] == numbers


@pytest.mark.parametrize(
    ("encoding", "found"),
    [("latin-1", "another encoding"), ("cp1252", "0xfc"), ("utf-16", "UTF-16")],
)
def test_another_encoding_is_named_with_a_remedy(tmp_path: Path, encoding: str, found: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("image,mask\nMüller.png,b.png\n".encode(encoding))
    with pytest.raises(InputError, match=found) as caught:
        prepare("table", path, tmp_path / "store")
    assert "save it as CSV UTF-8" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["image", "mask", "patient"], "group"),
        (["image", "mask", "case", "part", "subject"], "group"),
        (["image", "mask", "split"], "part"),
        (["image", "mask", "gruop"], "group"),
        (["image", "label"], "mask"),
        (["img", "mask"], "image"),
    ],
)
def test_a_column_that_means_a_known_one_is_refused(
    tmp_path: Path, names: list[str], meant: str
) -> None:
    (tmp_path / "t.csv").write_text(",".join(names).title() + "\n" + ",".join("a" for _ in names))
    with pytest.raises(InputError, match=f"call that column {meant}"):
        prepare("table", tmp_path / "t.csv", tmp_path / "store")


def test_other_columns_are_named(tmp_path: Path) -> None:
    known = ("image", "mask", "case", "group", "part")
    names = ["image", "mask", "group", "patient", "age", "scanner"]
    (warning,) = check_columns(names, known, "reading", tmp_path / "t.csv")
    assert warning.endswith("not used: patient, age, scanner")
    assert check_columns(["image", "mask"], known, "reading", tmp_path / "t.csv") == []


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_are_matched_however_umlauts_are_stored(
    tmp_path: Path, forms: tuple[str, str]
) -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[2:5, 3:6] = 255
    for folder, form in zip(("images", "masks"), forms, strict=True):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(["Müller", "Åse_é", "plain"]):
            values = mask if folder == "masks" else mask // 3 + number
            ending = "_mask" if folder == "masks" and number else ""
            file = unicodedata.normalize(form, name) + f"{ending}.png"
            Image.fromarray(values).save(tmp_path / folder / file)
    table = unicodedata.normalize(
        forms[1], "case,group,Part\nMüller,a,test\nÅse_é,b,valid\nplain,c,train\n"
    )
    (tmp_path / "cases.csv").write_text(table)
    options = {"masks": tmp_path / "masks", "cases": tmp_path / "cases.csv"}
    report = prepare("folder", tmp_path / "images", tmp_path / "store", **options)
    assert report.missing == []
    assert Store(tmp_path / "store").splits["given"] == {
        "train": ["plain"],
        "valid": ["Åse_é"],
        "test": ["Müller"],
    }
