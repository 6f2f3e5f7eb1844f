"""The arithmetic of ranking: what a case scores, and in which order cases come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

Region = Literal["boundary", "most uncertain"]
RADIUS = 2
"""How many pixels on both sides of a predicted boundary count."""
SHARE = 0.01
"""Where nothing is predicted: the share of the pixels that counts, the most uncertain."""


class CaseScore(NamedTuple):
    """What a case scores.

    Attributes:
        score: mean uncertainty of the region, 0 to 1.
        region: which pixels count: those near a predicted boundary, or, where nothing is predicted,
            the most uncertain ones.
        slice: the slice with the largest mean in the region.
        slice_score: that mean.
    """

    score: float
    region: Region
    slice: int
    slice_score: float


def boundary(labels: NDArray[np.uint8], radius: int = RADIUS) -> NDArray[np.bool_]:
    """Pixels (height, width) at most `radius` steps from where the class changes.

    `labels` is one slice, (height, width), or (classes, height, width) where classes overlap.
    """
    planes = labels.reshape(-1, *labels.shape[-2:])
    edge = np.zeros(planes.shape[1:], np.bool_)
    down = (planes[:, 1:] != planes[:, :-1]).any(axis=0)
    right = (planes[:, :, 1:] != planes[:, :, :-1]).any(axis=0)
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    if radius > 1 and edge.any():
        edge = binary_dilation(edge, iterations=radius - 1)
    return edge


def score_case(labels: NDArray[np.uint8], uncertainty: NDArray[np.float32]) -> CaseScore:
    """The score of a case from its labels (slices, [classes,] height, width) and the map of its
    uncertainty (slices, height, width).
    """
    sums, counts = np.zeros(len(labels)), np.zeros(len(labels), np.int64)
    for index, (label, values) in enumerate(zip(labels, uncertainty, strict=True)):
        band = boundary(label)
        sums[index], counts[index] = values[band].sum(dtype=np.float64), band.sum()
    region: Region = "boundary"
    if not counts.any():
        region = "most uncertain"
        flat = uncertainty.ravel()
        kept = max(1, round(SHARE * flat.size))
        limit = np.partition(flat, flat.size - kept)[flat.size - kept]
        for index, values in enumerate(uncertainty):
            band = values >= limit
            sums[index], counts[index] = values[band].sum(dtype=np.float64), band.sum()
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    index = int(means.argmax())
    return CaseScore(float(sums.sum() / counts.sum()), region, index, float(means[index]))


def by_score(scores: Sequence[float]) -> list[int]:
    """Indices from the highest score to the lowest; equal ones as they came."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def diverse_order(
    scores: Sequence[float], features: NDArray[np.float32]
) -> tuple[list[int], list[float | None]]:
    """Indices in an order in which near-duplicates do not come together, and the distance of each
    to the nearest before it (None for the first).

    Greedy k-center, weighted: the highest score first, then always the case with the largest score
    times its distance to the nearest case before it. Features (cases, channels) are brought to mean
    0 and standard deviation 1 first, distances divided by √channels.
    """
    if not len(scores):
        return [], []
    x = features.astype(np.float64)
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    scale = np.sqrt(max(1, x.shape[1]))
    weight = np.asarray(scores, np.float64)
    order, distances = [by_score(scores)[0]], [None]
    order_distances: list[float | None] = list(distances)
    nearest = np.full(len(x), np.inf)
    left = np.ones(len(x), np.bool_)
    while True:
        last = order[-1]
        left[last] = False
        if not left.any():
            return order, order_distances
        nearest = np.minimum(nearest, np.linalg.norm(x - x[last], axis=1) / scale)
        # Behind what is equal to an earlier case: by the score alone.
        gain = np.where(left, weight * nearest, -1.0)
        best = max(np.flatnonzero(left), key=lambda i: (gain[i], weight[i], -i))
        order.append(int(best))
        order_distances.append(float(nearest[best]))
