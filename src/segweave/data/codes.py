"""The coded terms of classes, by which other systems know what was segmented."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, field_validator

PRIVATE_SCHEME = "99SEGWEAVE"
"""The scheme of codes that only name a class: no standard code is known for it."""
ANATOMY = "SCT:91723000:Anatomical Structure"
ABNORMAL = "SCT:49755003:Morphologically Abnormal Structure"
TISSUE = "SCT:85756007:Tissue"
_CONCEPT = "SCT:309825002:Spatial and Relational Concept"
_LEFT, _RIGHT = "SCT:7771000:Left", "SCT:24028007:Right"
_LONGEST = (16, 16, 64)
"""The most characters of scheme, value and meaning (DICOM SH, SH, LO)."""


class ClassCode(BaseModel):
    """The coded term of a class. Each part is SCHEME:VALUE:MEANING, where the scheme is a
    designator of DICOM (SCT for SNOMED CT, DCM, FMA ...).

    Attributes:
        type: what it is: "SCT:10200004:Liver".
        category: the kind of thing that it is.
        modifier: what narrows the type, such as the side of a kidney; None for nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    category: str = ANATOMY
    modifier: str | None = None

    @field_validator("type", "category", "modifier")
    @classmethod
    def _check(cls, text: str | None) -> str | None:
        if text is not None:
            parts_of(text)
        return text

    @property
    def is_private(self) -> bool:
        """Whether the type only repeats the name of the class."""
        return self.type.startswith(f"{PRIVATE_SCHEME}:")


def parts_of(text: str) -> tuple[str, str, str]:
    """Scheme, value and meaning of SCHEME:VALUE:MEANING. Raises ValueError for another form."""
    parts = [part.strip() for part in text.split(":", 2)]
    fits = len(parts) == 3 and all(
        part and part.isprintable() and "\\" not in part and len(part) <= most
        for part, most in zip(parts, _LONGEST, strict=True)
    )
    if not fits:
        raise ValueError(
            f"a code is SCHEME:VALUE:MEANING of at most 16, 16 and 64 characters, such as "
            f"SCT:10200004:Liver, not {text!r}"
        )
    return parts[0], parts[1], parts[2]


def _sct(value: str, meaning: str, category: str = ANATOMY, side: str | None = None) -> ClassCode:
    return ClassCode(type=f"SCT:{value}:{meaning}", category=category, modifier=side)


CODES = {
    "right ventricle": _sct("53085002", "Right ventricle"),
    "myocardium": _sct("74281007", "Myocardium"),
    "left ventricle": _sct("87878005", "Left ventricle"),
    "left atrium": _sct("82471001", "Left atrium"),
    "right atrium": _sct("73829009", "Right atrium"),
    "polyp": _sct("41329004", "Polyp", ABNORMAL),
    "lesion": _sct("52988006", "Lesion", ABNORMAL),
    "skin lesion": _sct("95324001", "Skin lesion", ABNORMAL),
    "skin lesions": _sct("95324001", "Skin lesion", ABNORMAL),
    "gland": _sct("85756007", "Tissue", TISSUE),
    "aorta": _sct("15825003", "Aorta"),
    "gallbladder": _sct("28231008", "Gallbladder"),
    "kidney": _sct("64033007", "Kidney"),
    "kidneys": _sct("64033007", "Kidney"),
    "left kidney": _sct("64033007", "Kidney", side=_LEFT),
    "right kidney": _sct("64033007", "Kidney", side=_RIGHT),
    "liver": _sct("10200004", "Liver"),
    "pancreas": _sct("15776009", "Pancreas"),
    "spleen": _sct("78961009", "Spleen"),
    "stomach": _sct("69695003", "Stomach"),
    "oesophagus": _sct("32849002", "Esophagus"),
    "inferior vena cava": _sct("64131007", "Inferior vena cava"),
    "portal and splenic veins": _sct("32764006", "Portal vein"),
    "right adrenal gland": _sct("23451007", "Adrenal gland", side=_RIGHT),
    "left adrenal gland": _sct("23451007", "Adrenal gland", side=_LEFT),
}
"""Class → its code. The lists of DICOM have no gland of an organ: it is coded as tissue."""


def code_of(name: str, usual: Iterable[str], label: int) -> ClassCode:
    """The code of the first of the `usual` names of a class that has one; else a private code that
    says that no standard code is known of the class `name`.
    """
    known = next((CODES[one] for one in usual if one in CODES), None)
    if known is not None:
        return known
    printable = "".join(one if one.isprintable() and one != "\\" else "?" for one in name).strip()
    meaning = f"{(printable or 'unnamed')[:44]} (no standard code)"
    return ClassCode(type=f"{PRIVATE_SCHEME}:CLASS-{label}:{meaning}", category=_CONCEPT)
