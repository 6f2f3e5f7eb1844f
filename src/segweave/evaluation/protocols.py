"""How predictions become scores, one case at a time: what every protocol is, and the protocol
`clean`. The others are files of `families`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from segweave.data.case import Stack
from segweave.data.specs import TargetSpec, decide
from segweave.errors import UsageError, nearest
from segweave.evaluation.label_pairs import Layer, layers_of
from segweave.metrics import SurfaceDistances, confusion, surface_distances

Status = Literal["scored", "failed", "rule"]
Spacing = Sequence[float] | None

CLEAN = "clean"
OVERLAPS = ("dice", "iou", "precision", "sensitivity")
DISTANCES = ("hd", "hd95", "asd", "asd-reverse", "assd", "object-hd")
FALSE_ALARM = "false-alarm"


@dataclass(frozen=True)
class Score:
    """One number. `slice` is None for a volume; `value` is None where `status` is "failed" (a
    distance to a class that was not predicted); "rule" marks a value that a protocol sets by rule
    because the class is missing on a side. `unit` is "", "mm", "px" or "ml". A `curve` holds an
    image's values at all thresholds, where the threshold is chosen over all images (`curves`).
    """

    slice: int | None
    class_name: str
    metric: str
    value: float | None
    unit: str = ""
    status: Status = "scored"
    curve: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Needs:
    """What a protocol asks of whoever predicts.

    `decide_on` "case": probabilities are brought to the case's own size, then labels are made;
    "network": the protocol makes of the probabilities on the network's grid what it scores
    (`Protocol.from_network`). The first and last `ends_left_out` slices need no prediction.
    `any_size` says that the reference is brought to the prediction's size.
    """

    decide_on: Literal["case", "network"] = "case"
    ends_left_out: int = 0
    any_size: bool = False

    def slices(self, count: int) -> range:
        """Indices of the slices that have to be predicted, of a stack of `count`."""
        return range(self.ends_left_out, max(self.ends_left_out, count - self.ends_left_out))


@dataclass(frozen=True)
class Protocol(ABC):
    """The rules that a table names: what each number is (`definitions`), and the order of means.

    `datasets` are those whose `published` scores it computes, `sources` say where each choice comes
    from. `stacks` are the kinds of case that it covers. `target` is what it scores where nobody
    names classes. `per` "image" weighs every image alike, whatever case it belongs to. `columns`
    are the metrics that tables print beside Dice and distances.
    """

    name: str
    title: str
    definitions: Mapping[str, str]
    means: str
    needs: Needs = field(default_factory=Needs)
    datasets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    stacks: tuple[Stack, ...] = ("space", "time", "single")
    target: TargetSpec | None = None
    per: Literal["case", "image"] = "case"
    columns: tuple[str, ...] = ()

    def score(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        *,
        target: TargetSpec,
        spacing: Spacing,
        stack: Stack,
        metrics: Sequence[str] | None = None,
        instances: NDArray[Any] | None = None,
    ) -> list[Score]:
        """All scores of one case, or those of `metrics`; see `score_case`."""
        for name in metrics or ():
            if name not in self.definitions:
                raise UsageError(
                    f"scoring under the protocol {self.name}",
                    found=f"the metric {name!r}",
                    remedy=nearest(name, self.definitions),
                )
        if spacing is not None and len(spacing) != 3:
            raise UsageError(
                "scoring a case",
                expected="a spacing of (slice, row, column) in mm, or None",
                found=str(tuple(spacing)),
            )
        layers = self.layers(prediction, reference, target, instances)
        asked = tuple(metrics or self.definitions)
        return [s for layer in layers for s in self._score(layer, spacing, stack, asked)]

    def layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        """Prediction and reference, checked, as label maps in which no classes overlap."""
        return layers_of(prediction, reference, target)

    def from_network(
        self, probabilities: NDArray[Any], size: tuple[int, int], target: TargetSpec
    ) -> NDArray[np.uint8]:
        """One slice's probabilities (classes, h, w) on the network's grid → what is scored: labels,
        brought to the case's `size` by `nearest_zoom`, unless the protocol does otherwise.
        """
        return nearest_zoom(decide(probabilities, target), size)

    def shown(self, scored: NDArray[Any]) -> NDArray[Any]:
        """What was scored as a label map to look at."""
        return scored

    @abstractmethod
    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, asked: tuple[str, ...]
    ) -> Iterator[Score]:
        """Scores of the classes that share one label map."""


class _Clean(Protocol):
    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, asked: tuple[str, ...]
    ) -> Iterator[Score]:
        if stack == "space":
            yield from _scores(layer, spacing, None, asked)
            return
        in_plane = None if spacing is None else tuple(spacing)[1:]
        for index in range(len(layer.reference)):
            yield from _scores(layer[index], in_plane, index, asked)


_SURFACE = (
    "surface = voxels lost by one erosion with the cross, the array's edge counts; "
    "mm where the spacing is known, else px"
)

clean: Protocol = _Clean(
    name=CLEAN,
    title=(
        "every slice at the case's own size, volumes in 3D, frames and images one by one; "
        "a class counts where the reference holds it"
    ),
    definitions={
        "dice": "2·TP / (2·TP + FP + FN), where the class is in the reference; 0 where missed",
        "iou": "TP / (TP + FP + FN), where the class is in the reference; 0 where missed",
        "precision": "TP / (TP + FP), where the class is in the reference; 0 where missed",
        "sensitivity": "TP / (TP + FN), where the class is in the reference",
        "hd": f"largest distance between surfaces; {_SURFACE}",
        "hd95": f"the larger of the two directed 95th percentiles (linear); {_SURFACE}",
        "asd": f"mean distance, prediction's surface to reference's; {_SURFACE}",
        "asd-reverse": f"mean distance, reference's surface to prediction's; {_SURFACE}",
        "assd": f"mean distance over all surface voxels of both; {_SURFACE}",
        FALSE_ALARM: (
            "size of what was predicted of a class that is not in the reference: "
            "ml for volumes of known spacing, else px"
        ),
    },
    means="over a case's images (time), over cases for each class, over classes",
)

STACK_NAMES: Mapping[Stack, str] = {
    "space": "volumes",
    "time": "frames of videos",
    "single": "single images",
}


def nearest_zoom(labels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Labels (..., h, w) → (..., H, W) as SciPy's `zoom` of order 0 gives them, corner pixels
    aligned: output index i takes input index floor(i·(n − 1)/(m − 1) + 0.5).

    At some sizes (224 → 216 is one) SciPy's rounding puts the last row or column just outside,
    where it is background; that is kept, since the released evaluation computes so.
    """
    rows, columns = (
        zoom(np.arange(1, n + 1), m / n, order=0)
        for n, m in zip(labels.shape[-2:], size, strict=True)
    )
    # Index 0 of the padded map is the background outside.
    padded = np.pad(labels, [(0, 0)] * (labels.ndim - 2) + [(1, 0), (1, 0)])
    zoomed: NDArray[Any] = padded[..., rows[:, None], columns]
    return zoomed


def _scores(
    layer: Layer, spacing: Spacing, index: int | None, asked: tuple[str, ...]
) -> Iterator[Score]:
    """Scores of one volume (index None) or of one image under `clean`."""
    counts = confusion(layer.prediction, layer.reference, tuple(layer.names))
    both = tuple(c for c in counts if counts[c].predicted and counts[c].present)
    distances: dict[int, SurfaceDistances] = {}
    if both and any(metric in DISTANCES for metric in asked):
        distances = surface_distances(layer.prediction, layer.reference, spacing, both)
    unit = "px" if spacing is None else "mm"
    for c, name in layer.names.items():
        if not counts[c].present:
            if FALSE_ALARM in asked:
                yield _false_alarm(counts[c].predicted, name, spacing, index)
            continue
        for metric in asked:
            if metric in OVERLAPS:
                # Only precision can be undefined here (nothing predicted): a miss counts as 0.
                value = float(getattr(counts[c], metric))
                yield Score(index, name, metric, 0.0 if math.isnan(value) else value)
            elif metric in DISTANCES and c in distances:
                yield Score(index, name, metric, distance_of(distances[c], metric), unit)
            elif metric in DISTANCES:
                yield Score(index, name, metric, None, unit, "failed")


def _false_alarm(voxels: int, name: str, spacing: Spacing, index: int | None) -> Score:
    if spacing is None or index is not None:
        return Score(index, name, FALSE_ALARM, float(voxels), "px")
    return Score(None, name, FALSE_ALARM, voxels * math.prod(spacing) / 1000, "ml")


def distance_of(distances: SurfaceDistances, metric: str) -> float:
    """One of DISTANCES as `clean` defines it."""
    if metric == "hd":
        return distances.hausdorff()
    if metric == "hd95":
        return distances.hausdorff95("max")
    if metric == "assd":
        return distances.average_symmetric()
    return distances.average("to-reference" if metric == "asd" else "to-prediction")
