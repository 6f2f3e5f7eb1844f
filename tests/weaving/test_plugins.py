"""A user's network and context module, each one file: woven at every position, trained and used for
prediction by the command.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segweave.cli import main
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.registry import register_plugin
from segweave.weaving import POSITIONS, volume_outputs, weave
from tests.small import make_store, write_volume
from tests.weaving.toy import settle

NETWORK = '''
"""One convolution down, one up."""

from torch import nn

from segweave.networks import Decoded, Features, Output, SegmentationNetwork
from segweave.registry import NetworkCard

CARD = NetworkCard(name="plug-network", title="Two levels", entry="Small", divisor=2, smallest=4)


class Small(SegmentationNetwork):
    def __init__(self, in_channels: int, classes: int, width: int = 4) -> None:
        super().__init__()
        self.down = nn.Conv2d(in_channels, width, 2, stride=2)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.last = nn.Conv2d(width, classes, 1)
        self.channels = {
            "skips": (in_channels,), "bottleneck": (width,), "decoder": (width,),
            "output": (classes,),
        }
        self.stride = self.divisor = 2
        self.in_channels, self.classes, self.smallest = in_channels, classes, 4

    def encode(self, x, **inputs):
        self.check_image(x, **inputs)
        return Features((x,), self.down(x).relu(), {})

    def decode(self, features):
        return Decoded(self.up(features.bottleneck).relu() + features.skips[0], {})

    def head(self, decoded, size, auxiliary):
        return Output(self.last(decoded.map), {})
'''

CONTEXT = '''
"""A learned weight for each step."""

import torch
from torch import nn

from segweave.context import ContextModule
from segweave.registry import ContextCard

CARD = ContextCard(name="plug-context", title="Weighted sum of the steps", entry="Weights")


class Weights(ContextModule):
    def __init__(self, channels: int, *, out_channels: int | None = None, gain: float = 1.0):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels
        self.gain = gain
        self.mix = nn.Conv2d(channels, self.out_channels, 1)

    def prepare(self, step):
        return {"mixed": self.mix(step)}

    def fuse(self, prepared):
        maps = [step["mixed"] * (t + 1) for t, step in enumerate(prepared)]
        return self.gain * torch.stack(maps).sum(0)
'''


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    network, context = tmp_path / "plug_network.py", tmp_path / "plug_context.py"
    network.write_text(NETWORK)
    context.write_text(CONTEXT)
    return network, context


@pytest.mark.parametrize("at", [*POSITIONS, "down"])
@pytest.mark.parametrize("slices", [1, 3])
def test_woven_at_every_position(files: tuple[Path, Path], at: str, slices: int) -> None:
    assert [register_plugin(file) for file in files] == [["plug-network"], ["plug-context"]]
    torch.manual_seed(0)
    network = create_network("plug-network", in_channels=1, classes=2)
    woven = settle(weave(network, "plug-context", at=at, slices=slices))
    assert woven.parameters_added > 0
    volume = torch.rand(3, 1, 1, 8, 8, dtype=torch.float64)

    def indices(index: int) -> list[int]:
        around = range(index - slices // 2, index + slices // 2 + 1)
        return [min(max(i, 0), 2) for i in around]

    outputs = volume_outputs(woven, 3, lambda i: volume[i], indices)
    for index, output in enumerate(outputs):
        window = torch.stack([volume[i] for i in indices(index)], 1)
        torch.testing.assert_close(output.logits, woven(window).logits, rtol=1e-9, atol=1e-12)


def test_options_of_a_plugin_are_checked(files: tuple[Path, Path]) -> None:
    register_plugin(files[1])
    network = create_network("unet", in_channels=1, classes=2, width=2)
    woven = weave(network, "plug-context", context_options={"gain": 2.0})
    assert woven.context[0].forward_net.gain == 2.0
    with pytest.raises(UsageError, match="did you mean gain"):
        weave(network, "plug-context", context_options={"gian": 2.0})


def test_the_command_trains_and_predicts(files: tuple[Path, Path], tmp_path: Path) -> None:
    store = make_store(tmp_path, 4)
    plugins = [word for file in files for word in ("--plugin", str(file))]
    settings = [
        "training.epochs=1",
        "input.size=[32,32]",
        "input.slices=3",
        "network={name: plug-network}",
        "context={name: plug-context, options: {gain: 0.5}}",
        "weaving.at=bottleneck",
    ]
    sets = [word for setting in settings for word in ("--set", setting)]
    run = tmp_path / "run"
    train = ["train", "demo", "--store", str(store), "--out", str(run), "--device", "cpu"]
    image = write_volume(tmp_path / "image.nii.gz")
    for arguments in (
        [*plugins, *train, *sets],
        [*plugins, "predict", str(run), str(image), "--out", str(tmp_path / "out")],
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code in (None, 0)
    assert "plug-context" in (run / "recipe.yaml").read_text()
    assert len(list((tmp_path / "out").glob("*.nii*"))) == 1
