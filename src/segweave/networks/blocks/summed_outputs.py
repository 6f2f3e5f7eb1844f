"""Logits that are the sum of the predictions of several maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.networks.base import Decoded, Output, Size


def summed_outputs(
    decoded: Decoded,
    names: Sequence[str],
    classifiers: nn.ModuleList,
    size: Size,
    *,
    auxiliary: bool,
) -> Output:
    """Each map, through its classifier, is resized to the image (bilinear); the logits are the sum.

    Args:
        decoded: its map belongs to the last name, those of the others are in `extra`.
        names: of the outputs, which `auxiliary` returns beside the logits.
        classifiers: one for each name.
        size: height and width of the image.
        auxiliary: whether the outputs are returned too.
    """
    maps: dict[str, Tensor] = {**decoded.extra, names[-1]: decoded.map}
    outputs: Mapping[str, Tensor] = {
        name: functional.interpolate(
            classifier(maps[name]), size=size, mode="bilinear", align_corners=False
        )
        for name, classifier in zip(names, classifiers, strict=True)
    }
    logits = torch.stack(list(outputs.values())).sum(0)
    return Output(logits=logits, auxiliary=dict(outputs) if auxiliary else {})
