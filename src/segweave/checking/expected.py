"""What the published data sets look like, beyond their counts."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """Ranges over the cases of a release: slices a case, rows and columns, the step between slices
    and the pixel size in mm.
    """

    slices: Range | None = None
    size: Range | None = None
    step: Range | None = None
    pixel: Range | None = None


EXPECTED = {
    # Measured on the 100 training patients of the release.
    "acdc": Expected(slices=(6, 18), size=(154, 512), step=(5, 10), pixel=(0.70, 1.92)),
    # The description of the challenge data: 85 to 198 slices of 512 × 512 pixels of 0.54 to
    # 0.98 mm, 2.5 to 5 mm apart.
    "synapse": Expected(slices=(85, 198), size=(512, 512), step=(2.5, 5.0), pixel=(0.54, 0.98)),
}
