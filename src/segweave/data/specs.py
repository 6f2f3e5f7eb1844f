"""InputSpec and TargetSpec: what a network is fed and what its outputs mean, the same in recipe,
model card and export.
"""

from __future__ import annotations

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

from segweave.data.colours import PALETTE as PALETTE
from segweave.data.colours import colours_of


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
    unit: str = ""
    range: tuple[float, float] | None = None

    @model_serializer(mode="wrap")
    def _without_image_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Classes have neither, and their stores keep the checksum that they were written with.
        content: dict[str, Any] = dump(self)
        if self.kind != "image":
            content.pop("unit", None)
            content.pop("range", None)
        return content

    @model_validator(mode="after")
    def _check(self) -> TargetSpec:
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


def class_colours(target: TargetSpec) -> dict[int, str]:
    """Label id → colour of every foreground class: the target's own, else that of its organ."""
    colours = target.colours
    if colours is None:
        return colours_of(target.foreground)
    # A binary target may have one name only, that of its foreground (label 1).
    return {label: colours[min(label, len(colours) - 1)] for label in target.foreground}
