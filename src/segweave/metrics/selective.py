"""Error against uncertainty: how many errors are left where the least certain pixels are given to a
person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError
from segweave.metrics.calibration import flat_probabilities
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="aurc",
        title="Area under the risk-coverage curve, pixels in the order of their entropy",
        entry="area_under_risk_coverage",
        reads="probabilities",
        label="AURC",
        better="lower",
        paper="Geifman and El-Yaniv, NeurIPS 2017",
    ),
)


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Pixels and errors at each step of uncertainty, from the most certain on. `+` joins images
    that have the same steps.
    """

    counts: NDArray[np.int64]
    errors: NDArray[np.int64]

    def __add__(self, other: RiskCoverage) -> RiskCoverage:
        return RiskCoverage(self.counts + other.counts, self.errors + other.errors)

    @property
    def risk(self) -> float:
        """The share of wrong pixels of all; nan without pixels."""
        total = int(self.counts.sum())
        return int(self.errors.sum()) / total if total else math.nan

    @property
    def area(self) -> float:
        """Mean over 1, 2, ... all pixels of the share of wrong ones among the most certain of that
        number; pixels of one step count in random order. nan without pixels.
        """
        from scipy.special import digamma

        used = self.counts > 0
        n, e = self.counts[used].astype(float), self.errors[used].astype(float)
        if not n.size:
            return math.nan
        before, wrong = np.cumsum(n) - n, np.cumsum(e) - e
        # Σ over i = 1..n of (wrong + e·i/n) / (before + i).
        harmonic = digamma(before + n + 1) - digamma(before + 1)
        steps = wrong * harmonic + e / n * (n - before * harmonic)
        return float(max(0.0, steps.sum() / n.sum()))

    @property
    def best_area(self) -> float:
        """The area where every wrong pixel is less certain than every right one."""
        total, wrong = int(self.counts.sum()), int(self.errors.sum())
        steps = np.array([total - wrong, wrong])
        return RiskCoverage(steps, np.array([0, wrong])).area

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coverage (share of pixels that are kept) and the risk among them, at each step that has
        pixels.
        """
        used = self.counts > 0
        kept, wrong = np.cumsum(self.counts[used]), np.cumsum(self.errors[used])
        return kept / max(1, int(self.counts.sum())), wrong / kept


def risk_coverage(
    uncertainty: NDArray[Any], wrong: NDArray[np.bool_], *, steps: int | None = None
) -> RiskCoverage:
    """Pixels by uncertainty.

    Args:
        uncertainty: a number from 0 to 1 per pixel, of any shape.
        wrong: whether the pixel's label is wrong, of the same shape.
        steps: how many steps of equal width; None: one for each value that occurs.

    Raises InputError for other shapes or values.
    """
    u = np.asarray(uncertainty, np.float64).ravel()
    missed = np.asarray(wrong, np.bool_).ravel()
    if u.shape != missed.shape or (u.size and not 0 <= u.min() <= u.max() <= 1):
        raise InputError(
            "ordering pixels by uncertainty",
            expected="numbers from 0 to 1, and as many marks of what is wrong",
            found=f"{u.size} numbers, {missed.size} marks",
        )
    if steps is None:
        number = np.unique(u, return_inverse=True)[1]
        count = int(number.max(initial=-1)) + 1
    else:
        number, count = np.minimum((u * steps).astype(np.int64), steps - 1), steps
    return RiskCoverage(
        np.bincount(number, minlength=count), np.bincount(number[missed], minlength=count)
    )


def entropies(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each row of (pixels, classes), divided by log(classes)."""
    p = np.clip(chances, 1e-12, 1)
    total: NDArray[np.float64] = -(p * np.log(p)).sum(axis=1) / math.log(max(2, p.shape[1]))
    return np.clip(total, 0, 1)


def area_under_risk_coverage(
    probabilities: NDArray[Any], labels: NDArray[Any], ignored: int | None = None
) -> float:
    """Area under the risk-coverage curve of one image or batch, its arguments those of
    `segweave.metrics.calibration.reliability`; nan without pixels.
    """
    chances, truth = flat_probabilities(probabilities, labels, ignored=ignored)
    return risk_coverage(entropies(chances), chances.argmax(axis=1) != truth).area
