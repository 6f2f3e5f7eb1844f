"""Errors say what was being done, the file, what was expected, what was found and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from segweave.errors import InputError, MissingExtraError, SegweaveError, UsageError, nearest


def test_message_has_every_part_in_order() -> None:
    error = InputError(
        "reading a volume",
        file="scans/a.nii.gz",
        expected="finite values",
        found="3 NaN",
        remedy="remove them",
    )
    assert str(error).splitlines() == [
        "reading a volume",
        f"  file: {Path('scans/a.nii.gz')}",
        "  expected: finite values",
        "  found: 3 NaN",
        "  what to do: remove them",
    ]
    assert error.file == Path("scans/a.nii.gz")


def test_parts_that_are_not_given_are_left_out() -> None:
    assert str(SegweaveError("working")) == "working"
    assert SegweaveError("working").file is None


@pytest.mark.parametrize(
    ("kind", "code"),
    [(SegweaveError, 1), (InputError, 2), (UsageError, 2)],
)
def test_exit_codes(kind: type[SegweaveError], code: int) -> None:
    assert kind("x").exit_code == code


def test_builtin_bases_let_callers_catch_the_usual_exceptions() -> None:
    with pytest.raises(ValueError, match="choosing"):
        raise UsageError("choosing")
    with pytest.raises(ImportError, match="drawing"):
        raise MissingExtraError("drawing", library="matplotlib", extra="report")


def test_missing_extra_names_the_command_that_installs_it() -> None:
    text = str(MissingExtraError("drawing", library="matplotlib", extra="report"))
    assert 'pip install "segweave[report]"' in text
    assert "matplotlib" in text


def test_nearest_prefers_close_names_and_lists_all_otherwise() -> None:
    assert nearest("sa-lstn", ["sa-lstm", "lstm-sa", "mean"]).startswith("did you mean sa-lstm")
    assert nearest("zzz", ["mean", "conv"]) == "available: conv, mean"
