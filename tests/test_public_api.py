"""The stored list of public names: taking one away, or adding one, is done on purpose."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest

import segweave

STORED: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "public_api.json").read_text(encoding="utf-8")
)
NAMES = [(module, name) for module, names in STORED.items() for name in names]


def test_the_top_of_the_package_is_exactly_the_stored_list() -> None:
    assert sorted(set(segweave.__all__) - {"__version__"}) == sorted(STORED["segweave"])
    assert set(STORED["segweave"]) <= set(dir(segweave))


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda part: part)
def test_a_stored_name_is_still_there_and_says_what_it_is(module: str, name: str) -> None:
    thing = getattr(importlib.import_module(module), name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing)


@pytest.mark.parametrize("name", [n for n in STORED["segweave"] if n != "Case"])
def test_public_functions_are_typed_throughout(name: str) -> None:
    signature = inspect.signature(getattr(segweave, name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sgement'"):
        segweave.sgement  # noqa: B018
