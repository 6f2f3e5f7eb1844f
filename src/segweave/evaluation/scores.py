"""Scores of one case: metrics computed by their cards, for a protocol or beside its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from segweave.data.case import Stack, ids_in
from segweave.data.specs import TargetSpec, Task
from segweave.errors import InputError, UsageError
from segweave.metrics import EmptyPolicy, LabelPair, compute_metric, connected_objects, get_policy
from segweave.metrics.compute import Status, value_unit
from segweave.metrics.labels import Spacing
from segweave.registry import MetricCard
from segweave.registry import metrics as registry

ALL_CLASSES = ""
"""The class name of a score of all classes together."""
_OF_A_CASE = ("labels", "instances", "soft-map", "probabilities")
_OF_A_MODEL = ("soft-map", "probabilities")


@dataclass(frozen=True)
class Score:
    """One number of one image or volume.

    Attributes:
        slice: index of the image; None for a volume.
        class_name: the class; "" for all classes together.
        metric: the metric's name.
        value: None where `status` is "failed".
        unit: "", "mm", "px", "ml" or another.
        status: "scored"; "failed" (undefined, as a distance to a class that was not predicted);
            "rule" (set by a rule of the protocol, because a side lacks the class).
        curve: the values at all thresholds, where the threshold is chosen over all images.
    """

    slice: int | None
    class_name: str
    metric: str
    value: float | None
    unit: str = ""
    status: Status = "scored"
    curve: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Layer:
    """A prediction and a reference in which no classes overlap.

    Attributes:
        prediction: class ids (slices, height, width).
        reference: true class ids, of the same shape.
        names: class id → name.
        instances: ids of the reference's single objects, of the same shape; None where unknown.
    """

    prediction: NDArray[Any]
    reference: NDArray[Any]
    names: dict[int, str]
    instances: NDArray[Any] | None = None

    def __getitem__(self, index: int | slice) -> Layer:
        """The layer of one slice or of several."""
        instances = None if self.instances is None else self.instances[index]
        return Layer(self.prediction[index], self.reference[index], self.names, instances)


@dataclass(frozen=True, eq=False)
class Piece:
    """What is scored at once: a volume (`index` None), or one image of a case."""

    index: int | None
    layer: Layer
    spacing: Spacing


def pieces(layer: Layer, spacing: Spacing, stack: Stack) -> Iterator[Piece]:
    """A volume as a whole, frames and single images one by one."""
    if stack == "space":
        yield Piece(None, layer, spacing)
        return
    in_plane = None if spacing is None else tuple(spacing)[1:]
    for index in range(len(layer.reference)):
        yield Piece(index, layer[index], in_plane)


def class_scores(
    piece: Piece, metrics: Mapping[str, MetricCard], policy: EmptyPolicy
) -> Iterator[Score]:
    """Scores of every class of one image or volume.

    Args:
        piece: the image or volume.
        metrics: name in the scores → card of the metric, which reads labels or instances.
        policy: what is scored where a side lacks a class.
    """
    layer, spacing = piece.layer, piece.spacing
    shape = layer.reference.shape
    pair = LabelPair(layer.prediction, layer.reference, tuple(layer.names), spacing)
    for label, class_name in layer.names.items():
        missing = pair.missing(label)
        for name, card in metrics.items():
            unit = value_unit(card, spacing, len(shape))
            if card.absent:
                if not pair.counts[label].present:
                    value = pair.value(card, label)
                    yield Score(piece.index, class_name, name, value, unit)
                continue
            if card.reads == "instances":
                value = _of_objects(layer, card, label, spacing)
            else:
                value = pair.value(card, label)
            outcome = policy.outcome(card, value, missing, shape, spacing)
            if outcome is not None:
                yield Score(piece.index, class_name, name, outcome.value, unit, outcome.status)


def _of_objects(layer: Layer, card: MetricCard, label: int, spacing: Spacing) -> float:
    """A metric of the objects of one class: those that are known, else its connected parts."""
    masks = layer.prediction == label, layer.reference == label
    maps = [
        connected_objects(mask) if objects is None else np.where(mask, objects, 0)
        for mask, objects in zip(masks, (None, layer.instances), strict=True)
    ]
    return compute_metric(card.name, *maps, spacing=spacing)


def needs_probabilities(metrics: Sequence[str]) -> bool:
    """Whether any of these metrics reads probabilities, so that `score_case` must be given them."""
    return any(registry.card(name).reads in _OF_A_MODEL for name in metrics)


def check_metrics(metrics: Sequence[str], *, probabilities: bool, task: Task = "labels") -> None:
    """Raise UsageError for a metric that is unknown or cannot be computed: one of images where
    labels are scored (and the other way round), or, where there are no probabilities, one that
    reads them.
    """
    for name in metrics:
        card = registry.card(name)
        if task == "image":
            if card.reads != "images":
                raise UsageError(
                    f"scoring images by {name}",
                    expected="a metric of images",
                    found=f"{name} reads {card.reads}",
                )
            continue
        if card.reads not in _OF_A_CASE:
            raise UsageError(
                f"scoring segmentations by {name}",
                expected="a metric of labels, objects or probabilities",
                found=f"{name} compares two {card.reads}",
                remedy="compute it with segweave.metrics.compute_metric",
            )
        if card.reads in _OF_A_MODEL and not probabilities:
            raise UsageError(
                f"scoring label maps by {name}",
                expected="probabilities, which this metric reads",
                found="label maps",
                remedy=f"evaluate a run: segweave evaluate RUN --metric {name}",
            )


def extra_scores(
    layers: Sequence[Layer],
    reference: NDArray[Any],
    *,
    metrics: Sequence[str],
    target: TargetSpec,
    spacing: Spacing,
    stack: Stack,
    probabilities: NDArray[Any] | None = None,
) -> Iterator[Score]:
    """Scores by metrics that the protocol does not list: of classes that the reference holds,
    volumes in 3D, other images one by one. Metrics of a soft map read images, so that volumes are
    scored slice by slice.

    Args:
        layers: what the protocol compares, as label maps.
        reference: the true labels of the case at its own size.
        metrics: names of metrics; see `check_metrics` for what is refused.
        target: the classes.
        spacing: of `layers`, (slice, row, column) in mm, or None.
        stack: what the slices are.
        probabilities: (slices, channels, height, width) at the case's own size.
    """
    check_metrics(metrics, probabilities=probabilities is not None)
    cards = {name: registry.card(name) for name in metrics}
    of_labels = {n: card for n, card in cards.items() if card.reads in ("labels", "instances")}
    if of_labels:
        for layer in layers:
            for piece in pieces(layer, spacing, stack):
                yield from class_scores(piece, of_labels, get_policy("clean"))
    if probabilities is None:
        return
    _check_probabilities(probabilities, reference, target)
    for card in cards.values():
        if card.reads == "soft-map":
            yield from _soft_map_scores(card, probabilities, reference, target)
        elif card.reads == "probabilities":
            yield from _probability_scores(card, probabilities, reference, target, stack)


def _soft_map_scores(
    card: MetricCard, probabilities: NDArray[Any], reference: NDArray[Any], target: TargetSpec
) -> Iterator[Score]:
    for channel, name, masks in _classes(reference, target):
        for index, mask in enumerate(masks):
            if not mask.any():
                continue
            soft_map = probabilities[index, channel]
            if target.ignored is not None:
                soft_map = np.where(reference[index] == target.ignored, 0, soft_map)
            yield _score(card, index, name, compute_metric(card.name, soft_map, mask))


def _classes(
    reference: NDArray[Any], target: TargetSpec
) -> Iterator[tuple[int, str, NDArray[np.bool_]]]:
    """(channel of the probabilities, class name, masks (slices, height, width)) of each class."""
    for label, name in target.foreground.items():
        if target.kind == "overlapping":
            yield label, name, reference[:, label] == 1
        else:
            yield 0 if target.kind == "binary" else label, name, reference == label


def _probability_scores(
    card: MetricCard,
    probabilities: NDArray[Any],
    reference: NDArray[Any],
    target: TargetSpec,
    stack: Stack,
) -> Iterator[Score]:
    """All classes together; classes that overlap each for itself."""
    pairs = [(ALL_CLASSES, probabilities, reference)]
    if target.kind == "overlapping":
        pairs = [
            (name, probabilities[:, k : k + 1], reference[:, k])
            for k, name in target.foreground.items()
        ]
    for name, given, labels in pairs:
        parts: list[int | None] = [None] if stack == "space" else [*range(len(labels))]
        for index in parts:
            where = slice(None) if index is None else slice(index, index + 1)
            value = compute_metric(card.name, given[where], labels[where], ignored=target.ignored)
            yield _score(card, index, name, value)


def _score(card: MetricCard, index: int | None, class_name: str, value: float) -> Score:
    if not math.isfinite(value):
        return Score(index, class_name, card.name, None, card.unit, "failed")
    return Score(index, class_name, card.name, value, card.unit)


def _check_probabilities(
    probabilities: NDArray[Any], reference: NDArray[Any], target: TargetSpec
) -> None:
    wanted = (len(reference), target.classes, *reference.shape[-2:])
    if probabilities.shape != wanted:
        raise InputError(
            "scoring probabilities",
            expected=f"(slices, channels, height, width) = {wanted}, the case's own size",
            found=str(probabilities.shape),
        )


def layers_of(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    target: TargetSpec,
    instances: NDArray[Any] | None = None,
) -> list[Layer]:
    """One layer for exclusive and binary classes, one per class where they overlap.

    Voxels that the reference marks as ignored are background in both. Raises InputError where
    shapes differ, an id is unknown or values are not whole numbers.
    """
    axes = 4 if target.kind == "overlapping" else 3
    if prediction.shape != reference.shape or prediction.ndim != axes:
        grid = "(slices, classes, height, width)" if axes == 4 else "(slices, height, width)"
        raise InputError(
            "scoring a case",
            expected=f"a prediction of the reference's shape, {grid}",
            found=f"prediction {prediction.shape}, reference {reference.shape}",
            remedy="check that both belong to the same case and have the case's own size",
        )
    allowed = set(range(len(target.names))) if target.kind == "exclusive" else {0, 1}
    _check_ids("prediction", prediction, allowed)
    ignored = {target.ignored} if target.ignored is not None else set()
    _check_ids("reference", reference, allowed | ignored)
    if target.ignored is not None:
        kept = reference != target.ignored
        prediction, reference = np.where(kept, prediction, 0), np.where(kept, reference, 0)
    if target.kind != "overlapping":
        return [Layer(prediction, reference, target.foreground, instances)]
    if prediction.shape[1] != len(target.names):
        raise InputError(
            "scoring a case",
            expected=f"{len(target.names)} classes ({', '.join(target.names)})",
            found=f"{prediction.shape[1]} on the class axis",
        )
    return [
        Layer(prediction[:, k], reference[:, k], {1: name}) for k, name in target.foreground.items()
    ]


def foreground_name(protocol: str, target: TargetSpec) -> str:
    """The name of the only class, for a protocol that scores one class against the background.
    Raises UsageError for targets with more classes.
    """
    names = list(target.foreground.values())
    if target.kind == "overlapping" or len(names) != 1:
        raise UsageError(
            f"scoring under the protocol {protocol}",
            expected="one class and the background",
            found=", ".join(names),
            remedy="use the protocol clean",
        )
    return names[0]


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


def _check_ids(what: str, labels: NDArray[Any], allowed: set[int]) -> None:
    if labels.dtype.kind not in "bui":
        raise InputError(
            f"scoring a case: the {what} is not a label map",
            expected="whole numbers",
            found=f"values of type {labels.dtype}",
        )
    unknown = sorted(set(unique_ids(labels)) - allowed)
    if unknown:
        shown = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        raise InputError(
            f"scoring a case: unknown class ids in the {what}",
            expected=", ".join(map(str, sorted(allowed))),
            found=shown,
            remedy="check the class list, or that the labels were not resized with smoothing",
        )


def unique_ids(labels: NDArray[Any]) -> list[int]:
    """The ids in a label map, ascending."""
    if labels.dtype == np.uint8:
        return ids_in(labels)
    return [int(i) for i in np.unique(labels)]
