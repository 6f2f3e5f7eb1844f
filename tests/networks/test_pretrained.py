"""Start values from elsewhere: each tensor is loaded, missing or unused, and nothing is loaded from
a source that does not fit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segweave import create_network
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.networks import SegmentationNetwork
from segweave.networks.pretrained import load_pretrained
from segweave.weaving import weave

timm = pytest.importorskip("timm")
BACKBONE = "test_efficientnet"


def network(**options: Any) -> SegmentationNetwork:
    return create_network("timm-unet", encoder=BACKBONE, decoder_channels=(8, 8, 8, 8), **options)


def classifier() -> dict[str, Tensor]:
    """What timm would download: the whole classifier, with the features at its start."""
    torch.manual_seed(5)
    state: dict[str, Tensor] = timm.create_model(BACKBONE).state_dict()
    return {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in state.items()}


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def assert_accounted(filled: SegmentationNetwork, source: dict[str, Tensor]) -> None:
    report = filled.pretrained
    assert report is not None
    assert sorted((*report.loaded, *report.missing)) == sorted(filled.state_dict())
    assert len(report.loaded) + len(report.unused) == len(source)
    assert set(report.unused) <= set(source)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_backbone_is_filled_by_name(tmp_path: Path, ending: str) -> None:
    state = classifier()
    filled = network(pretrained=f"imagenet:{saved(tmp_path / f'w.{ending}', state)}")
    assert_accounted(filled, state)
    assert filled.pretrained is not None
    assert all(name.startswith("encoder.") for name in filled.pretrained.loaded)
    assert not any(name.startswith("encoder.") for name in filled.pretrained.missing)
    assert "classifier.weight" in filled.pretrained.unused
    for name, value in filled.encoder.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_backbone_is_filled_in_order_where_names_differ(tmp_path: Path) -> None:
    state = classifier()
    other = {
        f"module._{i}.{name.rpartition('.')[2]}": t for i, (name, t) in enumerate(state.items())
    }
    filled = network(pretrained=f"imagenet:{saved(tmp_path / 'w.pth', other)}")
    assert_accounted(filled, other)
    for name, value in filled.encoder.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_of_a_backbone_given_as_those_of_the_network_are_recognised(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.pth", classifier())
    with pytest.raises(InputError, match=f"pretrained='imagenet:{file}'"):
        network(pretrained=str(file))
    own = saved(tmp_path / "own.pth", network().state_dict() | {"further": torch.ones(1)})
    with pytest.raises(InputError, match="the network and the options"):
        network(pretrained=str(own))


def test_the_counters_of_batch_norms_may_be_absent(tmp_path: Path) -> None:
    state = {k: v for k, v in classifier().items() if not k.endswith("num_batches_tracked")}
    filled = network(pretrained=f"imagenet:{saved(tmp_path / 'w.pth', state)}")
    assert_accounted(filled, state)
    assert filled.pretrained is not None
    assert "encoder.bn1.num_batches_tracked" in filled.pretrained.missing


@pytest.mark.parametrize("in_channels", [1, 2, 6])
def test_the_first_convolution_is_adapted_to_the_channels(tmp_path: Path, in_channels: int) -> None:
    state = classifier()
    file = saved(tmp_path / "w.pth", state)
    filled = network(pretrained=f"imagenet:{file}", in_channels=in_channels)
    first = next(iter(filled.encoder.parameters()))
    assert first.shape[1] == in_channels
    original = next(iter(state.values()))
    if in_channels == 1:
        assert torch.allclose(first[:, 0], original.sum(1))
    else:
        for channel in range(in_channels):
            expected = original[:, channel % 3] * 3 / in_channels
            assert torch.allclose(first[:, channel], expected)


def test_shapes_that_differ_change_nothing(tmp_path: Path) -> None:
    state = classifier()
    key = "blocks.1.0.conv_pwl.weight"
    assert key in state
    filled = network()
    before = {name: tensor.clone() for name, tensor in filled.state_dict().items()}
    for wrong in ({**state, key: torch.zeros(3, 3, 1, 1)}, dict(list(state.items())[:20])):
        with pytest.raises(InputError, match="under its names or in its order"):
            load_pretrained(filled, f"imagenet:{saved(tmp_path / 'w.pth', wrong)}")
    assert all(torch.equal(tensor, before[name]) for name, tensor in filled.state_dict().items())


def test_a_file_that_the_card_lists_is_checked(tmp_path: Path) -> None:
    file = saved(tmp_path / "listed.pth", classifier())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    listed = {"source": "https://example.org/listed.pth", "sha256": digest}
    load_pretrained(network(), f"imagenet:{file}", listed=[listed])
    with pytest.raises(InputError, match="sha256"):
        load_pretrained(network(), f"imagenet:{file}", listed=[{**listed, "sha256": "0" * 64}])
    renamed = file.rename(tmp_path / "mine.pth")
    load_pretrained(network(), f"imagenet:{renamed}", listed=[{**listed, "sha256": "0" * 64}])


def test_imagenet_asks_timm_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    state = classifier()
    asked = []

    def create_model(name: str, pretrained: bool = False) -> torch.nn.Module:
        asked.append((name, pretrained))
        model: torch.nn.Module = original(name)
        model.load_state_dict(state)
        return model

    filled = network()
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    report = load_pretrained(filled, "imagenet")
    assert asked == [(BACKBONE, True)]
    assert len(report.loaded) == len(filled.encoder.state_dict())
    assert torch.equal(filled.encoder.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


def test_without_a_connection_the_remedy_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = network()

    def create_model(name: str, pretrained: bool = False) -> torch.nn.Module:
        raise OSError("cannot reach the hub\nand a long trace")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(SegweaveError, match="imagenet:FILE") as raised:
        load_pretrained(filled, "imagenet")
    assert "cannot reach the hub" in str(raised.value)
    assert "long trace" not in str(raised.value)


def test_a_network_without_a_backbone_has_no_imagenet_weights(tmp_path: Path) -> None:
    for pretrained in ("imagenet", f"imagenet:{tmp_path / 'w.pth'}"):
        with pytest.raises(UsageError, match="timm-unet"):
            create_network("unet", width=2, pretrained=pretrained)


def test_a_backbone_that_timm_lacks_needs_a_file(tmp_path: Path) -> None:
    filled = network()
    filled.backbones = {"encoder": None}
    with pytest.raises(UsageError, match="imagenet:FILE"):
        load_pretrained(filled, "imagenet")
    load_pretrained(filled, f"imagenet:{saved(tmp_path / 'w.pth', classifier())}")


def test_several_backbones_each_take_a_file(tmp_path: Path) -> None:
    filled = network()
    filled.second = network().encoder
    filled.backbones = {"encoder": BACKBONE, "second": BACKBONE}
    first, second = classifier(), {k: v + 1 for k, v in classifier().items()}
    one = saved(tmp_path / "one.pth", first)
    two = saved(tmp_path / "two.pth", second)
    report = load_pretrained(filled, f"imagenet:second={two},encoder={one}")
    assert len(report.loaded) == 2 * len(filled.encoder.state_dict())
    assert torch.equal(filled.encoder.conv_stem.weight, first["conv_stem.weight"])
    assert torch.equal(filled.second.conv_stem.weight, second["conv_stem.weight"])
    for wrong in (f"{one}", f"encoder={one}", f"encoder={one},other={two}"):
        with pytest.raises(UsageError, match="encoder=FILE,second=FILE"):
            load_pretrained(filled, f"imagenet:{wrong}")


@pytest.mark.parametrize("at", ["bottleneck", "output", "encoder"])
@pytest.mark.parametrize("folder", ["model", "."])
def test_a_network_is_taken_from_a_run(tmp_path: Path, at: str, folder: str) -> None:
    trained = weave(create_network("unet", width=2, classes=2), "conv", at=at, slices=3)
    path = tmp_path / folder
    path.mkdir(exist_ok=True)
    state = trained.state_dict()
    saved(path / "weights.safetensors", state)
    filled = create_network("unet", width=2, classes=2, pretrained=tmp_path)
    assert_accounted(filled, state)
    assert filled.pretrained is not None
    assert filled.pretrained.missing == ()
    assert all(not name.startswith("network.") for name in filled.pretrained.unused)
    for name, value in filled.state_dict().items():
        assert torch.equal(value, state[f"network.{name}"])


def test_a_folder_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        create_network("unet", width=2, pretrained=tmp_path)


def test_another_network_is_refused_even_with_a_new_head(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", create_network("unet", width=4).state_dict())
    for new_head in (False, True):
        with pytest.raises(InputError, match="encoder") as raised:
            create_network("unet", width=2, pretrained=file, new_head=new_head)
        assert "new_head" not in str(raised.value)


@pytest.mark.parametrize("classes", [1, 3])
def test_released_names_load_and_the_head_may_be_new(tmp_path: Path, classes: int) -> None:
    released = create_network("unet", width=2)
    state = released.state_dict()
    names = released.released_names().tensors
    theirs = {f"module.{names[ours]}": tensor for ours, tensor in state.items()}
    file = saved(tmp_path / "w.pth", theirs)
    filled = create_network(
        "unet", width=2, classes=classes, pretrained=file, new_head=classes != 1
    )
    assert_accounted(filled, theirs)
    assert filled.pretrained is not None
    head = {"classifier.weight", "classifier.bias"} if classes != 1 else set()
    assert set(filled.pretrained.missing) == head
    for name in filled.pretrained.loaded:
        assert torch.equal(filled.state_dict()[name], state[name])
    del theirs[f"module.{names['encoder.0.0.weight']}"]
    network = create_network("unet", width=2, classes=classes)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError, match=names["encoder.0.0.weight"]):
        load_pretrained(network, saved(file, theirs), head=lambda: head, new_head=classes != 1)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
