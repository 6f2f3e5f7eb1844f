"""A store that is damaged, edited, too new or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from segweave.data.store import Store
from segweave.errors import InputError
from tests.data.made import made_store


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", b""),
        ("manifest.json", b"[]"),
        ("manifest.json", b'{"format": 1}'),
        ("manifest.json", None),
        ("records/case0/record.json", b"{}"),
        ("records/case0/record.json", None),
        ("records/case0/image.npy", b"not an array"),
        ("records/case0/image.npy", b""),
        ("records/case0/label.npy", None),
    ],
)
def test_damage_is_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    path = tmp_path / "s"
    made_store(path)
    if content is None:
        (path / file).unlink()
    else:
        (path / file).write_bytes(content)
    with pytest.raises(InputError, match=Path(file).name):
        Store(path).case("case0")


def test_a_truncated_or_oversized_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made_store(path)
    array = path / "records" / "case0" / "image.npy"
    os.truncate(array, array.stat().st_size - 1)
    with pytest.raises(InputError, match=r"image\.npy"):
        Store(path).case("case0")
    # A header that claims far more than is there.
    raw = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    text = "{'descr': '<i2', 'fortran_order': False, 'shape': (99999999, 1, 999, 999), }"
    array.write_bytes(raw + text.ljust(117).encode() + b"\n")
    with pytest.raises(InputError, match=r"image\.npy"):
        Store(path).case("case0")


def test_flipped_bits_are_found_by_verify(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made_store(path)
    array = path / "records" / "case1" / "image.npy"
    raw = bytearray(array.read_bytes())
    raw[-3] ^= 4
    array.write_bytes(raw)
    checked = Store(path).verify()
    assert next(checked) == "case0"
    with pytest.raises(InputError, match="checksum"):
        next(checked)
    assert list(Store(path).verify(["case2", "case0"])) == ["case2", "case0"]


def test_an_edited_manifest_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made_store(path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    manifest["cases"][0]["group"] = "someone else"
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="checksum does not fit"):
        Store(path)
    manifest["cases"][0]["record"] = "../../elsewhere"
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="not the name of a record"):
        Store(path)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made_store(path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    manifest["format"] = 99
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="update segweave"):
        Store(path)


def test_a_missing_store_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="segweave prepare"):
        Store(tmp_path / "nothing")
