"""Chooses the threshold at which the mean of a score over all images is largest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segweave.evaluation.rows import Row


def at_best_threshold(rows: Sequence[Row]) -> list[Row]:
    """Rows whose score holds a curve → the same with its value at the threshold at which the mean
    over all images of that arm, seed and fold is largest; other rows as they are.

    So the mean of the values is the largest of the means, as in the released polyp evaluation, and
    each image keeps its value.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.score.curve is not None:
            key = (row.arm, row.seed, row.fold, row.score.class_name, row.score.metric)
            groups[key].append(index)
    chosen = list(rows)
    for indices in groups.values():
        curves = np.stack([np.asarray(rows[i].score.curve) for i in indices])
        best = int(curves.mean(axis=0).argmax())
        for i, curve in zip(indices, curves, strict=True):
            score = replace(rows[i].score, value=float(curve[best]), curve=None)
            chosen[i] = replace(rows[i], score=score)
    return chosen
