"""Compares our networks with the reference files: the same for each file, with the settings of the
JSON beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from segweave.author_weights import LoadReport, load_released
from segweave.networks.base import Feedback, Output, mask_of
from tests.reference.fill import calibrate, fill, filled_state_dict, image, sample, uniform

FOLDER = Path(__file__).resolve().parent.parent / "reference" / "networks"


Build = Callable[[dict[str, Any]], nn.Module]
"""The JSON of a reference file → our network with the same settings."""

Outputs = Callable[[Output, dict[str, Any]], Sequence[Tensor]]
"""Our output and the JSON → what `out.0`, `out.1`, ... of the file hold, in that order."""


def one_output(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    """The logits, or the probabilities where the file says so."""
    with_sigmoid = "probabilities" in json.dumps(spec["outputs"])
    return [output.logits.sigmoid() if with_sigmoid else output.logits]


def read_spec(name: str) -> dict[str, Any]:
    """The JSON of a reference file."""
    spec: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return spec


def files_of(*names: str) -> list[str]:
    """The reference files of these names that are here, other sizes (`NAME@64x96`) included."""
    return [
        file.stem for file in sorted(FOLDER.glob("*.json")) if file.stem.partition("@")[0] in names
    ]


class _NoStartValues(TorchFunctionMode):
    """Leave out the drawing of start values."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_", "erfinv_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def matched(name: str, build: Build) -> tuple[nn.Module, LoadReport]:
    """Our network for a reference file and how names and shapes fit; neither holds numbers."""
    spec = read_spec(name)
    with torch.device("meta"):
        network = build(spec)
        listed = [*spec["state_dict"], *spec.get("fixed_buffers", ())]
        weights = {tensor: torch.empty(tuple(shape)) for tensor, shape in listed}
    return network, load_released(network, weights)


def built(name: str, build: Build) -> tuple[nn.Module, LoadReport]:
    """Our network for a reference file, filled by released names."""
    spec = read_spec(name)
    with _NoStartValues():  # every parameter gets the file's numbers
        network = build(spec)
    names = network.released_names()
    drawn = {key for key, _ in network.named_parameters(remove_duplicate=False)}
    assert drawn <= {*names.tensors, *names.stacked}
    weights = {k: torch.as_tensor(v) for k, v in filled_state_dict(FOLDER / f"{name}.json").items()}
    # Tables that the released code computes are in its files too; what they hold must not matter.
    for table, shape in spec.get("fixed_buffers", ()):
        weights[table] = torch.as_tensor(fill(table, tuple(shape)))
    return network, load_released(network, weights)


def inputs_of(name: str, dtype: torch.dtype) -> list[Tensor]:
    """The inputs that the JSON describes."""
    spec = read_spec(name)
    tensors = []
    for entry in spec["inputs"]:
        text, shape = (
            (entry["fill"], entry["shape"])
            if isinstance(entry, dict)
            else (entry, spec["input_shape"])
        )
        if "uniform(" in text:
            continue  # Numbers that the network holds, which `build` gives.
        written = re.search(r"image\((\([\d, ]+\)),", text)
        shape = json.loads(f"[{written[1][1:-1]}]") if written else shape
        boxes = re.search(r"boxes .*pixels: (\[\[.*?\]\])", text)
        points = re.search(r"points .*image: (\[\[\[.*?\]\]\]); labels (\[\[.*?\]\])", text)
        if boxes or points:
            numbers = [boxes[1]] if boxes else [points[1], points[2]]
            tensors += [torch.tensor(json.loads(one), dtype=dtype) for one in numbers]
            continue
        called = re.search(r"""["'](.+?)["']""", text)
        values = torch.as_tensor(image(tuple(shape), called[1] if called else "input"))
        tensors.append(
            (values > 0 if text.startswith("mask") and not written else values).to(dtype)
        )
    return tensors


class Passes(nn.Module):
    """A network run as a reference file was made, with the file's inputs: on one image; on the
    slices of a window; or, where it reads its earlier mask, on image and first mask, `count` times.
    The auxiliary outputs are computed if `auxiliary`, for the statistics of their batch norms too.
    """

    def __init__(self, network: nn.Module, count: int, *, auxiliary: bool) -> None:
        super().__init__()
        self.network, self.count, self.auxiliary = network, count, auxiliary

    def forward(self, *inputs: Tensor) -> list[Output]:
        auxiliary = self.auxiliary
        feedback: Feedback | None = getattr(self.network, "feedback", None)
        if feedback is None:
            x = torch.stack(inputs, 1) if len(inputs) > 1 else inputs[0]
            return [self.network(x, auxiliary=auxiliary)]
        x, mask = inputs
        outputs: list[Output] = []
        for _ in range(self.count):
            if outputs:
                mask = mask_of(outputs[-1], exclusive=False)
            outputs.append(self.network(x, auxiliary=auxiliary, **{feedback.name: mask}))
        return outputs


class Agreement:
    """One reference file run in one precision; `error(key)` is the largest difference from the
    released code's float64 result, relative to the largest value of that.

    Gradients are compared in float64 only: in float32 rounding switches single ReLUs, and the
    gradient jumps by an amount that depends on the processor.

    Args:
        name: the reference file.
        build: how ours is made.
        dtype: the precision.
        gradients: whether to compare the gradients of the inputs too.
        outputs: which of our tensors are the file's outputs.
        auxiliary: whether these need the auxiliary outputs.
        passes: how often a network that reads its earlier mask is run.
    """

    def __init__(
        self,
        name: str,
        build: Build,
        dtype: torch.dtype,
        *,
        gradients: bool = False,
        outputs: Outputs = one_output,
        auxiliary: bool = False,
        passes: int = 1,
    ) -> None:
        assert dtype is torch.float64 or not gradients
        self.spec = read_spec(name)
        self.reference = dict(np.load(FOLDER / f"{name}.npz"))
        self.dtype = dtype
        network, self.report = built(name, build)
        # Only the gradients of the inputs are compared; those of the weights would cost as much.
        self.network = network.to(dtype).requires_grad_(False)
        run = Passes(self.network, passes, auxiliary=auxiliary)
        inputs = inputs_of(name, dtype)
        window = len(inputs) > 1 and getattr(network, "feedback", None) is None
        # Of a whole model the shared network sees three slices; with momentum 1 the statistics of
        # the last one remain.
        calibrate(*((network.network, inputs[-1]) if window else (run, *inputs)))
        network.eval()
        if gradients and window:
            # Run again in the backward pass: three slices' maps at 224×224 would fill 8 GB.
            network.network.forward = partial(
                checkpoint, network.network.forward, use_reentrant=False
            )
        read = [f"grad64.{i}" in self.reference for i in range(len(inputs))]
        for tensor, has_gradient in zip(inputs, read, strict=True):
            tensor.requires_grad_(gradients and has_gradient)
        with torch.set_grad_enabled(gradients):
            results = [result for output in run(*inputs) for result in outputs(output, self.spec)]
        self.values = {f"out.{k}": result.detach() for k, result in enumerate(results)}
        if gradients:
            total = torch.zeros((), dtype=dtype)
            for k, result in enumerate(results):
                cotangent = 2 * uniform(f"cotangent.{k}", tuple(result.shape)) - 1
                total = total + (result * torch.as_tensor(cotangent).to(dtype)).sum()
            total.backward()
            for i, tensor in enumerate(inputs):
                if tensor.requires_grad:
                    assert tensor.grad is not None
                    self.values[f"grad.{i}"] = tensor.grad

    def error(self, key: str) -> float:
        """Of "out.0", "grad.0", ...: max |ours - reference| / max |reference|."""
        kind, _, number = key.partition(".")
        value = self.values[key]
        assert tuple(value.shape) == tuple(self.reference[f"{key}.shape"])
        reference = self.reference[f"{kind}64.{number}"].astype(np.float64)
        ours = sample(value.numpy()).astype(np.float64)
        return float(np.abs(ours - reference).max() / np.abs(reference).max())

    def allowed(self) -> float:
        """1e-5 in float64, what the reference files allow; in float32 a bound from the network.

        A layer that sums K products rounds to a relative error of about √K · u, with u = 2⁻²⁴ (the
        probabilistic bound of Higham and Mary, SIAM Journal on Scientific Computing 41, 2019): it
        acts as a change of the layer's input by that much. The file's `sensitivity` S is how
        much a relative change of the image is amplified on the way to the output; later layers
        amplify less. The errors of L layers are independent and add in squares: √(L · K) · u · S,
        with the largest K. Neither the order of the sums nor the processor is in it. Sums in
        bfloat16 (u = 2⁻⁹) break it by four orders of magnitude.
        """
        if self.dtype is torch.float64:
            return 1e-5
        weights = [getattr(module, "weight", None) for module in self.network.modules()]
        products = [w[0].numel() for w in weights if isinstance(w, Tensor)]
        rounding = float(np.sqrt(len(products) * max(products)) * 2.0**-24)
        return rounding * float(self.spec["sensitivity"])

    def assert_agrees(self) -> None:
        """All outputs and gradients that were computed agree with the reference."""
        errors = {key: (self.error(key), self.allowed()) for key in self.values}
        assert all(error <= allowed for error, allowed in errors.values()), errors
