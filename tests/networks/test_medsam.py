"""SAM and MedSAM against the released numbers, and their rules."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segweave import registry
from segweave.author_weights import load_released, released_misfit
from segweave.errors import UsageError
from segweave.networks import create_network, first_inputs
from segweave.networks.medsam import MedSAM
from tests.networks.agreement import FOLDER, files_of, inputs_of, read_spec
from tests.reference.fill import filled_state_dict, sample, uniform

MAIN, PROMPTS = "medsam-vit-b", "medsam-vit-b@prompts"
TINY = registry.networks.card(MAIN).tiny_options


def build(name: str, **options: Any) -> MedSAM:
    """The network of a reference file, without numbers: it has 90 million."""
    spec = read_spec(name)
    chosen = {"classes": spec["outputs"][0]["shape"][1], "image_size": 256, **options}
    with torch.device("meta"):
        network = create_network(MAIN, **chosen)
    assert isinstance(network, MedSAM)
    return network


def tiny(**options: Any) -> MedSAM:
    torch.manual_seed(0)
    network = create_network(MAIN, **{**TINY, **options})
    assert isinstance(network, MedSAM)
    return network


def test_the_reference_files_are_here() -> None:
    assert set(files_of(MAIN)) == {MAIN, PROMPTS}


def assert_agrees(name: str, kind: str, number: int, value: Tensor) -> None:
    """Within 1e-5 of the largest value of a file's array."""
    file = np.load(FOLDER / f"{name}.npz")
    key = f"{kind}.{number}"
    assert tuple(value.shape) == tuple(file[f"{key}.shape"])
    reference = file[f"{kind}64.{number}"].astype(np.float64)
    error = np.abs(sample(value.detach().numpy()).astype(np.float64) - reference).max()
    assert error <= 1e-5 * np.abs(reference).max(), (name, key, error)


@pytest.mark.slow
def test_agrees_in_float64() -> None:
    # Both files have one image and one encoder, so that the embedding is computed once; for the
    # same reason of time the gradient is compared for the file with boxes alone.
    weights = {k: torch.as_tensor(v) for k, v in filled_state_dict(FOLDER / f"{MAIN}.json").items()}
    networks = []
    for name in (MAIN, PROMPTS):
        network = build(name)
        if networks:
            network.image_encoder = nn.Identity()
        network.to_empty(device="cpu")
        if networks:
            network.image_encoder = networks[0].image_encoder
        load_released(network, weights)
        networks.append(network.double().eval().requires_grad_(False))
    x = inputs_of(MAIN, torch.float64)[0].requires_grad_()
    boxes, points, labels, mask = inputs_of(PROMPTS, torch.float64)[1:]
    features = networks[0].encode(x, boxes=boxes)
    output = networks[0].head(networks[0].decode(features), (256, 256), True)
    results = [output.logits, output.auxiliary["overlap"], features.bottleneck]
    for k, result in enumerate(results):
        assert_agrees(MAIN, "out", k, result)
    prompts = {"boxes": boxes, "points": points, "point_labels": labels, "mask_prompt": mask}
    with torch.no_grad():
        decoded = networks[1].decode(features._replace(extra=prompts))
    assert_agrees(PROMPTS, "out", 0, networks[1].masks(decoded))
    assert_agrees(PROMPTS, "out", 1, decoded.extra["overlap"])
    cotangents = [
        torch.as_tensor(2 * uniform(f"cotangent.{k}", tuple(result.shape)) - 1)
        for k, result in enumerate(results)
    ]
    (gradient,) = torch.autograd.grad(results, x, cotangents)
    assert_agrees(MAIN, "grad", 0, gradient)


@pytest.mark.parametrize("name", [MAIN, PROMPTS])
@pytest.mark.parametrize("side", [256, 1024])
def test_the_released_names_and_shapes_are_complete(name: str, side: int) -> None:
    spec = read_spec(name)
    shapes = dict(spec["state_dict"])
    if side == 1024:
        larger = re.findall(r"(image_encoder\S+) \[([\d, ]+)\]", spec["state_dict_at_1024"])
        assert len(larger) == 9
        shapes |= {key: [int(n) for n in text.split(",")] for key, text in larger}
    network = build(name, image_size=side)
    file = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert not released_misfit(network, file)
    names = network.released_names()
    assert names.all == set(shapes)
    assert not names.fixed
    left_out = sum(file[key].numel() for key in names.dead)
    buffer = network.prompt_encoder.frequencies.numel()
    assert len(names.dead) == 6 * (3 if name == MAIN else 1)
    total = spec["parameters" if side == 256 else "parameters_at_1024"]
    assert sum(p.numel() for p in network.parameters()) + left_out == total
    assert sum(tensor.numel() for tensor in file.values()) == total + buffer


def test_the_prompt_encoder_is_not_trained() -> None:
    network = tiny()
    fixed = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert fixed == {name for name, _ in network.named_parameters() if "prompt_encoder" in name}


def test_the_box_decides_what_is_segmented() -> None:
    network = tiny().eval()
    x = torch.randn(2, 3, 32, 48)
    whole = network(x, **first_inputs(network, x)).logits
    box = torch.tensor([[4.0, 2, 20, 12]]).expand(2, 4)
    assert not torch.allclose(network(x, boxes=box).logits, whole)
    # Each image has its own.
    mixed = network(x, boxes=torch.stack([box[0], first_inputs(network, x)["boxes"][1]])).logits
    assert torch.allclose(mixed[0], network(x, boxes=box).logits[0], atol=1e-5)
    assert torch.allclose(mixed[1], whole[1], atol=1e-5)


def test_points_and_masks_are_prompts_too() -> None:
    network = tiny(classes=3).eval()
    x = torch.randn(2, 3, 32, 32)
    boxes = first_inputs(network, x)["boxes"]
    points, labels = torch.tensor([[[4.0, 5.0]]]).expand(2, 1, 2), torch.ones(2, 1)
    mask = torch.randn(2, 1, 8, 8)
    outputs = [
        network.segment(x, boxes=boxes),
        network.segment(x, points=points, point_labels=labels),
        network.segment(x, points=points, point_labels=0 * labels),
        network.segment(x, points=points, point_labels=labels, boxes=boxes),
        network.segment(x, boxes=boxes, mask_prompt=mask),
    ]
    for number, output in enumerate(outputs):
        assert output.logits.shape == (2, 3, 32, 32)
        assert output.auxiliary["overlap"].shape == (2, 3)
        assert not any(torch.allclose(output.logits, o.logits) for o in outputs[:number])
    assert torch.equal(outputs[0].logits, network(x, boxes=boxes).logits)
    for prompts in ({}, {"points": points}, {"mask_prompt": mask}, {"text": mask}):
        with pytest.raises(UsageError, match="boxes="):
            network.segment(x, **prompts)
    with pytest.raises(UsageError, match="mask_prompt of shape"):
        network.segment(x, boxes=boxes, mask_prompt=mask[..., :4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "divides width"),
        ({"channels": 12}, "channels that 8 divides"),
        ({"decoder_heads": 3}, "decoder_heads"),
        ({"image_size": 100}, "image_size"),
        ({"box_jitter": -1.0}, "box_jitter"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny(**options)


def test_position_tables_are_interpolated_for_other_sizes() -> None:
    network = tiny(image_size=(32, 64)).eval()
    for size in ((32, 64), (48, 16), (16, 16)):
        x = torch.randn(1, 3, *size)
        assert network(x, **first_inputs(network, x)).logits.shape == (1, 1, *size)
