"""How far predicted probabilities can be trusted: expected calibration error and Brier score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError, UsageError
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="ece",
        title="Expected calibration error, bins of equal width",
        entry="expected_calibration_error",
        reads="probabilities",
        label="ECE",
        better="lower",
        paper="Guo et al., ICML 2017, equation 3",
        options={"bins": 15},
    ),
    MetricCard(
        name="brier",
        title="Brier score: mean squared error of the probabilities, summed over classes",
        entry="brier_score",
        reads="probabilities",
        label="Brier score",
        better="lower",
        paper="Brier, Monthly Weather Review 78, 1950",
    ),
)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Pixels by the confidence of their label: how many, the sum of confidences, how many right.

    Bin k of n holds confidences in (k/n, (k + 1)/n], the first one 0 too. `squares` is the sum of
    the squared errors behind the Brier score. `+` joins images.
    """

    counts: NDArray[np.int64]
    confidences: NDArray[np.float64]
    right: NDArray[np.int64]
    squares: float

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.counts + other.counts,
            self.confidences + other.confidences,
            self.right + other.right,
            self.squares + other.squares,
        )

    @property
    def expected_error(self) -> float:
        """ECE: mean over pixels of |accuracy − confidence| of their bin; nan without pixels."""
        total = int(self.counts.sum())
        return float(np.abs(self.right - self.confidences).sum()) / total if total else math.nan

    @property
    def largest_error(self) -> float:
        """The largest |accuracy − confidence| of any bin that holds pixels; nan without any."""
        used = self.counts > 0
        apart = np.abs(self.right[used] - self.confidences[used]) / self.counts[used]
        return float(apart.max()) if apart.size else math.nan

    @property
    def brier(self) -> float:
        """Mean over pixels of Σ over classes (probability − truth)²; nan without pixels."""
        total = int(self.counts.sum())
        return self.squares / total if total else math.nan


def reliability(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    *,
    bins: int = 15,
    ignored: int | None = None,
) -> Reliability:
    """Reliability of probabilities (..., classes, height, width) against class ids (..., height,
    width); pixels labelled `ignored` are left out.

    One channel is the probability of foreground (any id but 0) and taken as two classes; else the
    classes are exclusive and their probabilities sum to 1. A pixel's label is its most probable
    class, its confidence that class's probability. Raises InputError for arrays that do not fit.
    """
    chances, truth = flat_probabilities(probabilities, labels, ignored=ignored)
    label = chances.argmax(axis=1)
    confidence = chances[np.arange(label.size), label]
    # Σ (p − y)² = Σ p² − 2·p of the truth + 1.
    of_truth = chances[np.arange(truth.size), truth]
    squares = float((chances**2).sum() - 2 * of_truth.sum() + truth.size)
    return binned(confidence, label == truth, bins, squares)


def binned(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int, squares: float
) -> Reliability:
    """Pixels by confidence, see `Reliability`. Raises UsageError without bins."""
    if bins < 1:
        raise UsageError("measuring calibration", expected="at least one bin", found=str(bins))
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return Reliability(
        np.bincount(bin_of, minlength=bins),
        np.bincount(bin_of, weights=confidence, minlength=bins).astype(np.float64),
        np.bincount(bin_of[right], minlength=bins),
        squares,
    )


def flat_probabilities(
    probabilities: NDArray[Any], labels: NDArray[Any], *, ignored: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (pixels, classes) and true classes (pixels,) of the arrays that `reliability`
    takes, one channel as two classes. Raises InputError for arrays that do not fit.
    """
    if (
        probabilities.ndim < 3
        or probabilities.shape[:-3] + probabilities.shape[-2:] != labels.shape
        or labels.dtype.kind not in "bui"
    ):
        raise InputError(
            "measuring calibration",
            expected="probabilities (..., classes, height, width) and ids (..., height, width)",
            found=f"probabilities {probabilities.shape}, {labels.dtype} labels {labels.shape}",
        )
    kept = np.ones(labels.shape, np.bool_) if ignored is None else labels != ignored
    chances = np.moveaxis(probabilities, -3, -1)[kept].astype(np.float64)
    truth = labels[kept].astype(np.int64)
    if chances.shape[1] == 1:
        chances, truth = (
            np.concatenate([1 - chances, chances], axis=1),
            (truth != 0).astype(np.int64),
        )
    _check(chances, truth)
    return chances, truth


def expected_calibration_error(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    bins: int = 15,
    ignored: int | None = None,
) -> float:
    """ECE of one image or batch, its arguments those of `reliability`."""
    return reliability(probabilities, labels, bins=bins, ignored=ignored).expected_error


def brier_score(
    probabilities: NDArray[Any], labels: NDArray[Any], ignored: int | None = None
) -> float:
    """Brier score of one image or batch, 0 to 2; a binary map scores 2·mean (p − y)²."""
    return reliability(probabilities, labels, bins=1, ignored=ignored).brier


def _check(chances: NDArray[np.float64], truth: NDArray[np.int64]) -> None:
    classes = chances.shape[1]
    if truth.size and not 0 <= int(truth.min()) <= int(truth.max()) < classes:
        raise InputError(
            "measuring calibration",
            expected=f"class ids from 0 to {classes - 1}",
            found=f"{int(truth.min())} to {int(truth.max())}",
        )
    off = np.abs(chances.sum(axis=1) - 1).max(initial=0.0)
    inside = chances.size == 0 or (chances.min() >= 0 and chances.max() <= 1)
    if not inside or not off <= 1e-3:
        raise InputError(
            "measuring calibration",
            expected="probabilities from 0 to 1 that sum to 1 over the classes",
            found=f"sums that are off by up to {off:.3g}" if inside else "other values",
            remedy="give probabilities, not logits",
        )
