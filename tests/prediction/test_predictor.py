"""Reading a model back, and telling what is wrong with a folder that is none."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.prediction import load, predict
from tests.prediction.tiny import recipe_of, unet, volume_case, write_model


@pytest.fixture
def run(tmp_path):
    return write_model(tmp_path / "run", unet("conv"), recipe_of("conv"))


def refused(folder, *words):
    with pytest.raises(InputError) as caught:
        load(folder)
    for word in words:
        assert word in str(caught.value), caught.value
    return caught.value


def test_a_run_and_its_model_folder_give_the_same_predictor(run):
    expected = predict(unet("conv"), volume_case(), probabilities=True).probabilities
    for folder in (run, run / "model"):
        predictor = load(folder, device="cpu")
        assert not predictor.network.training
        assert predictor.card["title"] == "unet + conv"
        found = predict(predictor, volume_case(), probabilities=True).probabilities
        np.testing.assert_array_equal(found, expected)


def test_the_recipe_may_lie_beside_the_card(run):
    card = json.loads((run / "model/card.json").read_text())
    (run / "recipe.yaml").write_text(json.dumps(card.pop("recipe")))
    (run / "model/card.json").write_text(json.dumps(card))
    assert load(run).input.slices == 3
    (run / "recipe.yaml").unlink()
    refused(run, "recipe")


def test_pretrained_weights_of_the_recipe_are_not_looked_for(run):
    card = json.loads((run / "model/card.json").read_text())
    card["recipe"]["network"]["pretrained"] = "/nowhere/weights.pth"
    (run / "model/card.json").write_text(json.dumps(card))
    load(run)


def test_weights_of_another_network_name_the_tensors(run, tmp_path):
    other = TargetSpec(names=("a", "b"))
    write_model(tmp_path / "other", unet("mean", target=other), recipe_of("mean"))
    weights = tmp_path / "other/model/weights.safetensors"
    (run / "model/weights.safetensors").write_bytes(weights.read_bytes())
    text = str(refused(run, "belong to another network", "unet + conv"))
    assert "is missing" in text or "not 3" in text
    assert "context.0" in text or "network." in text


def test_the_same_network_with_other_weights_is_noticed(run):
    file = run / "model/weights.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name] = weights[name] + 1
    save_file(weights, file)
    refused(run, "sha256", str(file))


def test_weights_that_are_not_finite(run):
    file = run / "model/weights.safetensors"
    weights = load_file(file)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, file)
    refused(run, "NaN", name)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(run, capsys):
    (run / "model/weights.safetensors").write_bytes(pickle.dumps(Evil()))
    refused(run, "weights.safetensors")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_truncated_weights(run, share):
    file = run / "model/weights.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refused(run, "weights")


def test_missing_parts(run, tmp_path):
    refused(tmp_path / "nowhere", "nothing there")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "an empty folder", "segweave train --out")
    refused(run / "model/card.json", "a file")
    (run / "model/weights.safetensors").unlink()
    refused(run, "weights")
    (run / "model/card.json").unlink()
    (run / "recipe.yaml").write_text("")
    refused(run, "a run that has not ended", "train again")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, ("a model card", "format 99")),
        ({"format": None}, ("format number",)),
        ({"input": {"sise": [4, 4]}}, ("input.sise", "size")),
        ({"target": {"names": []}}, ("target.names",)),
        ({"recipe": {"network": {"name": "unet"}}}, ("training",)),
    ],
)
def test_a_card_that_cannot_be_used(run, change, words):
    card = json.loads((run / "model/card.json").read_text()) | change
    (run / "model/card.json").write_text(json.dumps(card))
    refused(run, "card.json", *words)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_card(run, text):
    (run / "model/card.json").write_text(text)
    refused(run, "card.json")


def test_a_device_that_is_none(run):
    with pytest.raises(UsageError, match="device"):
        load(run, device="gpu")
