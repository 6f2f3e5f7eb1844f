"""The coded terms of a target's classes: read and set."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from segweave.data.codes import ClassCode, code_of
from segweave.data.specs import TargetSpec, organ_of, plain_name
from segweave.errors import UsageError, from_validation, nearest


def class_codes(target: TargetSpec) -> dict[int, ClassCode]:
    """Label id → coded term of every foreground class: the target's own, else that of its name."""
    given = target.codes or (None,) * len(target.names)
    return {
        label: given[min(label, len(given) - 1)]
        or code_of(name, (plain_name(name), organ_of(name)), label)
        for label, name in target.foreground.items()
    }


def with_codes(target: TargetSpec, codes: Mapping[str, str | Mapping[str, str]]) -> TargetSpec:
    """The target with these coded terms.

    `codes` is class name → "SCHEME:VALUE:MEANING", or → the fields of `ClassCode`. Raises
    UsageError for a class that the target does not have and for another form of code.
    """
    doing = "setting the codes of classes"
    given = dict(zip(target.names, target.codes or (None,) * len(target.names), strict=True))
    for name, value in codes.items():
        if name not in given:
            raise UsageError(doing, found=f"class {name!r}", remedy=nearest(name, given))
        fields = {"type": value} if isinstance(value, str) else value
        try:
            given[name] = ClassCode.model_validate(fields)
        except ValidationError as error:
            raise from_validation(error, doing, model=ClassCode, section=name) from None
    return target.model_copy(update={"codes": tuple(given.values())})
