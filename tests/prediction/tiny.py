"""A network small enough for tests, its specs, and the folder that a training would leave."""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.prediction import Predictor
from segweave.recipes.build import build_network
from segweave.recipes.loading import parse_recipe
from tests.formats.test_nifti import affine_of

TARGET = TargetSpec(names=("background", "left", "right"))
BINARY = TargetSpec(kind="binary", names=("polyp",))
OVERLAPPING = TargetSpec(kind="overlapping", names=("disc", "cup"))
SPEC = InputSpec(size=(16, 16), slices=3)
RNG = np.random.default_rng(0)
VOLUME = RNG.normal(0, 1, (3, 16, 16)).astype(np.float32)


def save_nifti(path, volume, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine_of((1.5, 1.5, 8)) if affine is None else affine), path)
    return path


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with batch norm statistics that are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.5), (module.running_var, 0.5)):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return network.eval()


def recipe_of(context="conv", *, spec=SPEC, width=2, at="bottleneck"):
    values = {
        "network": {"name": "unet", "options": {"width": width}},
        "input": spec.model_dump(mode="json"),
        "training": {"epochs": 1},
        "weaving": {"at": at},
    }
    if context is not None:
        options = {"steps": spec.slices} if context == "conv" else {}
        values["context"] = {"name": context, "options": options}
    return parse_recipe(values)


def unet(context="conv", *, spec=SPEC, target=TARGET, at="bottleneck"):
    """A predictor with a real UNet of two channels and a context module."""
    recipe = recipe_of(context, spec=spec, at=at)
    network = build_network(recipe, len(spec.channels), target)
    return Predictor(trained(network), recipe.input, target)


def write_model(folder, predictor, recipe, **changes):
    """model/ of a run folder, as training leaves it."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    content = save({k: v.contiguous() for k, v in predictor.network.state_dict().items()})
    (model / "weights.safetensors").write_bytes(content)
    card = {
        "format": 1,
        "title": "unet + conv",
        "input": predictor.input.model_dump(mode="json"),
        "target": predictor.target.model_dump(mode="json"),
        "recipe": recipe.to_dict(),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    } | changes
    (model / "card.json").write_text(json.dumps(card))
    return folder


class ByBrightness(nn.Module):
    """Class 2 where the input is above 0.5, class 1 where it is above 0, else 0."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(50.0))

    def forward(self, x):
        x = x[:, :1] * self.slope
        return torch.cat([torch.zeros_like(x), x, 2 * x - 25], 1)


def by_brightness(size):
    """A predictor whose labels depend on the pixel's value alone."""
    return Predictor(ByBrightness(), InputSpec(size=size, slices=1), TARGET)


def volume_case(slices=5, height=18, width=14, channels=1, **more):
    image = np.random.default_rng(3).normal(100, 20, (slices, channels, height, width))
    return Case("case", "group", image.astype(np.float32), stack="space", **more)
