"""Files of the authors become model folders that every command takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import segweave
from segweave.author_weights import HasReleasedNames
from segweave.cli import main
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.networks import create_network
from segweave.runs.run_folder import Run
from segweave.weaving.author_models import released_model
from segweave.workflow.convert_weights import convert_weights
from tests.small import write_volume

HEART = TargetSpec(names=("background", "RV", "myocardium", "LV"))
SIZE = ("input.size=[32,32]",)


def theirs(module: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """The state dict of a module under the authors' names, with what no output depends on."""
    assert isinstance(module, HasReleasedNames)
    names = module.released_names()
    state = module.state_dict()
    tensors = {other: state[ours].clone() for ours, other in names.tensors.items()}
    tensors |= {name: torch.zeros(2) for name in (*names.dead, *names.fixed)}
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("under", [None, "state_dict"])
def test_a_network_alone(tmp_path: Path, prefix: str, under: str | None) -> None:
    torch.manual_seed(0)
    network = create_network("unet", in_channels=1, classes=4, width=2).eval()
    content = theirs(network, prefix)
    torch.save({under: content} if under else content, tmp_path / "unet.pth")
    sets = ["network.options.width=2", *SIZE]
    report = convert_weights(
        tmp_path / "unet.pth", tmp_path / "model", HEART, network="unet", sets=sets
    )
    assert len(report.matched) == len(network.state_dict())
    predictor = segweave.load(tmp_path / "model", device="cpu")
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(predictor.network(image).logits, network(image).logits)
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["converted_from"]["file"] == "unet.pth"
    assert str(tmp_path) not in json.dumps(card)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("salstm", "acdc-mt-unet-sa-lstm-published"),
        ("lstm-sa", "acdc-mt-unet-lstm-sa-published"),
        ("sa-embedded-lstm", "acdc-mt-unet-sa-embedded-lstm-published"),
    ],
)
def test_whole_released_models(tmp_path: Path, name: str, recipe: str) -> None:
    """The steps 3, 4, 7 and 8 of the authors' readme: here two commands."""
    torch.manual_seed(0)
    model = released_model(name, classes=4, width=2, attention_size=64 * 64).eval()
    torch.save(theirs(model), tmp_path / "best.pth")
    sets = [
        "network.options={classes: 2, width: 2}",
        "context.options.attention_size=4096",
        "input.size=[64,64]",
    ]
    report = convert_weights(
        tmp_path / "best.pth", tmp_path / "model", HEART, recipe=recipe, sets=sets
    )
    assert report.missing == report.unexpected == ()
    window = torch.randn(1, 3, 1, 64, 64)
    predictor = segweave.load(tmp_path / "model", device="cpu")
    assert torch.equal(predictor.network(window).logits, model(window).logits)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(
        theirs(create_network("unet", in_channels=1, classes=4, width=2)), tmp_path / "unet.pth"
    )
    command = ["convert-weights", str(tmp_path / "unet.pth"), "--network", "unet"]
    command += ["--classes", "right ventricle,myocardium,left ventricle"]
    command += ["--set", "network.options.width=2", "--set", SIZE[0]]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path / "model")])
    assert ended.value.code == 0
    return tmp_path / "model"


def test_every_command_takes_the_folder(
    made: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_volume(tmp_path / "scan.nii.gz")
    for words in (
        ["predict", str(model), str(scan), "--out", str(tmp_path / "labels"), "-q"],
        ["info", str(model)],
        ["evaluate", str(model), "--store", str(made / "store"), "-q", "--device", "cpu"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, capsys.readouterr().err
    run = Run(model)
    evaluation = next(run.layout.evaluations.glob("*/manifest.json"))
    assert json.loads(evaluation.read_text())["training_groups"] is None
    assert run.report is not None
    with pytest.raises(UsageError, match="--store"):
        segweave.evaluate(model, device="cpu")
    # Scored once, as a training's test cases.
    with pytest.raises(UsageError, match="second time"):
        segweave.evaluate(model, store=made / "store", device="cpu")


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    network = create_network("unet", in_channels=1, classes=4, width=2)
    content = theirs(network)
    left_out = [name for name in content if name.startswith("conv3.")]
    for name in left_out:
        del content[name]
    content["conv1.conv.0.weight"] = torch.zeros(1)
    content["of another model"] = torch.zeros(1)
    torch.save(content, tmp_path / "unet.pth")
    with pytest.raises(InputError) as caught:
        convert_weights(
            tmp_path / "unet.pth",
            tmp_path / "model",
            HEART,
            network="unet",
            sets=["network.options.width=2", *SIZE],
        )
    message = str(caught.value)
    assert all(f"{name} is missing" in message for name in left_out)
    assert "of another model is not part of it" in message
    assert "conv1.conv.0.weight is 1, not 2 × 1 × 3 × 3" in message
    assert not (tmp_path / "model").exists()


def test_wrong_use_is_refused(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "unet.pth"
    out = tmp_path / "other"
    for options in ({}, {"network": "unet", "recipe": "demo"}):
        with pytest.raises(UsageError, match="either"):
            convert_weights(file, out, HEART, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="empty folder"):
        convert_weights(file, model, HEART, network="unet")
    with pytest.raises(SegweaveError, match="did you mean unet"):
        convert_weights(file, out, HEART, network="unett")
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match="tensors alone"):
        convert_weights(tmp_path / "evil.pth", out, HEART, network="unet")
