"""What a network is fed, what its outputs mean (the same in recipe, model card and export), and
what a recipe says of augmentation. An organ has the same colour in every data set, figure and
overlay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from segweave.data.codes import ClassCode
from segweave.errors import UsageError

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


class InputSpec(BaseModel):
    """How a case's slices become a network's input.

    Attributes:
        channels: the names of the channels.
        colour_order: "rgb" needs three channels; "grey" is any number of others.
        grey_to_rgb: what an "rgb" network gets of a grey image: the same channel three times
            ("repeat"), or an error ("refuse").
        clip: lowest and highest value, in source values; None for no limit.
        clip_percentiles: the same in percentiles of the whole case. With both, the narrower limits
            hold.
        normalisation: "case-zscore" (mean 0, standard deviation 1 of the case), "case-minmax" (0 to
            1), "fixed" (`mean` and `sd`), "imagenet" (0 to 1, then ImageNet's numbers).
        mean: for "fixed", one number per channel in source values, from training cases only.
        sd: for "fixed", one number per channel in source values, from training cases only.
        size: (height, width) of the network's image in pixels; None where `spacing` is given.
        spacing: pixel size in mm (row, column) to resample to; None where `size` is given.
        fit: what becomes of an image of another shape than `size`: "stretch", "pad" (the shape is
            kept), or "tile" (cut at its own resolution: at random in training, with overlaps in
            prediction).
        interpolation: of the image; labels always take the nearest pixel.
        slices: length of a window, an odd number up to 99; the middle slice is segmented.
        edge: which slices a window has at the ends of a stack
            (`segweave.data.inputs.window_indices`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: tuple[str, ...] = ("grey",)
    colour_order: Literal["grey", "rgb"] = "grey"
    grey_to_rgb: Literal["repeat", "refuse"] = "repeat"
    clip: tuple[float, float] | None = None
    clip_percentiles: tuple[float, float] | None = None
    normalisation: Literal["case-zscore", "case-minmax", "fixed", "imagenet"] = "case-zscore"
    mean: tuple[float, ...] | None = None
    sd: tuple[float, ...] | None = None
    size: tuple[int, int] | None = (224, 224)
    spacing: tuple[float, float] | None = None
    fit: Literal["stretch", "pad", "tile"] = "stretch"
    interpolation: Literal["nearest", "linear", "cubic"] = "linear"
    slices: int = Field(default=1, ge=1, le=99)
    edge: Literal["repeat", "released"] = "repeat"

    @model_validator(mode="after")
    def _check(self) -> InputSpec:
        if self.slices % 2 == 0:
            raise ValueError(f"slices must be an odd number (1, 3, 5, ...), not {self.slices}")
        if self.edge == "released" and self.slices > 3:
            raise ValueError("edge 'released' is known only for windows of three slices")
        if (self.size is None) == (self.spacing is None):
            raise ValueError("give either size or spacing, not both and not neither")
        if self.normalisation == "fixed" and (self.mean is None or self.sd is None):
            raise ValueError("normalisation 'fixed' needs mean and sd (from training cases only)")
        for name, values in (("mean", self.mean), ("sd", self.sd)):
            if values is not None and len(values) != len(self.channels):
                raise ValueError(
                    f"{name} needs one number for each of {len(self.channels)} channels"
                )
        if self.sd is not None and min(self.sd) <= 0:
            raise ValueError("sd must be positive")
        if self.colour_order == "rgb" and len(self.channels) != 3:
            raise ValueError("colour_order 'rgb' needs three channels (red, green, blue)")
        if self.normalisation == "imagenet" and self.colour_order != "rgb":
            raise ValueError("normalisation 'imagenet' needs colour_order 'rgb'")
        for limits in (self.clip, self.clip_percentiles):
            if limits is not None and not limits[0] < limits[1]:
                raise ValueError(f"a clip runs from the lower to the higher value, not {limits}")
        if min(self.size or self.spacing or (1,)) <= 0:
            raise ValueError("size and spacing must be positive")
        return self


Task = Literal["labels", "image"]
"""What a network predicts: classes, or the values of an image."""


class TargetSpec(BaseModel):
    """What is predicted: classes, or an image.

    Attributes:
        kind: "exclusive" (each pixel has one class, of which id 0 is the background), "binary" (one
            sigmoid channel), "overlapping" (one sigmoid channel per class), "image" (the values of
            an image, such as the one without noise: real numbers, no classes).
        names: the classes in the order of their ids or channels, the background included where it
            is one; of an image, its channels.
        colours: one per name, as "#rrggbb"; None for the standard colours.
        ignored: the label id of pixels that do not count, or None.
        threshold: from this probability on a pixel belongs to the class ("binary" and
            "overlapping").
        codes: the coded term of each name for DICOM objects, None for that of its name
            (`segweave.data.target_codes`); None altogether where none was given.
        unit: of an image's values, "HU" for instance.
        range: the lowest and the highest value of an image that count: scores compare what is
            between them, and their difference is the range of the data in PSNR and SSIM.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["exclusive", "binary", "overlapping", "image"] = "exclusive"
    names: tuple[str, ...] = Field(min_length=1)
    colours: tuple[str, ...] | None = None
    ignored: int | None = None
    threshold: float = 0.5
    codes: tuple[ClassCode | None, ...] | None = None
    unit: str = ""
    range: tuple[float, float] | None = None

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Stores and cards keep the content, and the checksum, that they had before there were codes
        # and images.
        values: dict[str, Any] = handler(self)
        if values.get("codes", True) is None:
            del values["codes"]
        if self.kind != "image":
            values.pop("unit", None)
            values.pop("range", None)
        return values

    @model_validator(mode="after")
    def _check(self) -> TargetSpec:
        if self.codes is not None and len(self.codes) != len(self.names):
            raise ValueError(f"give one code (or null) for each of the {len(self.names)} names")
        if (self.range is not None or self.unit) and self.kind != "image":
            raise ValueError("classes have no unit and no range: these are of kind 'image'")
        if self.kind == "image" and (self.range is None or not self.range[0] < self.range[1]):
            raise ValueError("an image needs a range, its lowest and its highest value")
        if self.colours is not None and len(self.colours) != len(self.names):
            raise ValueError(f"give one colour for each of the {len(self.names)} names")
        if self.kind == "binary" and len(self.names) > 2:
            raise ValueError("a binary target has one name, or those of background and foreground")
        return self

    @property
    def classes(self) -> int:
        """Number of output channels."""
        return 1 if self.kind == "binary" else len(self.names)

    @property
    def task(self) -> Task:
        """Whether classes are predicted or an image."""
        return "image" if self.kind == "image" else "labels"

    @property
    def has_channels(self) -> bool:
        """Whether labels and predictions have an axis of classes or channels after slices."""
        return self.kind in ("overlapping", "image")

    @property
    def one_class(self) -> bool:
        """Whether there is one class beside the background."""
        return not self.has_channels and len(self.names) <= 2

    @property
    def white_is_one(self) -> bool:
        """Whether 255 in a true mask of 0 and 255 may be the one class, not an ignored value."""
        return self.one_class and self.ignored is None

    @property
    def foreground(self) -> dict[int, str]:
        """Label id → name of every class that is scored: exclusive skips id 0; binary has id 1. Of
        an image, index → name of each channel.
        """
        if self.kind == "binary":
            return {1: self.names[-1]}
        start = 1 if self.kind == "exclusive" else 0
        return {i: name for i, name in enumerate(self.names) if i >= start}


Mirror = Literal["none", "rows", "columns", "both"]


class GeometryOptions(BaseModel):
    """Rotation, scale, shift, mirroring and quarter turns, drawn independently for each sample.

    What comes from beyond the image's edge is the case's least value; its label is background.
    Labels are always sampled by nearest neighbour.

    Attributes:
        odds: "independent" draws as the other fields say. "released" is the rule of the released
            training instead, and takes no other field: with probability 1/2 a quarter turn and one
            flip, that is one of four reflections; with 1/4 a turn by a whole number of degrees in
            -20..19; with 1/4 nothing; nearest neighbour for image and label. (There it happens
            before the image is brought to the network's size, here after.)
        probability: a sample is left unchanged with 1 − this probability.
        rotation: degrees; the angle is uniform in ± this.
        scale: the factor is uniform in 1 ± this.
        shift: a fraction of height and width; the shift along each is uniform in ± this.
        mirror: along "rows" (left-right within each row), "columns" (up-down) or "both", each with
            probability 1/2; `true` means "both".
        rot90: turn by 0, 90, 180 or 270 degrees with equal probability.
        interpolation: of images, "linear" or "nearest".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    odds: Literal["independent", "released"] = "independent"
    probability: float = Field(default=1.0, ge=0, le=1)
    rotation: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, lt=1)
    shift: float = Field(default=0.0, ge=0, lt=1)
    mirror: Mirror = "none"
    rot90: bool = False
    interpolation: Literal["linear", "nearest"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _plain_mirror(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("mirror"), bool):
            return {**values, "mirror": "both" if values["mirror"] else "none"}
        return values

    @model_validator(mode="after")
    def _check(self) -> GeometryOptions:
        if self.odds == "released":
            fields = type(self).model_fields
            given = sorted(self.model_fields_set - {"odds"})
            changed = [name for name in given if getattr(self, name) != fields[name].default]
            if changed:
                raise ValueError(f"odds 'released' fixes everything; remove {', '.join(changed)}")
        return self


class AugmentationTerm(BaseModel):
    """One augmentation of a recipe.

    Attributes:
        name: an augmentation of the registry `augmentations`.
        probability: a sample is left unchanged with 1 − this probability.
        options: arguments of the augmentation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    probability: float = Field(default=1.0, ge=0, le=1)
    options: dict[str, Any] = Field(default_factory=dict)


AugmentationChoice = GeometryOptions | tuple[AugmentationTerm, ...]
"""`training.augmentation`: the options of `geometry` alone, or a list of augmentations."""


def decide(probabilities: NDArray[Any], target: TargetSpec) -> NDArray[Any]:
    """Probabilities (..., classes, height, width) → labels: the one place where labels are made.

    exclusive: argmax over classes; binary: (..., height, width) of 0 and 1; overlapping: one map
    of 0 and 1 per class; image: the values themselves, float32.
    """
    if target.kind == "image":
        return probabilities.astype(np.float32, copy=False)
    if target.kind == "exclusive":
        return np.argmax(probabilities, axis=-3).astype(np.uint8)
    maps = (probabilities >= target.threshold).astype(np.uint8)
    return maps[..., 0, :, :] if target.kind == "binary" else maps


def check_classes(target: TargetSpec, doing: str) -> None:
    """Raise UsageError where an image is predicted, for what needs classes."""
    if target.task == "image":
        raise UsageError(
            doing,
            expected="a network that segments, as this needs probabilities of classes",
            found=f"one that predicts an image ({', '.join(target.names)})",
        )


def class_colours(target: TargetSpec) -> dict[int, str]:
    """Label id → colour of every foreground class: the target's own, else that of its organ."""
    colours = target.colours
    if colours is None:
        return colours_of(target.foreground)
    # A binary target may have one name only, that of its foreground (label 1).
    return {label: colours[min(label, len(colours) - 1)] for label in target.foreground}


def colours_of(names: Mapping[int, str]) -> dict[int, str]:
    """Label id → colour. A known organ has its colour under each of its usual names, other classes
    get those of `PALETTE` that are left, in the order of their ids.
    """
    organs = {id: organ_of(name) for id, name in names.items()}
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


def organ_of(name: str) -> str:
    """The name of an organ under which its colour and its code are found."""
    words = plain_name(name)
    return _OTHER_NAMES.get(words, words)


def plain_name(name: str) -> str:
    """A name in small letters, words parted by one space."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().lower()))
