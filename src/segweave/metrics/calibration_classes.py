"""Calibration where it matters in a segmentation: by class, and on the foreground; and the negative
log likelihood that a temperature is fitted to.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.metrics.calibration import Reliability, binned, flat_probabilities
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="ece-foreground",
        title="Expected calibration error of pixels whose true or predicted class is foreground",
        entry="foreground_calibration_error",
        reads="probabilities",
        label="ECE (foreground)",
        better="lower",
        paper="Guo et al., ICML 2017, equation 3; Mehrtash et al., IEEE TMI 2020",
        options={"bins": 15},
    ),
    MetricCard(
        name="ece-classwise",
        title="Expected calibration error of each class's probability, mean over classes",
        entry="classwise_calibration_error",
        reads="probabilities",
        label="ECE (class-wise)",
        better="lower",
        paper="Kull et al., NeurIPS 2019, equation 2",
        options={"bins": 15},
    ),
    MetricCard(
        name="nll",
        title="Negative log likelihood: mean of −log of the probability of what is true",
        entry="negative_log_likelihood",
        reads="probabilities",
        label="NLL",
        better="lower",
        paper="Guo et al., ICML 2017, equation 4",
    ),
)
_LEAST = 1e-7


def foreground_reliability(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    *,
    bins: int = 15,
    ignored: int | None = None,
) -> Reliability:
    """`segweave.metrics.calibration.reliability` of the pixels whose true or most probable class is
    not 0. Most of an image is easy background, which hides errors of confidence elsewhere.
    """
    chances, truth = flat_probabilities(probabilities, labels, ignored=ignored)
    label = chances.argmax(axis=1)
    seen = (label != 0) | (truth != 0)
    chances, truth, label = chances[seen], truth[seen], label[seen]
    rows = np.arange(truth.size)
    squares = (chances**2).sum() - 2 * chances[rows, truth].sum() + truth.size
    return binned(chances[rows, label], label == truth, bins, float(squares))


def class_reliability(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    *,
    bins: int = 15,
    ignored: int | None = None,
) -> tuple[Reliability, ...]:
    """For each class, background first: all pixels by its probability, and how many have it.

    `confidences` are sums of the class's probability, `right` the pixels that are of the class,
    `squares` the sum of (probability − truth)². Arguments as in `reliability`.
    """
    chances, truth = flat_probabilities(probabilities, labels, ignored=ignored)
    found = []
    for k in range(chances.shape[1]):
        true = truth == k
        found.append(binned(chances[:, k], true, bins, float(((chances[:, k] - true) ** 2).sum())))
    return tuple(found)


def foreground_calibration_error(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    bins: int = 15,
    ignored: int | None = None,
) -> float:
    """ECE of one image or batch on the foreground, nan where there is none."""
    return foreground_reliability(probabilities, labels, bins=bins, ignored=ignored).expected_error


def classwise_calibration_error(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    bins: int = 15,
    ignored: int | None = None,
) -> float:
    """Mean over classes, the background too, of the ECE of the class's probability."""
    each = class_reliability(probabilities, labels, bins=bins, ignored=ignored)
    return math.fsum(one.expected_error for one in each) / len(each)


def negative_log_likelihood(
    probabilities: NDArray[Any], labels: NDArray[Any], ignored: int | None = None
) -> float:
    """Mean over pixels of −log p of the true class, p at least 1e-7; nan without pixels."""
    chances, truth = flat_probabilities(probabilities, labels, ignored=ignored)
    if not truth.size:
        return math.nan
    of_truth = np.clip(chances[np.arange(truth.size), truth], _LEAST, 1)
    return float(-np.log(of_truth).mean() + 0.0)
