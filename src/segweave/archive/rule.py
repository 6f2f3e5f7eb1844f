"""Which series are segmented: the rule of `segweave watch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from segweave.errors import InputError, from_validation, nearest
from segweave.recipes import read_yaml

NOT_IMAGES = frozenset(
    (
        "SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "DOC", "REG", "FID",
        "RWV", "PLAN", "AU", "ECG", "HD", "EPS", "RESP", "ANN", "M3D", "STAIN", "SMR", "ASMT", "BI",
    )
)  # fmt: skip
"""Modalities without pixels to segment; results of this project are among them."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
_WORDS = {
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "description": "SeriesDescription",
}


class Rule(BaseModel, extra="forbid", frozen=True, coerce_numbers_to_str=True):
    """What a series must be. Texts are compared without regard to case; * and ? stand for any
    characters; of several patterns one has to fit. What is left out fits every series.

    Attributes:
        modality: CT, MR, ...
        body_part: BodyPartExamined.
        description: SeriesDescription.
        minimum_slices: the fewest slices (frames of a multi-frame file).
        attributes: keyword of any DICOM attribute → patterns. An attribute that is missing is "".
    """

    modality: Patterns = ()
    body_part: Patterns = ()
    description: Patterns = ()
    minimum_slices: int = Field(default=1, ge=1)
    attributes: dict[str, Patterns] = {}

    @field_validator("attributes")
    @classmethod
    def _known(cls, attributes: dict[str, Any]) -> dict[str, Any]:
        from pydicom.datadict import keyword_dict

        for keyword in attributes:
            if keyword not in keyword_dict:
                raise ValueError(
                    f"keywords of DICOM attributes ({nearest(keyword, keyword_dict)})"
                    if keyword
                    else "keywords of DICOM attributes"
                )
        return attributes

    @property
    def keywords(self) -> tuple[str, ...]:
        """The attributes that it looks at."""
        named = [_WORDS[name] for name in _WORDS if getattr(self, name)]
        return (*named, *self.attributes)

    @property
    def one_modality(self) -> str | None:
        """The modality that a series must have, where it is a single one without patterns."""
        plain = len(self.modality) == 1 and self.modality[0].isalnum()
        return self.modality[0].upper() if plain else None

    def may_fit(self, modality: str) -> bool:
        """Whether a series of images of that modality may fit, before more of it is known."""
        if modality.strip().upper() in NOT_IMAGES:
            return False
        return not self.modality or _fits([modality], self.modality)

    def fits(self, slices: int, values: Mapping[str, Sequence[str]]) -> bool:
        """Whether a series fits: its slices, and keyword → values of its attributes."""
        if slices < self.minimum_slices:
            return False
        asked = {_WORDS[name]: getattr(self, name) for name in _WORDS} | self.attributes
        return all(_fits(values.get(keyword, ()), asked[keyword]) for keyword in self.keywords)


def _fits(values: Sequence[str], patterns: Sequence[str]) -> bool:
    texts = [value.strip().casefold() for value in values] or [""]
    return any(fnmatchcase(text, one.casefold()) for text in texts for one in patterns)


def read_rule(file: str | Path | None, **options: Any) -> Rule:
    """The rule in a YAML file, with options that replace or, for attributes, add to what it says.

    Raises InputError for a file that is not one, with the nearest right key for a wrong one.
    """
    doing = "reading a rule"
    path = None if file is None else Path(file)
    content: Any = {}
    if path is not None:
        content = read_yaml(path, doing)
        if not isinstance(content, dict):
            raise InputError(
                doing,
                file=path,
                expected="keys and values, such as modality: CT",
                found=type(content).__name__,
            )
    given = {name: value for name, value in options.items() if value}
    if given.get("attributes") and isinstance(content.get("attributes"), dict):
        given["attributes"] = content["attributes"] | given["attributes"]
    try:
        return Rule.model_validate(content | given)
    except ValidationError as error:
        raise from_validation(error, doing, model=Rule, file=path) from error
