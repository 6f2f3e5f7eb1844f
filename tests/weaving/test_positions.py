"""What each position computes: against the steps written out by hand, and by counting calls."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segweave.context.identity import Identity
from segweave.context.mean import Mean
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.networks.base import Output
from segweave.weaving import POSITIONS, WovenNetwork, weave
from tests.weaving.toy import FeedbackNetwork, ToyNetwork, Weighted, one_sided, settle

PLACES = [*POSITIONS, "deep", "shallow.0"]


def woven(at: str, context=Weighted, **settings) -> WovenNetwork:
    torch.manual_seed(0)
    if at == "deep":
        settings["channels"] = 8
    # "replace" shows what the module gives, with nothing added.
    made = weave(ToyNetwork(), context, at=at, **{"join": "replace", **settings})
    settle(made)
    return made


def images(slices: int = 3, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, slices, 1, 8, 6, dtype=torch.float64, generator=generator)


def by_hand(made: WovenNetwork, window: torch.Tensor, current: int, at: str) -> torch.Tensor:
    """The woven network from its parts, every slice carried all the way."""
    net, module = made.network, made.context[0]
    features = [net.encode(x) for x in window.unbind(1)]
    decoded = [net.decode(f) for f in features]
    own = features[current]
    size = (8, 6)
    match at:
        case "bottleneck" | "deep":
            out = module(torch.stack([f.bottleneck for f in features], 1))
            return net.head(net.decode(own._replace(bottleneck=out)), size, False).logits
        case "skips":
            out = module(torch.stack([f.skips[0] for f in features], 1))
            return net.head(net.decode(own._replace(skips=(out,))), size, False).logits
        case "encoder":
            out = module(torch.stack([made.embedding(x) for x in window.unbind(1)], 1))
            joined = made.joining(torch.cat([own.bottleneck, out], 1))
            return net.head(net.decode(own._replace(bottleneck=joined)), size, False).logits
        case "decoder":
            out = module(torch.stack([d.map for d in decoded], 1))
            return net.head(decoded[current]._replace(map=out), size, False).logits
        case "output":
            return module(torch.stack([net.head(d, size, False).logits for d in decoded], 1))
        case "shallow.0":
            maps = [net.shallow[0](x) for x in window.unbind(1)]
            skip = net.shallow[1](module(torch.stack(maps, 1)))
            own = own._replace(skips=(skip,), bottleneck=net.deep(skip))
            return net.head(net.decode(own), size, False).logits
    raise AssertionError(at)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize(("context", "current"), [(Weighted, 1), (one_sided, 2)])
def test_position_equals_its_parts(at: str, context, current: int) -> None:
    made, window = woven(at, context), images()
    found = made(window)
    assert isinstance(found, Output)
    torch.testing.assert_close(
        found.logits, by_hand(made, window, current, at), rtol=1e-12, atol=1e-12
    )
    apart = made.fuse([made.prepare(x) for x in window.unbind(1)])
    torch.testing.assert_close(apart.logits, found.logits, rtol=1e-12, atol=1e-12)
    assert apart.auxiliary == found.auxiliary == {}
    found = made(window, auxiliary=True)
    apart = made.fuse([made.prepare(x) for x in window.unbind(1)], auxiliary=True)
    assert set(apart.auxiliary) == set(found.auxiliary) == {"inner"}
    torch.testing.assert_close(apart.auxiliary["inner"], found.auxiliary["inner"])
    torch.testing.assert_close(apart.logits, found.logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize("join", ["replace", "add"])
def test_identity_is_the_bare_network_bit_for_bit(at: str, tiles: int, join: str) -> None:
    slices = 1 if tiles > 1 else 3
    made = woven(
        at,
        lambda c: Identity(c, both_sides=slices > 1),
        slices=slices,
        tiles=tiles,
        join=join,
    )
    window = images(slices)
    bare = made.network(window[:, slices // 2], auxiliary=True)
    assert made.is_bare
    assert made.parameters_added == 0
    prepared = [made.prepare(x) for x in window.unbind(1)]
    for found in (made(window, auxiliary=True), made.fuse(prepared, auxiliary=True)):
        assert torch.equal(found.logits, bare.logits)
        assert torch.equal(found.auxiliary["inner"], bare.auxiliary["inner"])


@pytest.mark.parametrize(
    ("at", "calls"),
    [
        ("encoder", (1, 1, 1)),
        ("bottleneck", (3, 1, 1)),
        ("skips", (3, 1, 1)),
        ("decoder", (3, 3, 1)),
        ("output", (3, 3, 3)),
        ("deep", (3, 1, 1)),
        ("up", (3, 3, 1)),
    ],
)
def test_neighbours_run_no_further_than_needed(at: str, calls: tuple[int, int, int]) -> None:
    made = woven(at)
    made(images())
    assert tuple(made.network.calls.values()) == calls


def test_identity_leaves_neighbours_alone() -> None:
    made = woven("output", lambda c: Identity(c, both_sides=True))
    made(images())
    assert made.network.calls == {"encode": 1, "decode": 1, "head": 1}


@pytest.mark.parametrize("at", [p for p in PLACES if p != "encoder"])
def test_add_is_the_current_map_and_the_output(at: str) -> None:
    torch.manual_seed(0)
    added, window = woven(at, Mean, join="add"), images()
    doubled = woven(at, lambda c: MeanAndCurrent(c), join="replace")
    doubled.load_state_dict(added.state_dict())
    torch.testing.assert_close(added(window).logits, doubled(window).logits)
    assert not torch.allclose(added(window).logits, woven(at, Mean)(window).logits)


class MeanAndCurrent(Mean):
    """What join="add" makes of the mean, written into the module."""

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        return super().forward(sequence) + sequence[:, self.current(sequence.shape[1])]


@pytest.mark.parametrize("at", PLACES)
def test_gradients_reach_added_parameters_and_neighbours(at: str) -> None:
    made = woven(at)
    window = images().requires_grad_()
    made(window).logits.square().sum().backward()
    added = [p for name, p in made.named_parameters() if not name.startswith("network.")]
    assert sum(p.numel() for p in added) == made.parameters_added > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in added)
    assert all(window.grad[:, t].abs().sum() > 0 for t in range(3))


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("slices", [1, 3, 5])
def test_windows_of_any_odd_length(at: str, slices: int) -> None:
    made, window = woven(at, slices=slices), images(slices)
    found = made(window).logits
    assert found.shape == (2, 2, 8, 6)
    moved = window.clone()
    moved[:, 0] += 1  # the farthest slice counts
    assert not torch.allclose(made(moved).logits, found)


@pytest.mark.parametrize("at", PLACES)
def test_an_image_is_a_window_of_one(at: str) -> None:
    made, window = woven(at), images(1)
    torch.testing.assert_close(made(window[:, 0]).logits, made(window).logits)


@pytest.mark.parametrize("at", PLACES)
def test_auxiliary_outputs_come_in_training_or_when_asked_for(at: str) -> None:
    made, window = woven(at), images()
    assert made(window).auxiliary == {}
    assert set(made(window, auxiliary=True).auxiliary) == {"inner"}
    made.train()
    assert set(made(window).auxiliary) == {"inner"}
    assert made(window, auxiliary=False).auxiliary == {}


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("context", [Weighted, one_sided])
def test_sequences_are_what_the_modules_read(at: str, context) -> None:
    made, window = woven(at, context), images()
    read: list[torch.Tensor] = []
    for module in made.context:
        module.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    made(window)
    sequences = made.sequences(window)
    assert len(sequences) == len(made.context)
    for sequence, seen in zip(sequences, read, strict=True):
        assert sequence.shape[:2] == (2, 3)
        assert torch.equal(sequence, seen)
    assert made.sequences(window[:, 0])[0].shape[:2] == (2, 1)


def test_sequences_come_from_shallow_to_deep_and_with_identity_too() -> None:
    network = create_network("unet", in_channels=1, classes=2, width=2, levels=3).double().eval()
    window = torch.rand(1, 3, 1, 8, 8, dtype=torch.float64)
    for context in ("conv", "identity"):
        made = weave(network, context, at="skips").double().eval()
        skips = [network.encode(x).skips for x in window.unbind(1)]
        for level, sequence in enumerate(made.sequences(window)):
            assert torch.equal(sequence, torch.stack([s[level] for s in skips], 1))


@pytest.mark.parametrize("at", [*POSITIONS, "shallow"])
def test_each_slice_has_its_own_feedback_mask(at: str) -> None:
    torch.manual_seed(0)
    settings = {"channels": 4} if at == "shallow" else {}
    made = settle(weave(FeedbackNetwork(), Weighted, at=at, **settings))
    assert made.feedback is made.network.feedback
    window = images()
    masks = (torch.rand(2, 3, 1, 8, 6) > 0.5).double()
    found = made(window, mask=masks).logits
    slices = zip(window.unbind(1), masks.unbind(1), strict=True)
    prepared = [made.prepare(image, mask=mask) for image, mask in slices]
    torch.testing.assert_close(made.fuse(prepared).logits, found, rtol=1e-12, atol=1e-12)
    for index in range(3):
        other = masks.clone()
        other[:, index] = 1 - other[:, index]
        # At `encoder` a neighbour is its image alone.
        counts = at != "encoder" or index == 1
        assert torch.allclose(made(window, mask=other).logits, found) != counts
    assert made(window[:, 0], mask=masks[:, 0]).logits.shape == (2, 1, 8, 6)
    assert made.sequences(window, mask=masks)[0].shape[:2] == (2, 3)


def test_feedback_masks_that_do_not_fit_are_refused() -> None:
    made = settle(weave(FeedbackNetwork(), Weighted))
    window, masks = images(), torch.zeros(2, 3, 1, 8, 6, dtype=torch.float64)
    with pytest.raises(UsageError, match="the image and mask="):
        made(window)
    with pytest.raises(UsageError, match="the image and mask="):
        made.prepare(window[:, 0], masks=masks[:, 0])
    with pytest.raises(UsageError, match="one per slice"):
        made(window, mask=masks[:, 0])
    bare = woven("bottleneck")
    assert bare.feedback is None
    with pytest.raises(UsageError, match="the image alone"):
        bare(window, mask=masks)


def test_batch_norm_in_training_sees_one_slice_position_at_a_time() -> None:
    made, window = woven("bottleneck").train(), images()
    alone = ToyNetwork().double().train()
    alone.load_state_dict(made.network.state_dict())
    made(window)
    for x in window.unbind(1):
        alone.encode(x)
    torch.testing.assert_close(made.network.deep[1].running_mean, alone.deep[1].running_mean)


def test_state_dict_round_trip_and_names() -> None:
    first, second = woven("encoder"), weave(ToyNetwork(), Weighted, at="encoder").double().eval()
    assert not torch.allclose(first(images()).logits, second(images()).logits)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images()).logits, second(images()).logits)
    names = {name.split(".")[0] for name in first.state_dict()}
    assert names == {"network", "context", "embedding", "joining"}


def test_two_weavings_share_nothing_and_leave_the_network_as_it_was() -> None:
    network = settle(ToyNetwork())
    image = images(1)[:, 0]
    before, names = network(image).logits, list(network.state_dict())
    for at in PLACES:
        settings = {"channels": 8} if at == "deep" else {}
        weave(network, Weighted, at=at, **settings).double().eval()(images())
    assert torch.equal(network(image).logits, before)
    assert list(network.state_dict()) == names
    first, second = woven("skips"), woven("skips")
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not shared


def test_embedding_is_brought_to_the_size_of_the_bottleneck() -> None:
    class Rounding(ToyNetwork):
        """An encoder that rounds odd sizes up, where the embedding rounds down."""

    made = weave(Rounding(), Weighted, at="encoder").double().eval()
    window = torch.rand(1, 3, 1, 7, 9, dtype=torch.float64)
    own = made.network.encode(window[:, 1])
    beside = made.context[0](torch.stack([made.embedding(x) for x in window.unbind(1)], 1))
    assert beside.shape[-2:] == (3, 4)
    beside = F.interpolate(beside, size=(4, 5), mode="bilinear", align_corners=False)
    bottleneck = made.joining(torch.cat([own.bottleneck, beside], 1))
    expected = made.network.head(
        made.network.decode(own._replace(bottleneck=bottleneck)), (7, 9), False
    )
    torch.testing.assert_close(made(window).logits, expected.logits)


def test_wrong_channels_are_named() -> None:
    made = weave(ToyNetwork(), Weighted, at="deep", channels=5).double()
    with pytest.raises(UsageError, match=r"\[5\] channels"):
        made(images())


def test_networks_that_return_something_else() -> None:
    class Pair(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x), x

    made = weave(Pair(1, 2, 1), Weighted, at="output", channels=2)
    with pytest.raises(UsageError, match="tuple"):
        made(images().float())


def test_any_module_that_returns_logits() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Conv2d(3, 2, 1))
    window = images().float()
    for at in ("0", "output"):
        made = weave(network, Weighted, at=at, channels=3 if at == "0" else 2, classes=2)
        assert made(window).logits.shape == (2, 2, 8, 6)
        assert made.classes == 2
        with pytest.raises(UsageError, match="in_channels"):
            _ = made.in_channels
    expected = network[1](made_maps := made_mean(network, window))
    found = weave(network, Mean, at="0", join="replace")(window).logits
    torch.testing.assert_close(found, expected)
    assert made_maps.shape[1] == 3


def made_mean(network: torch.nn.Sequential, window: torch.Tensor) -> torch.Tensor:
    return torch.stack([network[0](x) for x in window.unbind(1)]).mean(0)
