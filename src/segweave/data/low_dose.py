"""Low-dose CT made of full-dose CT: the noise that fewer photons leave in the projections, brought
back into the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.errors import InputError, MissingExtraError, UsageError
from segweave.runtime.randomness import numpy_stream

WATER = 0.0192
"""Attenuation of water per mm at about 70 keV, the mean energy of a CT tube at 120 kV."""
AIR = -1000.0
_FEWEST = 1.0
"""Photons that a ray keeps at least: the logarithm of none is not defined."""


@dataclass(frozen=True)
class Scanner:
    """What the simulated scanner does.

    Attributes:
        photons: photons per ray at full dose, before the patient. A ray is as wide as a pixel, and
            the noise that so many photons leave is larger in smaller pixels: choose the number that
            gives the noise of your scans.
        electronic_noise: sd of the noise of the detector, in photons per ray.
        views: number of parallel projections over half a turn.
    """

    photons: float = 1e6
    electronic_noise: float = 3.0
    views: int = 360

    def __post_init__(self) -> None:
        if self.photons <= 0 or self.electronic_noise < 0 or self.views < 2:
            raise UsageError(
                "choosing a scanner",
                expected="photons above 0, an electronic noise from 0, at least 2 views",
                found=f"photons {self.photons:g}, electronic noise {self.electronic_noise:g}, "
                f"views {self.views}",
            )


class Projections:
    """The projections of one slice of a full-dose CT, from which it is seen at any dose.

    p = radon(attenuation) are line integrals. A scan at the fraction `dose` of the full dose counts
    N = Poisson(dose · photons · exp(−p)) + Normal(0, electronic noise) photons per ray, at least
    one, and measures q = −log(N / (dose · photons)). The result is the slice + FBP(q − p) with the
    ramp filter: filtered back projection is linear, so that its errors, and those of the
    projection, cancel, and the noise alone is added. The slice's own noise stays in it.

    The variance of q is about 1 / N, so that the variance of the added noise grows as 1 / dose. Its
    mean is not exactly 0: that of −log is 1 / (2 N), which counts where few photons are left.

    Args:
        image: one slice in Hounsfield units, (height, width).
        pixel: side of a pixel in mm.
        scanner: what scans it.

    Raises MissingExtraError without scikit-image (extra `denoise`).
    """

    def __init__(self, image: NDArray[Any], pixel: float, scanner: Scanner | None = None) -> None:
        self.image = np.asarray(image, np.float64)
        self.scanner = scanner or Scanner()
        self.pixel = pixel
        self._angles = np.linspace(0, 180, self.scanner.views, endpoint=False)
        side = max(self.image.shape)
        self._square = np.full((side, side), AIR)
        self._inside = tuple(slice((side - n) // 2, (side - n) // 2 + n) for n in image.shape)
        self._square[self._inside] = self.image
        radon, self._back = _transforms()
        attenuation = WATER * np.clip(1 + self._square / 1000, 0, None)
        self.integrals: NDArray[np.float64] = (
            radon(attenuation, theta=self._angles, circle=False) * self.pixel
        )

    def seen_at(self, dose: float, stream: np.random.Generator) -> NDArray[np.float32]:
        """The slice as a scan at the fraction `dose` of the full dose shows it, in Hounsfield
        units.
        """
        sent = dose * self.scanner.photons
        counted = stream.poisson(sent * np.exp(-self.integrals)).astype(np.float64)
        counted += self.scanner.electronic_noise * stream.standard_normal(counted.shape)
        measured = -np.log(np.maximum(counted, _FEWEST) / sent)
        return (self.image + self.backprojected(measured - self.integrals)).astype(np.float32)

    def backprojected(self, integrals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Filtered back projection of line integrals, in Hounsfield units above those of a vacuum:
        attenuation / attenuation of water · 1000.
        """
        attenuation = self._back(
            integrals / self.pixel,
            theta=self._angles,
            output_size=len(self._square),
            filter_name="ramp",
            circle=False,
        )
        values: NDArray[np.float64] = attenuation[self._inside] * (1000 / WATER)
        return values


def low_dose(case: Case, dose: float, *, scanner: Scanner | None = None, seed: int = 0) -> Case:
    """A CT volume as a scan at a fraction of its dose shows it: the image with noise, and as label
    the image without (see `Projections`).

    Args:
        case: the CT in Hounsfield units, of known spacing and square pixels.
        dose: the fraction of the full dose, above 0 and up to 1.
        scanner: what scans it.
        seed: of the noise, which is drawn for each case, slice and dose.

    Returns:
        The case `ID@DOSE` of the same group. Its image has the values of a scanner, whole numbers
        where the source has such. `attributes["dose"]` is the dose.

    Raises UsageError for a dose outside 0..1, InputError for a case that is not a CT, and
    MissingExtraError without scikit-image (extra `denoise`).

    Example:
        >>> import numpy as np
        >>> from segweave import Case
        >>> from segweave.data.low_dose import Scanner, low_dose
        >>> water = np.full((1, 1, 32, 32), -1000, np.int16)
        >>> water[:, :, 8:24, 8:24] = 0
        >>> case = Case("scan", "patient", water, spacing=(3.0, 3.0, 3.0), stack="space")
        >>> noisy = low_dose(case, 0.1, scanner=Scanner(views=60))
        >>> noisy.id, bool(noisy.image.std() > water.std()), bool((noisy.label == water).all())
        ('scan@0.1', True, True)
    """
    if not 0 < dose <= 1:
        raise UsageError(
            "simulating low-dose CT",
            expected="a dose above 0 and up to 1, the fraction of the full dose",
            found=f"{dose:g}",
        )
    pixel = _pixel_of(case)
    seen = np.empty(case.image.shape, np.float32)
    for index, planes in enumerate(case.image):
        for channel, plane in enumerate(planes):
            stream = numpy_stream(
                seed, "dose", case=case.id, slice_index=index, name=f"{dose:g} {channel}"
            )
            seen[index, channel] = Projections(plane, pixel, scanner).seen_at(dose, stream)
    whole = case.image.dtype.kind in "iu"
    image = np.rint(seen).clip(-32768, 32767).astype(np.int16) if whole else seen
    return replace(
        case,
        id=f"{case.id}@{dose:g}",
        image=image,
        label=np.asarray(case.image, np.int16 if whole else np.float32),
        instances=None,
        attributes={**case.attributes, "dose": dose},
    )


def _pixel_of(case: Case) -> float:
    """The side of a pixel in mm. Raises InputError for anything but a CT with square pixels."""
    doing = f"simulating low-dose CT of the case {case.id!r}"
    file = case.provenance.file if case.provenance else None
    low, high = float(case.image.min()), float(case.image.max())
    if not (np.isfinite(low) and np.isfinite(high) and -5000 <= low <= -200 and high <= 32767):
        raise InputError(
            doing,
            file=file,
            expected="Hounsfield units, with air about −1000 in the image",
            found=f"values from {low:g} to {high:g}",
            remedy="give the CT as it was reconstructed, not clipped and not scaled to 0..1",
            kind="values",
        )
    spacing = case.spacing
    if spacing is None or abs(spacing[1] - spacing[2]) > 0.01 * spacing[1]:
        raise InputError(
            doing,
            file=file,
            expected="square pixels of known size, as a CT scanner makes them",
            found="no spacing" if spacing is None else f"{spacing[1]:g} × {spacing[2]:g} mm",
            remedy="check the spacing, or resample the volume",
            kind="geometry",
        )
    return spacing[1]


def _transforms() -> Any:
    try:
        from skimage.transform import iradon, radon
    except ImportError as error:
        raise MissingExtraError(
            "simulating low-dose CT", library="scikit-image", extra="denoise"
        ) from error
    return radon, iradon
