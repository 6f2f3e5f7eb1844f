"""What holds for the weights at hand: sign-flip permutation and an interval over group means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from segweave.evaluation.rows import Estimate
from segweave.evaluation.summary import estimate

# Up to here every pattern of signs is counted, above it a fixed number is drawn.
EXACT_UP_TO = 20
DRAWS = 100_000


def sign_flip_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p of the mean of `differences` (groups,) where each sign could have been the other.

    Exact up to 20 groups; above, of 100,000 draws from a fixed stream, the observed one counted in.
    """
    values = np.asarray(differences, dtype=np.float64)
    observed = abs(float(values.sum()))
    slack = 1e-9 * float(np.abs(values).sum())
    if len(values) <= EXACT_UP_TO:
        # Half of the patterns are the others' mirror image, so the first sign stays.
        sums = values[:1]
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed - slack))
    generator = np.random.default_rng(20241)
    hits = 0
    for start in range(0, DRAWS, 10_000):
        count = min(10_000, DRAWS - start)
        signs = generator.integers(0, 2, (count, len(values)), dtype=np.int8) * 2.0 - 1
        hits += int(np.count_nonzero(np.abs(signs @ values) >= observed - slack))
    return (hits + 1) / (DRAWS + 1)


def group_interval(differences: Mapping[str, float], level: float = 0.95) -> Estimate:
    """Mean of the groups' differences with its interval by t over groups."""
    values = {(group, "difference"): value for group, value in differences.items()}
    return estimate(values, {group: group for group in differences}, level=level)
