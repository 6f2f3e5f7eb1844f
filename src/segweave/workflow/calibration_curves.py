"""What `evaluate --calibration` measures: how far the probabilities of all scored cases can be
trusted, before and after the temperature. One case is in memory at a time, its sums are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.specs import TargetSpec
from segweave.metrics.calibration import Reliability, flat_probabilities, reliability
from segweave.metrics.calibration_classes import (
    class_reliability,
    foreground_reliability,
    negative_log_likelihood,
)
from segweave.metrics.selective import RiskCoverage, entropies, risk_coverage
from segweave.prediction.temperature import scaled

FORMAT = 1
BINS = 15
_STEPS = 1000
_POINTS = 60
DEFINITIONS = {
    "ece": "mean over voxels of |accuracy − confidence| of their bin; a voxel's confidence is the "
    "probability of its most probable class",
    "ece_foreground": "the same over the voxels whose true or most probable class is foreground",
    "ece_classwise": "mean over classes of the same of each class's probability, the background "
    "too",
    "brier": "mean over voxels of Σ over classes (probability − truth)², 0 to 2",
    "nll": "mean over voxels of −log of the probability of what is true",
}


@dataclass(eq=False)
class _Sums:
    """Everything that is summed over cases, of the probabilities at one temperature."""

    top: Reliability
    foreground: Reliability
    classes: dict[str, Reliability]
    risk: RiskCoverage
    risk_foreground: RiskCoverage
    nll: float

    def add(self, other: _Sums) -> _Sums:
        classes = {name: self.classes[name] + other.classes[name] for name in self.classes}
        return _Sums(
            self.top + other.top,
            self.foreground + other.foreground,
            classes,
            self.risk + other.risk,
            self.risk_foreground + other.risk_foreground,
            self.nll + other.nll,
        )

    def content(self) -> dict[str, Any]:
        voxels = int(self.top.counts.sum())
        classwise = [one.expected_error for one in self.classes.values()]
        return {
            "voxels": voxels,
            "ece": _number(self.top.expected_error),
            "ece_foreground": _number(self.foreground.expected_error),
            "ece_classwise": _number(math.fsum(classwise) / len(classwise)),
            "brier": _number(self.top.brier),
            "nll": _number(self.nll / voxels if voxels else math.nan),
            "reliability": {
                "all voxels": _bins(self.top),
                "foreground": _bins(self.foreground),
                "classes": {name: _bins(one) for name, one in self.classes.items()},
            },
            "risk": {"all voxels": _risk(self.risk), "foreground": _risk(self.risk_foreground)},
        }


class CalibrationCurves:
    """Sums over cases; `add` each, then take the `content`.

    Attributes:
        target: the classes.
        temperature: the temperature of the model card, None where there is none.
    """

    def __init__(self, target: TargetSpec, temperature: float | None) -> None:
        self.target = target
        self.temperature = temperature
        self._sums: dict[str, _Sums] = {}

    def add(self, probabilities: NDArray[np.float32], label: NDArray[Any]) -> NDArray[np.float32]:
        """Add a case: probabilities (slices, classes, height, width) without a temperature, and its
        label. Returns the probabilities at the temperature.
        """
        self._add("before", probabilities, label)
        if self.temperature is None:
            return probabilities
        calibrated = np.empty_like(probabilities)
        for index, maps in enumerate(probabilities):
            calibrated[index] = scaled(maps, self.target, self.temperature)
        self._add("after", calibrated, label)
        return calibrated

    def content(self) -> dict[str, Any]:
        """What is written as calibration.json: plain values."""
        return {
            "format": FORMAT,
            "temperature": self.temperature,
            "bins": BINS,
            "definitions": DEFINITIONS,
            **{name: sums.content() for name, sums in self._sums.items()},
        }

    def _add(self, name: str, probabilities: NDArray[np.float32], label: NDArray[Any]) -> None:
        # Slice by slice, because sums are in float64.
        for maps, labels in zip(probabilities, np.asarray(label), strict=True):
            for sums in self._of_slice(maps, labels):
                earlier = self._sums.get(name)
                self._sums[name] = sums if earlier is None else earlier.add(sums)

    def _of_slice(self, maps: NDArray[np.float32], labels: NDArray[Any]) -> Iterator[_Sums]:
        target, ignored = self.target, self.target.ignored
        names = (
            list(target.names) if target.kind == "exclusive" else ["background", target.names[-1]]
        )
        if target.kind != "overlapping":
            yield _measure(maps, labels, names, ignored)
            return
        empty = np.zeros((1, 0, 0), np.float32), np.zeros((0, 0), np.uint8)
        each = {name: _measure(*empty, ["", name], ignored) for name in target.names}
        for k, name in enumerate(target.names):
            sums = _measure(maps[k : k + 1], labels[k], ["", name], ignored)
            of_class = {other: each[other].classes[other] for other in target.names}
            sums.classes = {**of_class, name: sums.classes[name]}
            yield sums


def _measure(
    maps: NDArray[np.float32], labels: NDArray[Any], names: list[str], ignored: int | None
) -> _Sums:
    """Sums of one slice: maps (channels, height, width), labels (height, width)."""
    of_classes = class_reliability(maps, labels, bins=BINS, ignored=ignored)
    chances, truth = flat_probabilities(maps, labels, ignored=ignored)
    label = chances.argmax(axis=1)
    uncertain, wrong = entropies(chances), label != truth
    seen = (label != 0) | (truth != 0)
    nll = negative_log_likelihood(maps, labels, ignored=ignored)
    return _Sums(
        reliability(maps, labels, bins=BINS, ignored=ignored),
        foreground_reliability(maps, labels, bins=BINS, ignored=ignored),
        dict(zip(names, of_classes, strict=True)),
        risk_coverage(uncertain, wrong, steps=_STEPS),
        risk_coverage(uncertain[seen], wrong[seen], steps=_STEPS),
        nll * truth.size if truth.size else 0.0,
    )


def _bins(found: Reliability) -> dict[str, Any]:
    """Voxels of each bin, their mean confidence and the share that is right; None where empty."""
    used = found.counts > 0
    counts = np.maximum(found.counts, 1)
    rows = zip(used, found.confidences / counts, found.right / counts, strict=True)
    pairs = [(float(c), float(r)) if u else (None, None) for u, c, r in rows]
    return {
        "voxels": found.counts.tolist(),
        "confidence": [confidence for confidence, _ in pairs],
        "accuracy": [accuracy for _, accuracy in pairs],
        "ece": _number(found.expected_error),
    }


def _risk(found: RiskCoverage) -> dict[str, Any]:
    """The curve of errors among the most certain voxels, thinned to be drawn."""
    coverage, risk = found.curve()
    if not len(coverage):
        return {"voxels": 0, "coverage": [], "risk": [], "aurc": None, "best": None, "errors": None}
    at = np.unique(np.linspace(0, len(coverage) - 1, _POINTS).round().astype(int))
    return {
        "voxels": int(found.counts.sum()),
        "coverage": [round(float(value), 6) for value in coverage[at]],
        "risk": [round(float(value), 6) for value in risk[at]],
        "aurc": _number(found.area),
        "best": _number(found.best_area),
        "errors": _number(found.risk),
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
