"""Predicted images against true ones: slice by slice, in the unit of their values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.evaluation.protocols import CLEAN, Protocol
from segweave.evaluation.scores import Score, check_metrics
from segweave.metrics import compute_metric
from segweave.registry import MetricCard


class _Images(Protocol):
    def score(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        *,
        target: TargetSpec,
        metrics: Sequence[str] = (),
        only: Sequence[str] | None = None,
        **_of_labels: Any,
    ) -> list[Score]:
        """All scores of one image. Spacing, stack, instances and probabilities change none."""
        if prediction.shape != reference.shape or reference.ndim != 4:
            raise InputError(
                "scoring a predicted image",
                expected="images of one shape (slices, channels, height, width)",
                found=f"{prediction.shape} and {reference.shape}",
                remedy="check that both belong to the same case and have the case's own size",
            )
        wanted = tuple(dict.fromkeys((*self.definitions, *metrics) if only is None else only))
        check_metrics(wanted, probabilities=False, task=self.task)
        cards = {name: self.card(name) for name in wanted}
        return list(_scores(prediction, reference, target, cards))


def _scores(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    target: TargetSpec,
    cards: Mapping[str, MetricCard],
) -> Iterator[Score]:
    assert target.range is not None
    low, high = target.range
    for channel, name in target.foreground.items():
        for index in range(len(reference)):
            ours, theirs = (
                np.clip(image[index, channel].astype(np.float64), low, high)
                for image in (prediction, reference)
            )
            for metric, card in cards.items():
                span = card.options.get("data_range", high - low)
                value = compute_metric(card.name, ours, theirs, data_range=span)
                unit = target.unit if card.unit == "image" else card.unit
                if math.isfinite(value):
                    yield Score(index, name, metric, value, unit)
                else:  # the PSNR of equal images
                    yield Score(index, name, metric, None, unit, "failed")


_BETWEEN = "values between the target's lowest and highest, whose difference is the data range"

images = _Images(
    name=f"{CLEAN}-images",
    title="every slice at the case's own size, in the unit of the target",
    definitions={
        "psnr": f"20 · log10(data range / RMSE); {_BETWEEN}",
        "ssim": "mean structural similarity, Gaussian window of sd 1.5 and 11 pixels without the "
        f"edge; {_BETWEEN}",
        "rmse": f"√ mean squared difference in the target's unit; {_BETWEEN}",
    },
    means="over a case's slices, over channels, over a group's cases, over groups",
    computed_by={"rmse": "rmse-in-unit"},
    sources=(
        "metrics: Chen et al., Low-dose CT with a residual encoder-decoder convolutional neural "
        "network, IEEE Transactions on Medical Imaging 36, 2017",
    ),
    per="group",
    columns=("ssim", "rmse"),
    task="image",
    primary="psnr",
)

PROTOCOLS = (images,)
