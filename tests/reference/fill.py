"""Deterministic weights and inputs for the reference tensors, and the way they are sampled.

A reference file stores no weights: every tensor of a network's state dict is a function of its
released name and shape alone, so that any implementation whose tensors can be mapped to the
released names can be filled with the same numbers. NumPy's legacy RandomState is used because its
stream is frozen for ever.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

SAMPLES = 4096


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1), float64, fixed by `name` and `shape`."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return np.random.RandomState(seed).random_sample(int(np.prod(shape))).reshape(shape)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of the state-dict tensor `name`: float32, scaled so that signals keep their size
    through the layers.
    """
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    u = uniform(name, tuple(shape))
    if leaf == "running_mean":
        value = np.zeros(shape)
    elif leaf == "running_var":
        value = np.ones(shape)
    elif len(shape) <= 1 and leaf.endswith("weight"):
        value = 0.75 + 0.5 * u
    elif leaf.endswith("bias"):
        value = 0.2 * (u - 0.5)
    elif len(shape) <= 1:
        value = 0.5 + 0.5 * u
    elif leaf.endswith("weight"):
        gain = 2.0 if len(shape) >= 4 else 1.0
        # In place: a temporary array for each step would take longer than the numbers themselves.
        value = u
        value *= 2
        value -= 1
        value *= np.sqrt(3 * gain / np.prod(shape[1:]))
    else:
        value = 0.2 * (2 * u - 1)
    return value.astype(np.float32)


def image(shape: tuple[int, ...], name: str = "input") -> np.ndarray:
    """A test input with low and high frequencies, float32, about zero mean and unit spread; shape
    (batch, channel, height, width).
    """
    b, c, h, w = shape
    y, x = np.mgrid[0:h, 0:w]
    phase = 2 * np.pi * uniform(name + ".phase", (b, c, 3, 3))
    waves = sum(
        np.sin(
            2 * np.pi * ((i + 1) * y / h * (j - 1) + (j + 1) * x / w)
            + phase[:, :, i, j, None, None]
        )
        for i in range(3)
        for j in range(3)
    )
    noise = 2 * uniform(name, shape) - 1
    return (0.4 * waves + 0.5 * noise).astype(np.float32)


def sample(tensor: np.ndarray, count: int = SAMPLES) -> np.ndarray:
    """`count` evenly spaced elements of the flattened tensor (all of them where it has fewer)."""
    flat = np.asarray(tensor).reshape(-1)
    if flat.size <= count:
        return flat
    return flat[np.linspace(0, flat.size - 1, count).astype(np.int64)]


def summary(tensor: np.ndarray) -> np.ndarray:
    """mean, standard deviation, smallest and largest value, as float64."""
    t = np.asarray(tensor, dtype=np.float64)
    return np.array([t.mean(), t.std(), t.min(), t.max()])


def filled_state_dict(spec_file: str | Path) -> dict[str, np.ndarray]:
    """Every tensor that the JSON beside a reference file lists, by its released name."""
    spec = json.loads(Path(spec_file).read_text())
    return {name: fill(name, tuple(shape)) for name, shape in spec["state_dict"]}


def calibrate(model, *inputs) -> None:
    """Give every batch norm the statistics of `inputs`, then put the model in eval mode.

    Only the batch norms see training mode (momentum 1), so dropout and stochastic depth stay off.
    """
    import torch

    model.eval()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    kept = [m.momentum for m in norms]
    for m in norms:
        m.train()
        m.momentum = 1.0
    with torch.no_grad():
        model(*inputs)
    for m, momentum in zip(norms, kept, strict=True):
        m.eval()
        m.momentum = momentum
