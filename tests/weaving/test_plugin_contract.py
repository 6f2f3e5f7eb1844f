"""A user's context module that breaks the contract is refused with the name of its file and what
was expected, wherever it breaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segweave import create_context, create_network, weave
from segweave.cli import main
from segweave.errors import InputError, SegweaveError
from segweave.registry import register_plugin
from tests.weaving.toy import InPlace

HEAD = """
import torch
from torch import nn

from segweave.context import ContextModule
from segweave.registry import ContextCard

CARD = ContextCard(name="oops", title="A module with a fault", entry="Oops"{card})

"""
GOOD = """
class Oops(ContextModule):
    def __init__(self, channels, out_channels=None):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels
        self.mix = nn.Conv2d(channels, self.out_channels, 1)

    def prepare(self, step):
        return {"mixed": self.mix(step)}

    def fuse(self, prepared):
        return torch.stack([one["mixed"] for one in prepared]).sum(0)
"""


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


ALL_OF_INIT = GOOD[GOOD.index("        super()") : GOOD.index("    def prepare")]
CREATED = {
    "no channels": (
        changed("self.channels, self.out_channels = channels, out_channels or channels", "pass")
        .replace("self.out_channels, 1", "channels, 1"),
        "without channels, out_channels",
    ),
    "no out_channels": (
        changed("self.channels, self.out_channels = channels, out_channels or channels",
                "self.channels = channels").replace("self.out_channels, 1", "channels, 1"),
        "without out_channels",
    ),
    "other channels": (changed("out_channels = channels,", "out_channels = 2 * channels,"), "8"),
    "channels as text": (changed("out_channels = channels,", "out_channels = 'all',"), "'all'"),
    "AttributeError": (changed("super().__init__()", "self.width = channels.width"), "'width'"),
    "no super().__init__": (changed("super().__init__()", "pass"), r"AttributeError.*__init__"),
    "ValueError": (changed("super().__init__()", "raise ValueError('never')"), "never"),
    "no argument": (changed("self, channels, out_channels=None", "self, width"), "channels"),
    "no fuse": (GOOD[: GOOD.index("    def fuse")], "abstract.*fuse"),
    "no module": (f"class Oops:\n    def __init__(self, channels):\n{ALL_OF_INIT}"
                  .replace("super().__init__()", "out_channels = None"), "type Oops"),
    "a plain module": (GOOD.replace("(ContextModule)", "(nn.Module)"), "without both_sides, cur"),
    "a function": ("def Oops(channels):\n    return None\n", "type NoneType"),
    "a function that fails": ("def Oops(channels):\n    return channels.x\n", "AttributeError"),
    "another name": (GOOD.replace("class Oops", "class Ops"), "no such name"),
}  # fmt: skip
RUN = {
    "more channels": (changed(".sum(0)", ".sum(0).repeat(1, 2, 1, 1)"), r"\(1, 8, 8, 8\)"),
    "other size": (changed(".sum(0)", ".sum(0)[..., 1:]"), r"\(1, 4, 8, 7\)"),
    "three axes": (changed(".sum(0)", ".sum(0).flatten(2)"), r"\(1, 4, 64\)"),
    "a list": (changed("torch.stack([one", "list([one").replace(".sum(0)", ""), "found: list"),
    "prepares a tensor": (changed('{"mixed": self.mix(step)}', "self.mix(step)"), "found: Tensor"),
    "prepares numbers": (changed('{"mixed": self.mix(step)}', '{"n": 3}'), "'n' of the type int"),
}


def plugin(folder: Path, body: str, card: str = "") -> Path:
    path = folder / "oops_file.py"
    path.write_text(HEAD.replace("{card}", card) + body)
    return path


def refused(run: Callable[[], object], file: Path, words: str) -> None:
    with pytest.raises(SegweaveError, match=rf"(?s){words}") as error:
        run()
    assert str(file) in str(error.value)
    assert re.search("what to do|available:", str(error.value))


@pytest.mark.parametrize("kind", ["module", "ablation", "control"])
@pytest.mark.parametrize("both_sides", [False, True])
def test_one_that_keeps_the_contract(tmp_path: Path, kind: str, both_sides: bool) -> None:
    register_plugin(plugin(tmp_path, GOOD, f', kind="{kind}"'))
    module = create_context("oops", 4, both_sides=both_sides, out_channels=2)
    assert module(torch.rand(1, 3, 4, 8, 8)).shape == (1, 2, 8, 8)


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("fault", CREATED)
def test_faults_that_show_when_it_is_created(tmp_path: Path, fault: str, both_sides: bool) -> None:
    body, words = CREATED[fault]
    file = plugin(tmp_path, body)
    register_plugin(file)
    refused(lambda: create_context("oops", 4, both_sides=both_sides), file, words)
    network = create_network("unet", in_channels=1, classes=2, width=2, levels=2)
    slices = 3 if both_sides else 1
    refused(lambda: weave(network, "oops", at="bottleneck", slices=slices), file, ".")


@pytest.mark.parametrize("at", ["conv", "output", "bottleneck"])
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("fault", RUN)
def test_faults_that_show_when_it_runs(tmp_path: Path, fault: str, slices: int, at: str) -> None:
    body, words = RUN[fault]
    file = plugin(tmp_path, body)
    register_plugin(file)
    torch.manual_seed(0)
    if at == "bottleneck":
        network = create_network("unet", in_channels=1, classes=2, width=2, levels=2)
        made, side = weave(network, "oops", at=at, slices=slices), 16
    else:
        network = InPlace()
        network.classes = 4
        network.last = torch.nn.Conv2d(4, 4, 1)
        made, side = weave(network, "oops", at=at, slices=slices), 8
    window = torch.rand(1, slices, 1, side, side)

    def in_parts() -> Tensor:
        return made.fuse([made.prepare(image) for image in window.unbind(1)]).logits

    refused(lambda: made(window), file, words)
    refused(in_parts, file, words)


def test_tiles(tmp_path: Path) -> None:
    for fault in ("prepares a tensor", "three axes"):
        folder = tmp_path / fault.replace(" ", "-")
        folder.mkdir()
        file = plugin(folder, RUN[fault][0].replace("Oops(", "Oops("))
        text = file.read_text().replace('"oops"', f'"{folder.name}"')
        file.write_text(text)
        register_plugin(file)
        made = weave(InPlace(), folder.name, at="conv", slices=1, tiles=2)
        refused(lambda made=made: made(torch.rand(1, 1, 8, 8)), file, "expected")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (', kind="fancy"', "'module' or 'ablation' or 'control'"),
        (', kind="modul"', "did you mean module"),
        (', forms=("printed",)', "'paper' or 'released'"),
        (', forms="paper"', "a tuple of 'paper'"),
        (", kind=3", "found: 3"),
    ],
)
def test_a_card_with_a_choice_that_does_not_exist(tmp_path: Path, card: str, words: str) -> None:
    file = plugin(tmp_path, GOOD, card)
    refused(lambda: register_plugin(file), file, words)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("MetricCard", "better", "more"),
        ("MetricCard", "reads", "masks"),
        ("LossCard", "reads", "some"),
        ("AugmentationCard", "changes", "labels"),
        ("DatasetCard", "stack", "depth"),
        ("DatasetCard", "kind", "multiclass"),
        ("DatasetCard", "source", "file"),
        ("NetworkCard", "forms", ["print"]),
    ],
)
def test_choices_of_other_cards(tmp_path: Path, kind: str, field: str, value: object) -> None:
    file = tmp_path / "other.py"
    file.write_text(f"CARD = {kind}(name='x', title='t', entry='E', {field}={value!r})\n")
    refused(lambda: register_plugin(file), file, field)


def test_the_command_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin(tmp_path, GOOD, ', kind="fancy"')
    with pytest.raises(SystemExit) as end:
        main(["--plugin", str(file), "contexts"])
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert "oops_file.py" in text.replace("\n", "")
    assert "unexpected" not in text


def test_an_error_of_ours_stays_itself() -> None:
    with pytest.raises(SegweaveError) as error:
        create_context("sa-lstm", 4, heads=3)
    assert not isinstance(error.value, InputError)
