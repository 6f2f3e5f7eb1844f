"""Which mirror images and turns the anatomy of the classes allows."""

from __future__ import annotations

import re

from segweave.data.specs import Mirror
from segweave.workflow.planner.facts import StoreFacts

_SIDES = {"left", "right", "l", "r", "lt", "rt"}
_HEART = re.compile(
    r"ventric|myocard|atri(um|al)|\b(lv|rv|la|ra|myo)\b|\bventricle|heart|\bcardiac", re.IGNORECASE
)
# Organs that are on one side of the body, so that a mirrored body is an impossible one.
_ONE_SIDED = re.compile(
    r"liver|spleen|stomach|gall ?bladder|pancreas|aorta|vena cava|postcava|portal|appendix|"
    r"duodenum|colon\b|caecum|hepatic",
    re.IGNORECASE,
)


def _words(name: str) -> set[str]:
    return set(re.split(r"[\s_\-.]+", name.lower()))


def allowed_mirror(facts: StoreFacts) -> tuple[Mirror, str]:
    """The value of `mirror` for these classes, and why."""
    classes = facts.classes
    hearts = [name for name in classes if _HEART.search(name)]
    if len(hearts) == len(classes) and any(_HEART.search(name) for name in classes):
        return (
            "both",
            "the parts of a heart differ in shape, and hearts lie in many directions: a mirrored "
            "one is still one",
        )
    sided = [name for name in classes if _words(name) & _SIDES]
    if sided:
        return "none", f"left and right are different classes ({', '.join(sided[:2])})"
    one_sided = [name for name in classes if _ONE_SIDED.search(name)]
    if one_sided and not facts.colour:
        return "none", f"{', '.join(one_sided[:2])}: on one side of the body, never on the other"
    if facts.colour:
        return "both", "the camera looks from any side, and no class is left or right"
    if facts.volumes and facts.oblique:
        return "both", "slices run obliquely through the body, and no class is left or right"
    return "rows", "no class is left or right; up and down are not exchanged in such images"


def allowed_rotation(facts: StoreFacts, mirror: Mirror) -> tuple[int, str]:
    """Degrees of the value `rotation`, and why."""
    if facts.colour:
        return 90, "the camera may be turned in any direction"
    if mirror == "both":
        return 30, "directions differ from case to case"
    return 15, "patients lie nearly alike"
