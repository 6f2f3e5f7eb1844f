"""Similarity of two images: RMSE, PSNR and SSIM. The range of the data is always given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segweave.errors import InputError, UsageError
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="rmse",
        title="Root mean square error, as a share of the data range",
        entry="root_mean_square_error",
        reads="images",
        label="RMSE",
        better="lower",
    ),
    MetricCard(
        name="rmse-in-unit",
        title="Root mean square error, in the unit of the images",
        entry="root_mean_square_error",
        options={"data_range": None},
        reads="images",
        label="RMSE",
        unit="image",
        better="lower",
    ),
    MetricCard(
        name="psnr",
        title="Peak signal-to-noise ratio",
        entry="peak_signal_to_noise_ratio",
        reads="images",
        label="PSNR",
        unit="dB",
    ),
    MetricCard(
        name="ssim",
        title="Structural similarity, Gaussian window of 1.5 pixels",
        entry="structural_similarity",
        reads="images",
        label="SSIM",
        paper="Wang et al., IEEE Transactions on Image Processing 13, 2004, equation 13",
    ),
)

_SIGMA = 1.5
_RADIUS = 5


def root_mean_square_error(
    image: NDArray[Any], reference: NDArray[Any], data_range: float | None
) -> float:
    """√ mean of (image − reference)², divided by `data_range`; None keeps the unit of the
    images.
    """
    ours, theirs = _checked(image, reference)
    scale = 1.0 if data_range is None else _checked_range(data_range)
    return float(np.sqrt(((ours - theirs) ** 2).mean())) / scale


def peak_signal_to_noise_ratio(
    image: NDArray[Any], reference: NDArray[Any], data_range: float
) -> float:
    """20 · log10(`data_range` / RMSE) in dB; infinite for equal images."""
    error = root_mean_square_error(image, reference, data_range)
    return -20 * math.log10(error) if error > 0 else math.inf


def structural_similarity(image: NDArray[Any], reference: NDArray[Any], data_range: float) -> float:
    """Mean SSIM of two images with one channel, (height, width) or 3D: Gaussian window of sd 1.5
    and 11 pixels, moments of the population, K1 = 0.01, K2 = 0.03 (Wang et al. 2004).

    The 5 pixels at each edge, where the window reaches out, are left out. Raises InputError for
    images smaller than 11.
    """
    ours, theirs = _checked(image, reference)
    span = _checked_range(data_range)
    if min(ours.shape) <= 2 * _RADIUS:
        raise InputError(
            "measuring structural similarity",
            expected=f"at least {2 * _RADIUS + 1} pixels along each axis",
            found=str(ours.shape),
        )
    mean_x, mean_y = _blurred(ours), _blurred(theirs)
    variances = _blurred(ours**2) - mean_x**2 + _blurred(theirs**2) - mean_y**2
    together = _blurred(ours * theirs) - mean_x * mean_y
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    similar = (2 * mean_x * mean_y + c1) * (2 * together + c2)
    similar /= (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    inner = tuple(slice(_RADIUS, -_RADIUS) for _ in ours.shape)
    return float(similar[inner].mean())


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    blurred: NDArray[np.float64] = ndimage.gaussian_filter(values, _SIGMA, radius=_RADIUS)
    return blurred


def _checked(
    image: NDArray[Any], reference: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.shape != reference.shape or image.size == 0:
        raise InputError(
            "comparing two images",
            expected="two images of one shape",
            found=f"{image.shape} and {reference.shape}",
        )
    return image.astype(np.float64), reference.astype(np.float64)


def _checked_range(data_range: float) -> float:
    if not (math.isfinite(data_range) and data_range > 0):
        raise UsageError(
            "comparing two images",
            expected="the range of the data (255 for 8 bits, 1 for 0..1)",
            found=repr(data_range),
        )
    return float(data_range)
