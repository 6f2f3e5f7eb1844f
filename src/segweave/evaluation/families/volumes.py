"""Volumes as the released ACDC and Synapse evaluations score them: in voxels, and a class that is
missing on a side by rule.

Sources: the evaluation of the context modules' released code for ACDC; `utils.py` and `test.py` of
Beckschen/TransUNet (Apache-2.0) for Synapse, whose empty rules and distances are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from segweave.data.case import Stack
from segweave.evaluation.label_pairs import Layer
from segweave.evaluation.protocols import Needs, Protocol, Score, Spacing, Status
from segweave.metrics import SurfaceDistances, confusion, get_policy, surface_distances
from segweave.metrics.empties import missing


class _Volumes(Protocol):
    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, asked: tuple[str, ...]
    ) -> Iterator[Score]:
        ends = self.needs.ends_left_out
        layer = layer[ends : max(ends, len(layer.reference) - ends)]
        counts = confusion(layer.prediction, layer.reference, tuple(layer.names))
        both = tuple(c for c in counts if counts[c].predicted and counts[c].present)
        distances: dict[int, SurfaceDistances] = {}
        if both and "hd95" in asked:
            distances = surface_distances(layer.prediction, layer.reference, None, both)
        rule = get_policy("published")
        for c, name in layer.names.items():
            lack = missing(counts[c].predicted, counts[c].present)
            status: Status = "scored" if lack is None else "rule"
            if "dice" in asked:
                dice = counts[c].dice
                yield Score(
                    None, name, "dice", rule.overlap(lack, dice) if lack else dice, "", status
                )
            if "hd95" in asked:
                value = (
                    rule.distance(lack, layer.reference.shape, None)
                    if lack
                    else distances[c].hausdorff95("pooled")
                )
                yield Score(None, name, "hd95", value, "px", status)


acdc: Protocol = _Volumes(
    name="published",
    title=(
        "as the released ACDC evaluation: first and last slice left out; a false alarm on an "
        "absent class scores 1, a class missed or in neither scores 0, both with distance 0"
    ),
    definitions={
        "dice": "2·TP / (2·TP + FP + FN) of the volume without its end slices",
        "hd95": "95th percentile of both directions pooled, in voxels (a slice step is 1)",
    },
    means="over volumes for each class, over classes",
    needs=Needs(decide_on="network", ends_left_out=1),
    datasets=("acdc",),
    sources=("all: the evaluation in the context modules' released ACDC code",),
    stacks=("space",),
)

synapse: Protocol = _Volumes(
    name="published-synapse",
    title=(
        "as TransUNet's released Synapse evaluation: all slices; a false alarm on an absent class "
        "scores 1, a class missed or in neither scores 0, both with distance 0"
    ),
    definitions={
        "dice": "2·TP / (2·TP + FP + FN) of the volume",
        "hd95": "95th percentile of both directions pooled, in voxels (a slice step is 1)",
    },
    means="over volumes for each class, over classes",
    needs=Needs(decide_on="network"),
    datasets=("synapse", "btcv"),
    sources=("all: Beckschen/TransUNet, utils.py (scores of one volume) and test.py (means)",),
    stacks=("space",),
)

PROTOCOLS = (acdc, synapse)
