"""How predictions become scores, one case at a time: what every protocol is, and the protocol
`clean`. The others are files of `families`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, Stack
from segweave.data.specs import TargetSpec, Task, decide
from segweave.errors import InputError, UsageError, nearest
from segweave.evaluation.rows import Row
from segweave.evaluation.scores import (
    Layer,
    Score,
    class_scores,
    extra_scores,
    layers_of,
    nearest_zoom,
    pieces,
)
from segweave.metrics import get_policy
from segweave.metrics.labels import Spacing
from segweave.registry import MetricCard
from segweave.registry import metrics as registry

FAMILIES = "segweave.evaluation.families"
CLEAN = "clean"
FALSE_ALARM = "false-alarm"


@dataclass(frozen=True)
class Needs:
    """What a protocol needs of a prediction.

    Attributes:
        decide_on: "case": probabilities are brought to the case's own size, then labels are made;
            "network": the protocol makes what it scores of the probabilities on the network's grid
            (`Protocol.from_network`).
        ends_left_out: how many of the first and of the last slices are not scored.
        any_size: whether the reference is brought to the prediction's size.
    """

    decide_on: Literal["case", "network"] = "case"
    ends_left_out: int = 0
    any_size: bool = False

    def slices(self, count: int) -> range:
        """Indices of the slices that are scored, of a stack of `count`."""
        return range(self.ends_left_out, max(self.ends_left_out, count - self.ends_left_out))


@dataclass(frozen=True)
class Protocol:
    """The rules by which predictions are scored, and which a table names.

    Attributes:
        name: its name.
        title: one sentence.
        definitions: the metrics that it computes, as names of cards, and how each is defined here.
        means: the order of means, in words.
        needs: what it needs of a prediction.
        empties: the policy for classes that a side lacks (`segweave.metrics.POLICIES`).
        computed_by: metric → the card that computes it, where that is not the card of its name: a
            released evaluation prints as "dice" or "hd95" what other cards define.
        in_voxels: whether distances are in voxels although the spacing is known.
        datasets: the data sets whose `published` scores it computes.
        sources: where each choice comes from.
        stacks: the kinds of case that it covers.
        target: the classes that it scores where none are named.
        per: what has equal weight in means: "group", or for publications "case" (for each class,
            then over classes) or "image", whatever its case.
        columns: the metrics that tables print beside the primary one.
        task: what it scores: label maps, or images (`TargetSpec.task`).
        primary: the metric that arms are compared by, of which more is better.
    """

    name: str
    title: str
    definitions: Mapping[str, str]
    means: str
    needs: Needs = field(default_factory=Needs)
    empties: str = CLEAN
    computed_by: Mapping[str, str] = field(default_factory=dict)
    in_voxels: bool = False
    datasets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    stacks: tuple[Stack, ...] = ("space", "time", "single")
    target: TargetSpec | None = None
    per: Literal["group", "case", "image"] = "case"
    columns: tuple[str, ...] = ()
    task: Task = "labels"
    primary: str = "dice"

    def score(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        *,
        target: TargetSpec,
        spacing: Spacing,
        stack: Stack,
        metrics: Sequence[str] = (),
        only: Sequence[str] | None = None,
        instances: NDArray[Any] | None = None,
        probabilities: NDArray[Any] | None = None,
    ) -> list[Score]:
        """All scores of one case; see `score_case`."""
        if spacing is not None and len(spacing) != 3:
            raise UsageError(
                "scoring a case",
                expected="a spacing of (slice, row, column) in mm, or None",
                found=str(tuple(spacing)),
            )
        wanted = dict.fromkeys((*self.definitions, *metrics) if only is None else only)
        listed = tuple(name for name in wanted if name in self.definitions)
        extra = tuple(name for name in wanted if name not in self.definitions)
        kept = self.needs.slices(len(reference))
        scored = slice(kept.start, kept.stop)
        scores: list[Score] = []
        if listed:
            steps = None if self.in_voxels else spacing
            for layer in self.layers(prediction, reference, target, instances):
                scores += self._score(layer[scored], steps, stack, listed)
        if extra:
            layers = self.label_layers(prediction, reference, target, instances)
            scores += extra_scores(
                [layer[scored] for layer in layers],
                reference,
                metrics=extra,
                target=target,
                spacing=None if self.needs.any_size else spacing,
                stack=stack,
                probabilities=probabilities,
            )
        return scores

    def card(self, metric: str) -> MetricCard:
        """The card that computes a metric under this protocol."""
        return registry.card(self.computed_by.get(metric, metric))

    def layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        """Prediction and reference, checked, in the form that the protocol scores, without classes
        that overlap.
        """
        return layers_of(prediction, reference, target, instances)

    def label_layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        """The same as label maps, for metrics that the protocol does not list."""
        return self.layers(prediction, reference, target, instances)

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

    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, metrics: tuple[str, ...]
    ) -> Iterator[Score]:
        """Scores by the protocol's own metrics of the classes that share one label map."""
        cards = {name: self.card(name) for name in metrics}
        for piece in pieces(layer, spacing, stack):
            yield from class_scores(piece, cards, get_policy(self.empties))


_SURFACE = (
    "surface = voxels lost by one erosion with the cross, the array's edge counts; "
    "mm where the spacing is known, else px"
)

clean = Protocol(
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
    means=(
        "over a case's images (time), over the classes that count in a case, over a group's cases, "
        "over groups; of distances over cases for each class, over classes"
    ),
    per="group",
    columns=("hd95", "asd"),
)

STACK_NAMES: Mapping[Stack, str] = {
    "space": "volumes",
    "time": "frames of videos",
    "single": "single images",
}


def protocols_of_families() -> Mapping[str, Protocol]:
    """Every protocol of the files of `families` by name, in alphabetical order; raises UsageError
    where two share a name or a data set.
    """
    protocols: dict[str, Protocol] = {}
    owners: dict[str, str] = {}
    for file in pkgutil.iter_modules([str(Path(__file__).with_name("families"))]):
        for protocol in importlib.import_module(f"{FAMILIES}.{file.name}").PROTOCOLS:
            taken = {protocol.name} & protocols.keys() | set(protocol.datasets) & owners.keys()
            if taken:
                raise UsageError(
                    f"listing protocols: {file.name}",
                    expected="names and data sets that no other protocol has",
                    found=", ".join(sorted(taken)),
                )
            protocols[protocol.name] = protocol
            owners.update(dict.fromkeys(protocol.datasets, protocol.name))
    return dict(sorted(protocols.items()))


@functools.cache
def list_protocols() -> Mapping[str, Protocol]:
    """Every protocol by name: `clean`, then those that the files of `families` hold."""
    return {clean.name: clean, **protocols_of_families()}


def get_protocol(
    protocol: str | Protocol, dataset: str | None = None, target: TargetSpec | None = None
) -> Protocol:
    """A protocol by name; an unknown one raises UsageError with the nearest, and so does one that
    does not score what `target` is. "published" is the protocol of the data set `dataset`; for
    others, and without one, the released ACDC evaluation. "clean" of an image is `clean-images`.
    """
    if target is not None and target.task != "labels" and protocol == CLEAN:
        return _of_task(target.task)[0]
    chosen = _named(protocol, dataset)
    if target is not None and chosen.task != target.task:
        raise UsageError(
            f"scoring a target of kind {target.kind} under the protocol {chosen.name}",
            expected=" or ".join(one.name for one in _of_task(target.task)),
            found=f"{chosen.name}, which scores "
            + ("label maps" if chosen.task == "labels" else "images"),
        )
    return chosen


def _of_task(task: Task) -> list[Protocol]:
    return [one for one in list_protocols().values() if one.task == task]


def _named(protocol: str | Protocol, dataset: str | None) -> Protocol:
    if isinstance(protocol, Protocol):
        return protocol
    protocols = list_protocols()
    if protocol not in protocols:
        raise UsageError(
            "choosing a protocol", found=repr(protocol), remedy=nearest(protocol, protocols)
        )
    if protocol == "published" and dataset is not None:
        for family in protocols.values():
            if dataset in family.datasets:
                return family
    return protocols[protocol]


def score_case(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    *,
    target: TargetSpec,
    spacing: Spacing,
    stack: Stack,
    protocol: str | Protocol = "clean",
    metrics: Sequence[str] = (),
    only: Sequence[str] | None = None,
    instances: NDArray[Any] | None = None,
    probabilities: NDArray[Any] | None = None,
) -> list[Score]:
    """Scores of one case.

    Args:
        prediction: label map (slices, height, width), or (slices, classes, height, width) of 0 and
            1 where classes overlap; an image, (slices, channels, height, width).
        reference: the true labels, of the same shape.
        target: the classes.
        spacing: (slice, row, column) in mm, or None where it is unknown.
        stack: what the slices are: "space" (a volume), "time" (frames) or "single" (images).
        protocol: a protocol or its name.
        metrics: names of metrics to compute beside the protocol's, a plug-in's too.
        only: names of metrics; only these are computed.
        instances: ids of the reference's single objects, where they are known.
        probabilities: (slices, channels, height, width) at the case's own size, for metrics that
            read them.

    Raises InputError where shapes differ or an id is unknown, UsageError where the protocol does
    not cover this kind of case, or a metric is unknown or can't be computed.
    """
    rules = get_protocol(protocol, target=target)
    if stack not in rules.stacks:
        fitting = [name for name, other in list_protocols().items() if stack in other.stacks]
        raise UsageError(
            f"scoring under the protocol {rules.name}",
            expected=" or ".join(STACK_NAMES[kind] for kind in rules.stacks),
            found=STACK_NAMES[stack],
            remedy=f"use one of {', '.join(fitting)}",
        )
    return rules.score(
        prediction,
        reference,
        target=target,
        spacing=spacing,
        stack=stack,
        metrics=metrics,
        only=only,
        instances=instances,
        probabilities=probabilities,
    )


def score_rows(
    case: Case,
    prediction: NDArray[Any],
    *,
    target: TargetSpec,
    protocol: str | Protocol = "clean",
    metrics: Sequence[str] = (),
    only: Sequence[str] | None = None,
    probabilities: NDArray[Any] | None = None,
    arm: str = "",
    seed: int | None = None,
    fold: int | None = None,
) -> list[Row]:
    """The rows of one case.

    Args:
        case: the case, with its labels.
        prediction: as in `segweave.evaluation.Scored`.
        target: the classes.
        protocol: a protocol or its name.
        metrics: names of metrics to compute beside the protocol's, a plug-in's too.
        only: names of metrics; only these are computed.
        probabilities: as in `segweave.evaluation.Scored`.
        arm: the arm that made the prediction.
        seed: its seed.
        fold: its fold.

    Raises InputError, naming the case, where it has no label or the prediction does not fit, and
    what `score_case` raises.
    """
    if case.label is None:
        raise InputError(
            f"scoring the case {case.id}", expected="a case with a label", found="none"
        )
    scores = score_case(
        prediction,
        case.label,
        target=target,
        spacing=case.spacing,
        stack=case.stack,
        protocol=protocol,
        metrics=metrics,
        only=only,
        instances=case.instances,
        probabilities=probabilities,
    )
    return [Row(case.id, case.group, score, arm, seed, fold) for score in scores]
