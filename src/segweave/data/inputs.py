"""Applies an InputSpec: the one place where a case's slices become a network's input and its
outputs return to the case's own grid; and which slices are read together as a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import InputSpec
from segweave.errors import InputError, UsageError, nearest

if TYPE_CHECKING:
    import torch

# ImageNet's channel means and standard deviations, for RGB values in 0..1, as every network
# pretrained there expects them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)

Edge = Literal["repeat", "released"]


@dataclass(frozen=True)
class Normalisation:
    """What the network is fed for a source value v: (clip(v, lower, upper) - shift) / scale.

    `shift`, `scale` and `outside` have one number for each channel of the network's input;
    `outside` is the normalised value that stands for nothing being there (the case's least), with
    which images are padded.
    """

    lower: float
    upper: float
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    outside: tuple[float, ...]


@dataclass(frozen=True)
class Placement:
    """Where an image lies on the network's grid: brought to `resized` (rows, columns), then set
    into a `canvas` at (`top`, `left`).
    """

    resized: tuple[int, int]
    canvas: tuple[int, int]
    top: int = 0
    left: int = 0


def normalise(case: Case, spec: InputSpec) -> Normalisation:
    """The numbers that normalise `case`, taken over all its slices, after the clip, a channel at a
    time, in float64.

    `case-zscore`: mean 0 and standard deviation 1; `case-minmax`: 0 to 1; `fixed`: the spec's own
    mean and sd in source values; `imagenet`: 0..1 (8-bit values / 255, anything else by the case's
    own least and greatest), then ImageNet's mean and sd. A constant image becomes 0. Raises
    InputError for NaN or infinite values and for channels that do not fit the spec.
    """
    image = case.image
    take = _channels(case, spec)
    lower, upper = _clip_limits(case, spec)
    least = np.full(image.shape[1], np.inf)
    greatest = np.full(image.shape[1], -np.inf)
    total = np.zeros(image.shape[1])
    for slice_ in image:
        values = np.clip(slice_.astype(np.float64), lower, upper)
        least = np.minimum(least, values.min(axis=(1, 2)))
        greatest = np.maximum(greatest, values.max(axis=(1, 2)))
        total += values.sum(axis=(1, 2))
    if not (np.isfinite(total).all() and np.isfinite(least).all() and np.isfinite(greatest).all()):
        raise InputError(
            f"normalising the case {case.id!r}",
            file=case.provenance.file if case.provenance else None,
            expected="finite pixel values",
            found="NaN or infinite ones",
            remedy="replace them in the file, or give the InputSpec a clip for infinite ones",
        )
    if spec.normalisation == "case-zscore":
        shift = total / (image.shape[0] * image.shape[2] * image.shape[3])
        squares = np.zeros(image.shape[1])
        for slice_ in image:
            values = np.clip(slice_.astype(np.float64), lower, upper)
            squares += ((values - shift[:, None, None]) ** 2).sum(axis=(1, 2))
        scale = np.sqrt(squares / (image.shape[0] * image.shape[2] * image.shape[3]))
        # The rounding of the mean must not blow a constant image up.
        shift, scale = np.where(greatest == least, (least, np.zeros_like(scale)), (shift, scale))
    elif spec.normalisation == "case-minmax":
        shift, scale = least, greatest - least
    elif spec.normalisation == "fixed":
        shift, scale = np.asarray(spec.mean, np.float64), np.asarray(spec.sd, np.float64)
    else:
        low, width = least, greatest - least
        if image.dtype == np.uint8:
            low, width = np.zeros_like(least), np.full_like(least, 255.0)
        # (v - low) / width is in 0..1; then the ImageNet numbers, joined into one shift and scale.
        low, width = low[take], np.where(width == 0, 1.0, width)[take]
        shift = low + width * np.asarray(IMAGENET_MEAN)
        scale = width * np.asarray(IMAGENET_SD)
    if spec.normalisation in ("case-zscore", "case-minmax"):
        shift, scale = shift[take], scale[take]
    constant = scale == 0
    scale = np.where(constant, 1.0, scale)
    outside = (least[take] - shift) / scale
    return Normalisation(
        lower,
        upper,
        tuple(float(v) for v in shift),
        tuple(float(v) for v in scale),
        tuple(float(v) for v in outside),
    )


def network_slice(
    case: Case, index: int, spec: InputSpec, normalisation: Normalisation | None = None
) -> NDArray[np.float32]:
    """Slice `index` as the network is fed it: float32 (channels, height, width) on its grid.

    Clip, normalisation (of the whole case; give it where many slices are asked for), resizing with
    half-pixel centres, averaging where it shrinks (`linear`, `cubic`), padding. Raises what
    `normalise` and `placement` raise.
    """
    numbers = normalise(case, spec) if normalisation is None else normalisation
    take = _channels(case, spec)
    shift = np.asarray(numbers.shift)[:, None, None]
    scale = np.asarray(numbers.scale)[:, None, None]
    values = np.clip(case.image[index].astype(np.float64), numbers.lower, numbers.upper)[take]
    planes = ((values - shift) / scale).astype(np.float32)
    place = placement(case.size, case.spacing, spec)
    planes = _resize(planes, place.resized, spec.interpolation)
    if place.canvas == place.resized:
        return planes
    out = np.empty((planes.shape[0], *place.canvas), np.float32)
    out[:] = np.asarray(numbers.outside, np.float32)[:, None, None]
    out[(slice(None), *_inside(place))] = planes
    return out


def network_label(case: Case, index: int, spec: InputSpec) -> NDArray[np.uint8]:
    """The label of slice `index` on the network's grid, by nearest neighbour on the same pixel
    centres as the image: uint8 (height, width), or (classes, height, width) where classes overlap.

    Padding is 0, the background. Raises InputError where the case has no label.
    """
    if case.label is None:
        raise InputError(
            f"reading the label of the case {case.id!r}", expected="a label", found="none"
        )
    label = np.asarray(case.label[index])
    place = placement(case.size, case.spacing, spec)
    planes = label.reshape(-1, *label.shape[-2:])
    rows = _nearest_indices(planes.shape[1], place.resized[0])
    columns = _nearest_indices(planes.shape[2], place.resized[1])
    out = np.zeros((planes.shape[0], *place.canvas), np.uint8)
    out[(slice(None), *_inside(place))] = planes[:, rows[:, None], columns[None, :]]
    return out.reshape(*label.shape[:-2], *place.canvas)


def network_reference(
    case: Case, index: int, spec: InputSpec, normalisation: Normalisation
) -> NDArray[np.float32]:
    """The true image of slice `index` as a network that predicts an image is to return it: float32
    (channels, height, width) on the network's grid, in the normalisation of the case's image.

    Raises InputError where the case has no label.
    """
    if case.label is None:
        raise InputError(
            f"reading the true image of the case {case.id!r}", expected="a label", found="none"
        )
    return network_slice(replace(case, image=case.label), index, spec, normalisation)


def to_source_values(
    maps: NDArray[np.float32], normalisation: Normalisation
) -> NDArray[np.float32]:
    """Normalised values (channels, height, width) of an image → values in the unit of the source,
    float32: the inverse of what `network_slice` computes.
    """
    shift = np.asarray(normalisation.shift, np.float32)[:, None, None]
    scale = np.asarray(normalisation.scale, np.float32)[:, None, None]
    if len(shift) != len(maps):
        raise UsageError(
            "predicting an image",
            expected=f"as many channels as the input has, {len(shift)}",
            found=str(len(maps)),
        )
    return maps * scale + shift


def to_case_grid(
    probabilities: NDArray[Any], size: tuple[int, int], spec: InputSpec
) -> NDArray[np.float32]:
    """Probabilities (classes, h, w) of the network's grid → float32 (classes, H, W) on the case's
    own (`size` = (H, W)): padding cut off, then linear with half-pixel centres.

    Weights are never negative and add up to 1, so probabilities stay probabilities. Raises
    UsageError where h and w are not what the spec makes of `size`.
    """
    planes = np.ascontiguousarray(probabilities, dtype=np.float32)
    if spec.size is not None:
        place = placement(size, None, spec)
        if planes.shape[-2:] != place.canvas:
            raise UsageError(
                "bringing probabilities back to a case's grid",
                expected=f"maps of {place.canvas[0]} × {place.canvas[1]}",
                found=f"{planes.shape[-2]} × {planes.shape[-1]}",
            )
        planes = planes[(slice(None), *_inside(place))]
    return _resize(planes, size, "linear")


def placement(
    size: tuple[int, int], spacing: tuple[float, float, float] | None, spec: InputSpec
) -> Placement:
    """Where an image of `size` pixels (rows, columns) and `spacing` mm lies on the spec's grid.

    `stretch` fills the grid in both directions; `pad` keeps the shape and centres the image; `tile`
    leaves the image as it is, because tiles of the spec's size are cut from it later. Raises
    InputError where the spec asks for a pixel size in mm and the case has none.
    """
    if spec.size is None:
        if spacing is None:
            raise InputError(
                "resampling to a pixel size in mm",
                expected="a case whose spacing is known",
                found="no spacing",
                remedy="give the InputSpec a size in pixels",
            )
        assert spec.spacing is not None
        rows, columns = (
            max(1, round(pixels * own / wanted))
            for pixels, own, wanted in zip(size, spacing[1:], spec.spacing, strict=True)
        )
        return Placement((rows, columns), (rows, columns))
    if spec.fit == "tile":
        return Placement(size, size)
    if spec.fit == "stretch":
        return Placement(spec.size, spec.size)
    factor = min(spec.size[0] / size[0], spec.size[1] / size[1])
    resized = (
        min(spec.size[0], max(1, round(size[0] * factor))),
        min(spec.size[1], max(1, round(size[1] * factor))),
    )
    top, left = (spec.size[0] - resized[0]) // 2, (spec.size[1] - resized[1]) // 2
    return Placement(resized, spec.size, top, left)


def window_indices(
    count: int, index: int, slices: int, edge: Edge = "repeat", gaps: Sequence[int] = ()
) -> list[int]:
    """The `slices` slice numbers, in order, of the window around slice `index` of `count`.

    `gaps` lists slice numbers before which the stack is interrupted: no window reaches across one.
    Edge rules: `repeat` takes the outermost slice again. `released` is what the released loader
    trains on: at an edge the neighbours are those of the nearest slice that has them all, the
    middle stays `index`, so that the first slice of four reads (0, 0, 2) and the last (1, 3, 3); it
    is known only for windows of three. Where the uninterrupted part is shorter than the window,
    `released` has no such slice (its program stops) and repeats edges too. Raises UsageError for
    numbers that do not make a window.
    """
    if slices < 1 or slices % 2 == 0:
        raise UsageError(
            "making a window", expected="an odd number of slices (1, 3, 5, ...)", found=str(slices)
        )
    if not 0 <= index < count:
        raise UsageError(
            "making a window", expected=f"a slice number in 0..{count - 1}", found=str(index)
        )
    if edge not in ("repeat", "released"):
        raise UsageError(
            "making a window",
            found=f"edge rule {edge!r}",
            remedy=nearest(str(edge), ("repeat", "released")),
        )
    if edge == "released" and slices > 3:
        raise UsageError(
            "making a window",
            expected="three slices, for which the released edge rule is known",
            found=str(slices),
            remedy="choose edge: repeat",
        )
    first = max((gap for gap in gaps if gap <= index), default=0)
    last = min((gap for gap in gaps if index < gap < count), default=count) - 1
    reach = slices // 2
    if edge == "released" and last - first + 1 >= slices:
        centre = min(max(index, first + reach), last - reach)
        window = list(range(centre - reach, centre + reach + 1))
        window[reach] = index
        return window
    return [min(max(index + step, first), last) for step in range(-reach, reach + 1)]


def _inside(place: Placement) -> tuple[slice, slice]:
    return (
        slice(place.top, place.top + place.resized[0]),
        slice(place.left, place.left + place.resized[1]),
    )


def _clip_limits(case: Case, spec: InputSpec) -> tuple[float, float]:
    lower, upper = spec.clip if spec.clip is not None else (-np.inf, np.inf)
    if spec.clip_percentiles is not None:
        low, high = np.percentile(case.image, spec.clip_percentiles)
        lower, upper = max(lower, float(low)), min(upper, float(high))
    return float(lower), float(upper)


def _channels(case: Case, spec: InputSpec) -> list[int]:
    """Which of the image's channels each channel of the network takes."""
    own, wanted = case.image.shape[1], len(spec.channels)
    if own == wanted:
        return list(range(own))
    if spec.colour_order == "rgb" and own == 1 and spec.grey_to_rgb == "repeat":
        return [0] * wanted
    equal = own == 3 and bool(
        (case.image[:, 0] == case.image[:, 1]).all()
        and (case.image[:, 0] == case.image[:, 2]).all()
    )
    if wanted == 1 and equal:
        return [0]
    raise InputError(
        f"choosing the channels of the case {case.id!r}",
        file=case.provenance.file if case.provenance else None,
        expected=f"{wanted} ({', '.join(spec.channels)})",
        found=f"{own}",
        remedy="take a model that was trained on such images, or convert the images; in a recipe: "
        + _recipe_for(own)
        + (" (grey_to_rgb: repeat is off)" if spec.grey_to_rgb == "refuse" else ""),
    )


def _recipe_for(channels: int) -> str:
    """What a recipe says to train on images of that many channels."""
    if channels == 3:
        return "input.channels: [red, green, blue] and input.colour_order: rgb"
    names = [f"name{index}" for index in range(channels)] if channels > 1 else ["grey"]
    return f"input.channels: [{', '.join(names)}]"


def _nearest_indices(own: int, wanted: int) -> NDArray[np.intp]:
    """For each wanted pixel the own one whose cell holds its centre (exact integer arithmetic)."""
    return ((2 * np.arange(wanted) + 1) * own // (2 * wanted)).astype(np.intp)


def _resize(
    planes: NDArray[np.float32], size: tuple[int, int], interpolation: str
) -> NDArray[np.float32]:
    if planes.shape[-2:] == size:
        return planes
    if interpolation == "nearest":
        rows = _nearest_indices(planes.shape[1], size[0])
        columns = _nearest_indices(planes.shape[2], size[1])
        return np.ascontiguousarray(planes[:, rows[:, None], columns[None, :]])
    import torch
    from torch.nn.functional import interpolate

    batch: torch.Tensor = torch.from_numpy(np.ascontiguousarray(planes))[None]
    mode = "bilinear" if interpolation == "linear" else "bicubic"
    out = interpolate(batch, size=size, mode=mode, align_corners=False, antialias=True)
    resized: NDArray[np.float32] = out[0].numpy()
    return resized
