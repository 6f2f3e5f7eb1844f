"""As `clean`, but every class counts in every case: where it is missing on one side, Dice is 0 and
the distance the image's diagonal; on both, Dice is 1 and the distance 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from segweave.data.case import Stack
from segweave.evaluation.label_pairs import Layer
from segweave.evaluation.protocols import Protocol, Score, Spacing, Status, clean, distance_of
from segweave.metrics import SurfaceDistances, confusion, get_policy, surface_distances
from segweave.metrics.empties import missing

_METRICS = ("dice", "iou", "hd", "hd95", "asd", "asd-reverse", "assd")
_OVERLAPS = ("dice", "iou")


class _Penalised(Protocol):
    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, asked: tuple[str, ...]
    ) -> Iterator[Score]:
        if stack == "space":
            yield from self._image(layer, spacing, None, asked)
            return
        in_plane = None if spacing is None else tuple(spacing)[1:]
        for index in range(len(layer.reference)):
            yield from self._image(layer[index], in_plane, index, asked)

    def _image(
        self, layer: Layer, spacing: Spacing, index: int | None, asked: tuple[str, ...]
    ) -> Iterator[Score]:
        counts = confusion(layer.prediction, layer.reference, tuple(layer.names))
        both = tuple(c for c in counts if counts[c].predicted and counts[c].present)
        distances: dict[int, SurfaceDistances] = {}
        if both and any(metric not in _OVERLAPS for metric in asked):
            distances = surface_distances(layer.prediction, layer.reference, spacing, both)
        rule = get_policy("penalise")
        unit = "px" if spacing is None else "mm"
        for c, name in layer.names.items():
            lack = missing(counts[c].predicted, counts[c].present)
            status: Status = "scored" if lack is None else "rule"
            for metric in asked:
                if metric in _OVERLAPS:
                    value = float(getattr(counts[c], metric))
                    value = rule.overlap(lack, value) if lack else value
                    yield Score(index, name, metric, value, "", status)
                elif lack:
                    value = rule.distance(lack, layer.reference.shape, spacing)
                    yield Score(index, name, metric, value, unit, status)
                else:
                    value = distance_of(distances[c], metric)
                    yield Score(index, name, metric, value, unit, status)


penalised: Protocol = _Penalised(
    name="penalised",
    title=(
        "as clean, but every class counts in every case: missing on one side scores Dice 0 and the "
        "image's diagonal, on both Dice 1 and distance 0"
    ),
    definitions={
        metric: f"{clean.definitions[metric].partition(', where the class')[0]}; missing: by rule"
        for metric in _METRICS
    },
    means=clean.means,
)

PROTOCOLS = (penalised,)
