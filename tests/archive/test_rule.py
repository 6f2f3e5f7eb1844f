"""Which series fit a rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from segweave.archive import Rule, read_rule
from segweave.errors import InputError

CT = {"Modality": ["CT"], "SeriesDescription": ["Portal venous 5mm"], "KVP": ["120"]}


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"modality": "ct"}, True),
        ({"modality": ["MR", "PT"]}, False),
        ({"description": "*venous*"}, True),
        ({"description": ["*arterial*", "portal*"]}, True),
        ({"description": "venous"}, False),
        ({"minimum_slices": 40}, True),
        ({"minimum_slices": 41}, False),
        ({"attributes": {"KVP": 120}}, True),
        ({"attributes": {"KVP": "1?"}}, False),
        ({"body_part": "ABDOMEN"}, False),
        ({"body_part": ["ABDOMEN", ""]}, True),
    ],
)
def test_patterns(rule: dict, fits: bool) -> None:
    assert Rule.model_validate(rule).fits(40, CT) is fits


def test_results_are_never_segmented() -> None:
    assert not Rule().may_fit("SEG")
    assert not Rule(modality="*").may_fit("SR")
    assert Rule().may_fit("CT")
    assert Rule().may_fit("")
    assert not Rule(modality="MR").may_fit("CT")
    asked = ["ct", "C*", ["CT", "MR"], []]
    assert [Rule(modality=one).one_modality for one in asked] == ["CT", None, None, None]


def test_a_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "rule.yaml"
    file.write_text("modality: CT\nminimum_slices: 5\nattributes: {KVP: 1*}\n")
    rule = read_rule(file, modality=["MR"], attributes={"Manufacturer": "S*"})
    assert rule == Rule(
        modality="MR", minimum_slices=5, attributes={"KVP": "1*", "Manufacturer": "S*"}
    )
    assert rule.keywords == ("Modality", "KVP", "Manufacturer")
    for text, words in (
        ("modalty: CT", "modality"),
        ("- CT", "keys and values"),
        ("attributes: {ManufacturerName: x}", "Manufacturer"),
        ("attributes: CT", "attributes"),
        ("minimum_slices: 0", "minimum_slices"),
        ("a: [", "YAML"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            read_rule(file)
