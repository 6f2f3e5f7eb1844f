"""Coded terms: known organs have those of DICOM's dictionaries, others say that they have none."""

from __future__ import annotations

import pytest

from segweave.data.codes import CODES, ClassCode, parts_of
from segweave.data.specs import TargetSpec
from segweave.data.target_codes import class_codes, with_codes
from segweave.errors import InputError, UsageError
from segweave.registry import datasets

OUTSIDE = {"41329004": "Polyp", "74281007": "Myocardium"}
"""Codes that DICOM's own lists leave to SNOMED CT."""


def test_codes_are_those_of_the_dictionary() -> None:
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts["SCT"]
    known = {value: {meaning} for value, meaning in OUTSIDE.items()}
    for entry in concepts.values():
        for value, (meaning, _) in entry.items():
            known.setdefault(value, set()).add(meaning)
    for name, code in CODES.items():
        for text in filter(None, (code.type, code.category, code.modifier)):
            scheme, value, meaning = parts_of(text)
            assert scheme == "SCT"
            assert any(meaning.lower() in one.lower() for one in known[value]), (name, text)


def code_of(name: str) -> ClassCode:
    return class_codes(TargetSpec(kind="binary", names=(name,)))[1]


def test_every_shipped_data_set_has_known_classes() -> None:
    cards = datasets.cards()
    named = {name: card.classes for name, card in cards.items() if card.expected}
    assert {"acdc", "synapse", "isic2018", "glas", "kvasir-seg"} <= {*named}
    for classes in named.values():
        for name in classes:
            if name != "background":
                assert not code_of(name).is_private, name


def test_names_in_other_forms_and_unknown_ones() -> None:
    assert code_of("LV_cavity").type == "SCT:87878005:Left ventricle"
    assert code_of("Gall-Bladder").type == "SCT:28231008:Gallbladder"
    assert code_of("Skin lesion").type == "SCT:95324001:Skin lesion"
    assert code_of("kidney_left").modifier == "SCT:7771000:Left"
    other = code_of("b" * 90 + "\\\n")
    assert other.is_private
    assert parts_of(other.type)[1:] == ("CLASS-1", "b" * 44 + " (no standard code)")


def test_codes_of_a_target() -> None:
    target = TargetSpec(names=("background", "liver", "mass"))
    before = target.model_dump(mode="json")
    assert "codes" not in before
    assert "codes" not in target.model_dump()
    coded = with_codes(target, {"mass": "SCT:4147007:Mass"})
    assert coded.codes == (None, None, ClassCode(type="SCT:4147007:Mass"))
    assert TargetSpec.model_validate(coded.model_dump(mode="json")) == coded
    assert {id: code.type for id, code in class_codes(coded).items()} == {
        1: "SCT:10200004:Liver",
        2: "SCT:4147007:Mass",
    }
    binary = with_codes(TargetSpec(kind="binary", names=("x",)), {"x": "SCT:4147007:Mass"})
    assert class_codes(binary)[1].type == "SCT:4147007:Mass"
    with pytest.raises(UsageError, match="did you mean liver"):
        with_codes(target, {"livre": "SCT:4147007:Mass"})
    for wrong in ("liver", "SCT:1", "SCT:12345678901234567:x", {"type": "SCT:1:a", "kind": "b"}):
        with pytest.raises(InputError):
            with_codes(target, {"mass": wrong})
