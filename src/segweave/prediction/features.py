"""What the encoder sees of a case, as one vector, by which near-duplicates are recognised."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.inputs import network_slice, normalise
from segweave.errors import UsageError
from segweave.networks import SegmentationNetwork, first_inputs
from segweave.prediction.predictor import Predictor
from segweave.runtime.devices import flushed_denormals


def pooled_features(predictor: Predictor, case: Case, *, slices: int = 8) -> NDArray[np.float32]:
    """The mean of the bottleneck, float32 (channels,), over space and over at most `slices` slices,
    evenly spread.

    An image that is predicted in tiles is scaled down to one. Raises UsageError where the model is
    a module without an encoder, InputError for a case that does not fit.
    """
    network = getattr(predictor.network, "network", predictor.network)
    if not isinstance(network, SegmentationNetwork):
        raise UsageError(
            "comparing cases by the features of an encoder",
            expected="a network of segweave, which has an encoder",
            found=type(network).__name__,
            remedy="rank without diversity",
        )
    spec = predictor.input
    if spec.fit == "tile":
        spec = spec.model_copy(update={"fit": "pad"})
    numbers = normalise(case, spec)
    device = next(network.parameters()).device
    count = min(slices, case.slices)
    total: NDArray[np.float64] | None = None
    for index in np.linspace(0, case.slices - 1, count).round().astype(int):
        image = torch.from_numpy(network_slice(case, int(index), spec, numbers))[None].to(device)
        with torch.inference_mode(), flushed_denormals():
            features = network.encode(image, **first_inputs(network, image))
            pooled = features.bottleneck.float().mean((0, 2, 3)).cpu().numpy().astype(np.float64)
        total = pooled if total is None else total + pooled
    assert total is not None, "a case has at least one slice"
    return (total / count).astype(np.float32)
