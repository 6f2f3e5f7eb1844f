"""Protocols beside `clean`, one file per family of data sets. A file declares `PROTOCOLS`; a new
protocol is a new file.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from segweave.data.case import Stack
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError, nearest
from segweave.evaluation.protocols import STACK_NAMES, Protocol, clean
from segweave.evaluation.scores import Score
from segweave.metrics.labels import Spacing


def protocols_of_families() -> Mapping[str, Protocol]:
    """Every protocol of the files in this folder by name, in alphabetical order; raises UsageError
    where two share a name or a data set.
    """
    protocols: dict[str, Protocol] = {}
    owners: dict[str, str] = {}
    for file in pkgutil.iter_modules(__path__):
        for protocol in importlib.import_module(f"{__name__}.{file.name}").PROTOCOLS:
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


def get_protocol(protocol: str | Protocol, dataset: str | None = None) -> Protocol:
    """A protocol by name; an unknown one raises UsageError with the nearest. "published" is the
    protocol of the data set `dataset`; for others, and without one, the released ACDC evaluation.
    """
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
            1 where classes overlap.
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
    rules = get_protocol(protocol)
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
