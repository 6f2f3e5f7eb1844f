"""What every reader is asked for and returns: pixels on a case's axes and their geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import SourceGrid, Stack

Geometry = Literal["check", "pixdim", "affine", "qform"]
"""What decides where a NIfTI header contradicts itself: nothing ("check" refuses), pixdim's steps,
the affine (the sform, where there is one), or the qform."""

HEADER_ATTRIBUTE = "nifti_header"
"""The attribute of a case that keeps the header of its file (base64), for its label maps."""


@dataclass(frozen=True)
class Request:
    """What is wanted of a file.

    Attributes:
        doing: what it is read for, for error messages.
        geometry: what decides where a NIfTI header contradicts itself: "check" raises.
        as_label: whether the values are labels; a fourth axis holds overlapping classes then.
        with_label: whether a label in the same file (h5, npz) is read too.
        grey: whether a threshold will make the label of grey: values need not be class ids.
        channels: whether a NIfTI image may have a fourth axis of channels.
    """

    doing: str
    geometry: Geometry = "check"
    as_label: bool = False
    with_label: bool = False
    grey: bool = False
    channels: bool = False


@dataclass(frozen=True, eq=False)
class Content:
    """A file's content on a case's axes.

    `image` (slices, channels, height, width) or None, `label` as stored (slices, height, width) or
    (slices, classes, height, width) or None; `oriented` says whether the file itself names its
    orientation (a NIfTI file without sform and qform doesn't); `lossy` whether its compression
    changes values (JPEG), so that noise must not be taken for class ids.
    """

    image: NDArray[Any] | None
    label: NDArray[Any] | None
    stack: Stack
    affine: NDArray[np.float64] | None = None
    spacing: tuple[float, float, float] | None = None
    source_grid: SourceGrid | None = None
    oriented: bool = False
    lossy: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
