"""Errors say what was being done, the file, what was expected, what was found and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segweave.errors import (
    InputError,
    MissingExtraError,
    SegweaveError,
    UsageError,
    from_validation,
    nearest,
)


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


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["red", "green"]
    share: float = Field(default=0.5, ge=0, le=1)


class Palette(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str
    count: int = 1
    colours: tuple[Colour, ...] = Field(default=(), alias="shades", max_length=2)

    @model_validator(mode="after")
    def _named(self) -> Palette:
        if self.title == "none":
            raise ValueError("a title that names it")
        return self


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"title": "a", "cuont": 2}, ["unknown key 'cuont'", "did you mean count?"]),
        (
            {"title": "a", "shaeds": []},
            ["unknown key 'shaeds'", "did you mean shades?"],
        ),
        (
            {"title": 3, "shades": [{"name": "red", "shares": 1}]},
            ["unknown key 'shades.0.shares'", "did you mean share?", "also look at title"],
        ),
        ({}, ["expected: the key 'title'", "found: it is missing"]),
        ({"title": 3}, ["expected: a text", "found: title: 3"]),
        ({"title": "a", "count": "x"}, ["expected: a whole number", "found: count: 'x'"]),
        ({"title": "a", "shades": [{"name": "blue"}]}, ["'red' or 'green'", "shades.0.name"]),
        ({"title": "a", "shades": [{"name": "red", "share": 2}]}, ["shades.0.share ≤ 1", ": 2"]),
        ({"title": "a", "shades": [{"name": "red"}] * 3}, ["a list of at most 2"]),
        ({"title": "none"}, ["expected: a title that names it", "keys and values"]),
        ([], ["expected: keys and values", "found: []"]),
    ],
)
def test_what_pydantic_found_becomes_one_message_about_one_key(
    content: object, words: list[str]
) -> None:
    with pytest.raises(ValidationError) as caught:
        Palette.model_validate(content)
    error = from_validation(caught.value, "reading a palette", model=Palette, file="palette.yaml")
    assert error.file == Path("palette.yaml")
    assert all(word in str(error) for word in words), str(error)


def test_the_section_of_a_file_is_part_of_the_key() -> None:
    with pytest.raises(ValidationError) as caught:
        Palette.model_validate({"title": "a", "count": []})
    error = from_validation(caught.value, "reading", model=Palette, section="palette")
    assert error.found == "palette.count: []"
