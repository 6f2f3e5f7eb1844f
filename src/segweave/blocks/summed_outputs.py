"""Logits that are the sum of the predictions of several maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.registry import Size


def summed_outputs(
    maps: Mapping[str, Tensor], classifiers: Mapping[str, nn.Module], size: Size
) -> tuple[Tensor, dict[str, Tensor]]:
    """Each map, through the classifier of its name, is resized to `size` (bilinear). Returns the
    sum of these outputs, which are the logits, and the outputs by their names.
    """
    outputs = {
        name: functional.interpolate(
            classifier(maps[name]), size=size, mode="bilinear", align_corners=False
        )
        for name, classifier in classifiers.items()
    }
    return torch.stack(list(outputs.values())).sum(0), outputs
