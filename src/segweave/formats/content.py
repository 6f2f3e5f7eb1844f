"""What every reader hands over: pixels on a case's axes and what the file says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import SourceGrid, Stack


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
