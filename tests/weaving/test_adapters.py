"""Models of other libraries: woven with `identity` they stay what they are, at every position."""

from __future__ import annotations

import pytest
import torch

from segweave.errors import UsageError
from segweave.weaving import POSITIONS, weave
from segweave.weaving.adapters import SegmentationModel
from segweave.weaving.factory import adapted
from tests.weaving.toy import ToyNetwork, settle

WINDOW = torch.rand(
    1, 3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    return settle(
        smp.Unet("resnet18", encoder_weights=None, classes=2, decoder_channels=(16, 8, 8, 8, 8))
    )


@pytest.mark.parametrize("at", [*POSITIONS, "encoder.layer2"])
def test_a_smp_model_stays_itself_with_identity(unet: torch.nn.Module, at: str) -> None:
    made = weave(unet, "identity", at=at, channels=128 if "." in at else None).eval()
    with torch.no_grad():
        assert torch.equal(made(WINDOW).logits, unet(WINDOW[:, 1]))
    assert (made.in_channels, made.classes) == (3, 2)


@pytest.mark.parametrize("at", [*POSITIONS, "encoder.layer2"])
def test_a_smp_model_is_woven(unet: torch.nn.Module, at: str) -> None:
    made = weave(
        unet,
        "sa-lstm",
        at=at,
        channels=128 if "." in at else None,
        context_options={"kernel_size": 1},
    )
    made.double().eval()
    with torch.no_grad():
        found = made(WINDOW).logits
        apart = made.fuse([made.prepare(x) for x in WINDOW.unbind(1)]).logits
        bare = unet(WINDOW[:, 1])
    assert found.shape == bare.shape
    assert (found - apart).abs().max() <= 1e-9 * found.abs().max()
    assert not torch.allclose(found, bare)
    assert made.parameters_added > 0


def test_levels_without_channels_are_no_skips() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.FPN("mit_b0", encoder_weights=None, classes=2).eval()
    assert adapted(model).channels["skips"] == (32, 64, 160)
    made = weave(model, "identity", at="skips").eval()
    window = WINDOW.float()
    with torch.no_grad():
        assert torch.equal(made(window).logits, model(window[:, 1]))


def test_a_classification_head_becomes_an_auxiliary_output() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.Unet("resnet18", encoder_weights=None, classes=2, aux_params={"classes": 4})
    network = adapted(model.eval()).eval()
    image = WINDOW[:, 1].float()
    with torch.no_grad():
        assert network(image).auxiliary == {}
        labels = network(image, auxiliary=True).auxiliary["labels"]
        torch.testing.assert_close(labels, model(image)[1])


def test_a_model_with_an_activation_is_refused() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(UsageError, match="activation=None"):
        weave(smp.Unet("resnet18", encoder_weights=None, activation="sigmoid"), "identity")


def test_sizes_are_checked_where_the_model_needs_it(unet: torch.nn.Module) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    unfit = WINDOW[..., :40].float()
    with pytest.raises(UsageError, match="divisible by 16"):
        weave(smp.DeepLabV3Plus("resnet18", encoder_weights=None), "identity").eval()(unfit)
    with pytest.raises(UsageError, match="shape"):
        weave(unet, "identity").eval()(WINDOW[:, :, :2])


def test_networks_with_the_contract_are_left_alone() -> None:
    network = ToyNetwork()
    assert adapted(network) is network
    plain = torch.nn.Conv2d(1, 1, 1)
    assert adapted(plain) is plain
    assert not isinstance(adapted(plain), SegmentationModel)
