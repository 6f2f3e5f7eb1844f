"""The colours of classes: an organ has the same colour in every data set, figure and overlay."""

from __future__ import annotations

import re
from collections.abc import Mapping

PALETTE = ("#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#d55e00", "#f0e442", "#0072b2", "#a6d854")
"""Okabe and Ito's colours, which people with any colour vision can tell apart, with a light green
in place of their black, which is not seen on an image."""

_MORE = ("#44c8b4", "#c77cff", "#ddcc77", "#ff8fa3", "#8da0cb")
# Skin, mucosa and stained tissue are warm: blue stands out there.
ONE_CLASS = PALETTE[2]

_ORGANS = {
    "right ventricle": PALETTE[0],
    "myocardium": PALETTE[1],
    "left ventricle": PALETTE[2],
    "left atrium": PALETTE[3],
    "right atrium": PALETTE[4],
    "polyp": ONE_CLASS,
    "lesion": ONE_CLASS,
    "gland": ONE_CLASS,
    "foreground": ONE_CLASS,
    "aorta": PALETTE[0],
    "gallbladder": PALETTE[1],
    "left kidney": PALETTE[2],
    "right kidney": PALETTE[3],
    "liver": PALETTE[4],
    "pancreas": PALETTE[5],
    "spleen": PALETTE[6],
    "stomach": PALETTE[7],
    "oesophagus": _MORE[0],
    "inferior vena cava": _MORE[1],
    "portal and splenic veins": _MORE[2],
    "right adrenal gland": _MORE[3],
    "left adrenal gland": _MORE[4],
}
_OTHER_NAMES = {
    "rv": "right ventricle",
    "rv cavity": "right ventricle",
    "rv endo": "right ventricle",
    "right ventricular cavity": "right ventricle",
    "myo": "myocardium",
    "lv myocardium": "myocardium",
    "myocardium of the left ventricle": "myocardium",
    "lv": "left ventricle",
    "lv cavity": "left ventricle",
    "lv endo": "left ventricle",
    "left ventricular cavity": "left ventricle",
    "la": "left atrium",
    "ra": "right atrium",
    "polyps": "polyp",
    "lesions": "lesion",
    "skin lesion": "lesion",
    "glands": "gland",
    "gall bladder": "gallbladder",
    "kidney left": "left kidney",
    "kidney l": "left kidney",
    "kidney right": "right kidney",
    "kidney r": "right kidney",
    "esophagus": "oesophagus",
    "ivc": "inferior vena cava",
    "postcava": "inferior vena cava",
    "portal vein and splenic vein": "portal and splenic veins",
    "adrenal gland right": "right adrenal gland",
    "adrenal gland left": "left adrenal gland",
}


def colours_of(names: Mapping[int, str]) -> dict[int, str]:
    """Label id → colour. A known organ has its colour under each of its usual names, other classes
    get those of `PALETTE` that are left, in the order of their ids.
    """
    organs = {id: organ_name(name) for id, name in names.items()}
    if len(names) == 1:
        return {id: _ORGANS.get(organ, ONE_CLASS) for id, organ in organs.items()}
    chosen: dict[int, str] = {}
    for id, organ in organs.items():
        colour = _ORGANS.get(organ)
        if colour is not None and colour not in chosen.values():
            chosen[id] = colour
    left = [one for one in (*PALETTE, *_MORE) if one not in chosen.values()] or list(PALETTE)
    others = [id for id in names if id not in chosen]
    chosen |= {id: left[number % len(left)] for number, id in enumerate(others)}
    return {id: chosen[id] for id in names}


def organ_name(name: str) -> str:
    """The name of a class in plain words; that of an organ under each of its usual names."""
    words = plain_words(name)
    return _OTHER_NAMES.get(words, words)


def plain_words(name: str) -> str:
    """A name in lower case, with one space between its words."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().lower()))
