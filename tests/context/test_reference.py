"""The released forms against the numbers of the released code: outputs, gradients, sequences and
states.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segweave.author_weights import load_released
from segweave.context import BothSides, create_context
from tests.reference.fill import fill, filled_state_dict, image, sample, uniform

FOLDER = Path(__file__).parent.parent / "reference" / "context"
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))
CLASSES = {
    "TransLSTMLayer": "sa-lstm",
    "GatedTransLSTMLayer": "lstm-sa",
    "LSTMLayer": "sa-embedded-lstm",
}
# What the reference calls its inner tensors, and what we call them.
OURS = {
    "Q": "query",
    "K": "key",
    "V": "value",
    "out": "output",
    "s": "positioned",
    "coefficient_Q": "coefficient_query",
    "coefficient_K": "coefficient_key",
    "coefficient_V": "coefficient_value",
    "projected_q": "projected_query",
    "projected_k": "projected_key",
    "projected_v": "projected_value",
}
FLOAT32 = 2e-4
FLOAT64 = 1e-5


def released(name: str, dtype: torch.dtype) -> tuple[BothSides, dict[str, Any], Any]:
    """The module of a reference file, filled as the file says, with the file's contents."""
    spec = json.loads((FOLDER / f"{name}.json").read_text())
    settings = dict(spec["settings"])
    module = create_context(
        CLASSES[spec["module"]],
        settings.pop("input_channels"),
        out_channels=settings.pop("num_classes"),
        form="released",
        both_sides=True,
        **settings,
    )
    state = {k: torch.from_numpy(v) for k, v in filled_state_dict(FOLDER / f"{name}.json").items()}
    for key, shape in spec.get("fixed_buffers", []):
        state[key] = torch.zeros(shape)
    report = load_released(module, state)
    assert not report.missing
    assert not report.unexpected
    assert isinstance(module, BothSides)
    return module.to(dtype).eval(), spec, np.load(FOLDER / f"{name}.npz")


def inputs(spec: dict[str, Any], dtype: torch.dtype, names: list[str]) -> list[Tensor]:
    shape = tuple(spec["input_shape"])
    return [torch.from_numpy(image(shape, name)).to(dtype) for name in names]


def close(ours: Tensor, numbers: Any, key: str, limit: float, count: int | None = None) -> None:
    assert ours.numel() == int(np.prod(numbers[f"{key}.shape"])), f"{key}: {tuple(ours.shape)}"
    found = ours.detach().double().numpy()
    found = sample(found) if count is None else sample(found, count)
    wanted = numbers[key]
    largest = np.abs(wanted).max() or 1.0
    assert np.abs(found - wanted).max() <= limit * largest, key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients(name: str, dtype: torch.dtype) -> None:
    module, spec, numbers = released(name, dtype)
    limit = FLOAT32 if dtype is torch.float32 else FLOAT64
    steps = inputs(spec, dtype, ["input", "input.1", "input.2"])
    for step in steps:
        step.requires_grad_()
    out = module(torch.stack(steps, 1))
    close(out, numbers, "out.0", limit)
    if dtype is torch.float32:
        return  # rounding decides a float32 gradient behind a ReLU
    cotangent = 2 * uniform("cotangent.0", tuple(out.shape)) - 1
    (out * torch.from_numpy(cotangent).to(dtype)).sum().backward()
    for number, step in enumerate(steps):
        gradient = torch.zeros_like(step) if step.grad is None else step.grad
        close(gradient, numbers, f"grad.{number}", limit)


@pytest.mark.parametrize("name", NAMES)
def test_prepared_steps_give_the_same(name: str) -> None:
    module, spec, numbers = released(name, torch.float64)
    steps = inputs(spec, torch.float64, ["input", "input.1", "input.2"])
    with torch.no_grad():
        close(module.fuse([module.prepare(step) for step in steps]), numbers, "out.0", FLOAT64)


@pytest.mark.parametrize("name", NAMES)
def test_one_direction_and_sequences(name: str) -> None:
    module, spec, numbers = released(name, torch.float64)
    previous, current, following = inputs(spec, torch.float64, ["input", "input.1", "input.2"])
    count = spec["samples_of_extra_tensors"]
    with torch.no_grad():
        forward = module.forward_net(torch.stack([previous, current], 1))
        close(forward, numbers, "forward.out", FLOAT64, count)
        reverse = module.reverse_net(torch.stack([following, current], 1))
        close(reverse, numbers, "reverse.out", FLOAT64, count)
        for length in (1, 2, 5):
            steps = inputs(spec, torch.float64, [f"sequence.{t}" for t in range(length)])
            close(
                module.forward_net(torch.stack(steps, 1)),
                numbers,
                f"sequence{length}.out",
                FLOAT64,
                count,
            )


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("s4")])
def test_states(name: str) -> None:
    module, spec, numbers = released(name, torch.float64)
    steps = inputs(spec, torch.float64, ["input", "input.1", "input.2"])
    keys = [k for k in numbers.files if k.startswith("forward.") and not k.endswith(".shape")]
    layers = len(spec["settings"]["hidden_channels"])
    for key in keys:
        *layer, leaf = key.removeprefix("forward.").split(".")
        ours = OURS.get(leaf, leaf)
        timed = ours in {"i", "f", "o", "g", "c", "h"} or spec["module"] == "LSTMLayer"
        if ours == "output":
            timed = False
        if timed:
            ours = f"{layer[0] if layer else f'layer{layers - 1}'}.{ours}"
        (found,) = module.states(torch.stack(steps, 1), [f"forward.{ours}"]).values()
        value = found[:, -1] if timed else found
        close(value, numbers, key, FLOAT64, spec["samples_of_extra_tensors"])
    assert len(keys) >= 11


def test_the_fill_is_the_one_of_the_files() -> None:
    spec = json.loads((FOLDER / "sa-lstm.json").read_text())
    name, shape = spec["state_dict"][0]
    module, _, _ = released("sa-lstm", torch.float32)
    own = module.state_dict()[module_name(module, name)]
    assert torch.equal(own, torch.from_numpy(fill(name, tuple(shape))))


def module_name(module: BothSides, released_name: str) -> str:
    (ours,) = [k for k, v in module.released_names().tensors.items() if v == released_name]
    return ours
