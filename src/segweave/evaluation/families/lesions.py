"""Skin lesions as DCSAU-Net's released evaluation scores them: at the network's size, image by
image.

Source: `eval_binary.py` of xq141839/DCSAU-Net (Apache-2.0), the network that the context modules'
papers take as their ISIC baseline.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.specs import TargetSpec, decide
from segweave.evaluation.protocols import Needs, Protocol
from segweave.evaluation.scores import Layer, foreground_name, layers_of


class _Lesions(Protocol):
    def layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        foreground_name(self.name, target)
        small = resized_mask(reference, (prediction.shape[-2], prediction.shape[-1]))
        return layers_of(prediction, small, target)

    def from_network(
        self, probabilities: NDArray[Any], size: tuple[int, int], target: TargetSpec
    ) -> NDArray[np.uint8]:
        return decide(probabilities, target)


def resized_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A mask (..., h, w) → (..., H, W): output pixel i takes input pixel floor(i·n/m), the nearest
    neighbour of OpenCV, with which the released code resizes.
    """
    rows, columns = (np.arange(m) * n // m for n, m in zip(mask.shape[-2:], size, strict=True))
    resized: NDArray[Any] = mask[..., rows[:, None], columns]
    return resized


lesions = _Lesions(
    name="published-isic",
    title=(
        "as DCSAU-Net's released evaluation: at the predictions' size (a run's: the network's), "
        "probability ≥ 1/2, each image on its own; the reference is resized by nearest neighbour"
    ),
    definitions={
        "dice": "(2·TP + 1) / (2·TP + FP + FN + 1)",
        "iou": "(TP + 1) / (TP + FP + FN + 1)",
        "precision": "TP / (TP + FP), 0 where nothing was predicted",
        "sensitivity": "TP / (TP + FN), 0 where the reference is empty",
        "specificity": "TN / (TN + FP)",
        "accuracy": "(TP + TN) / all pixels",
    },
    means="over images, every image weighing alike",
    needs=Needs(decide_on="network", any_size=True),
    empties="formula",
    computed_by={"dice": "dice-smooth", "iou": "iou-smooth"},
    datasets=("isic2016", "isic2017", "isic2018", "ph2"),
    sources=(
        "size, threshold, the 1 that is added, means: DCSAU-Net, eval_binary.py",
        "resizing of the mask: its albumentations Resize (OpenCV, nearest neighbour)",
        "specificity: DANIE's tables print it; its code is not released",
    ),
    stacks=("time", "single"),
    target=TargetSpec(kind="binary", names=("background", "lesion")),
    per="image",
    columns=("iou", "sensitivity", "specificity", "accuracy"),
)

PROTOCOLS = (lesions,)
