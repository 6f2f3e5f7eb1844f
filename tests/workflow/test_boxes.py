"""Segment from a box: a phantom of two discs, of which the box chooses one, trained, scored and
predicted by the command and from Python.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import segweave
from segweave.cli import main
from segweave.data.batches import Batches
from segweave.data.boxes import mask_box
from segweave.data.cache import Resized
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import UsageError
from segweave.evaluation import summary_table
from segweave.formats import read_case
from segweave.networks import Prompt, create_network
from segweave.prediction import Ensemble, Predictor, Tiles
from segweave.recipes import Recipe, parse_recipe
from segweave.runs.run_folder import Run
from segweave.training.boxes import ReferenceBoxes

SIDE = 32
LEFT, RIGHT = slice(0, SIDE // 2), slice(SIDE // 2, SIDE)
OPTIONS = {
    "width": 32,
    "layers": 1,
    "heads": 2,
    "global_blocks": [0],
    "window": 2,
    "channels": 32,
    "decoder_heads": 2,
    "decoder_hidden": 64,
    "image_size": SIDE,
}


def discs(random: np.random.Generator) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """An image with two bright discs, and the mask of each, the left one first."""
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = [
        np.hypot(y - random.uniform(8, 24), x - column) < random.uniform(4, 6)
        for column in (random.uniform(7, 9), random.uniform(23, 25))
    ]
    image = 40 + 120 * (masks[0] | masks[1]) + random.normal(0, 5, (SIDE, SIDE))
    return image.clip(0, 255).astype(np.uint8), masks


def recipe(**training: object) -> Recipe:
    return parse_recipe(
        {
            "arm": "boxed",
            "network": {"name": "medsam-vit-b", "options": OPTIONS},
            "input": {"size": [SIDE, SIDE]},
            "training": {
                "steps": 150,
                "batch_size": 12,
                "optimiser": {"name": "adamw", "rate": 0.003},
                "augmentation": {"mirror": "both"},
                "validate_every": 1000,
                **training,
            },
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("boxes")
    random = np.random.default_rng(0)
    with StoreWriter(
        folder / "store", "discs", TargetSpec(kind="binary", names=("background", "disc"))
    ) as writer:
        ids = [f"d{number}" for number in range(38)]
        for id in ids:
            image, masks = discs(random)
            label = masks[int(random.integers(2))].astype(np.uint8)
            writer.add(Case(id, id, image[None, None], label=label[None], stack="single"))
        writer.finish({"toy": {"train": ids[:-4], "valid": ids[-4:-2], "test": ids[-2:]}})
    return segweave.train(recipe(), folder / "store", folder / "run", device="cpu")


@pytest.fixture
def picture(tmp_path: Path) -> tuple[Path, list[NDArray[np.bool_]]]:
    """A picture twice as wide as the network's images, and the masks of its discs."""
    image, masks = discs(np.random.default_rng(5))
    Image.fromarray(image).resize((2 * SIDE, SIDE), Image.Resampling.NEAREST).save(
        tmp_path / "a.png"
    )
    return tmp_path / "a.png", [mask.repeat(2, axis=1) for mask in masks]


def dice(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def words(box: NDArray[np.float64]) -> list[str]:
    return [f"{value:g}" for value in box]


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_the_mask_follows_the_box_from_python(
    run: Run, picture: tuple[Path, list[NDArray[np.bool_]]]
) -> None:
    file, masks = picture
    predictor = segweave.load(run.folder, device="cpu")
    case = read_case(file)
    for chosen, other in (masks, reversed(masks)):
        labels = segweave.predict(predictor, case, boxes=mask_box(chosen)).labels[0]
        assert dice(labels > 0, chosen) > 0.6
        assert dice(labels > 0, other) < 0.1
    both = Ensemble((predictor,), flips="both")
    labels = segweave.predict(both, case, boxes=mask_box(masks[0])).labels[0]
    assert dice(labels > 0, masks[0]) > 0.6
    with pytest.raises(UsageError, match="--box X0 Y0 X1 Y1"):
        segweave.predict(predictor, case)
    with pytest.raises(UsageError, match="tiles"):
        Ensemble((predictor,), tiles=Tiles((16, 16))).session()


def test_the_mask_follows_the_box_by_the_command(
    run: Run, picture: tuple[Path, list[NDArray[np.bool_]]], tmp_path: Path
) -> None:
    file, masks = picture
    boxes = [mask_box(mask) for mask in masks]
    predict = ("predict", run.folder, file, "--device", "cpu", "--out")
    assert command(*predict, tmp_path / "left", "--box", *words(boxes[0])) == 0
    table = tmp_path / "boxes.csv"
    table.write_text(f"case,x0,y0,x1,y1\na.png,{','.join(words(boxes[1]))}\n")
    assert command(*predict, tmp_path / "right", "--boxes", table) == 0
    for folder, mask, box in zip(("left", "right"), masks, boxes, strict=True):
        labels = np.asarray(Image.open(tmp_path / folder / "a.png")) > 0
        assert labels.shape == mask.shape
        assert dice(labels, mask) > 0.6
        (entry,) = json.loads((tmp_path / folder / "predictions.json").read_text())["cases"]
        assert entry["boxes"] == [[0, *box]]


def test_boxes_are_refused_or_asked_for(
    run: Run,
    picture: tuple[Path, list[NDArray[np.bool_]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, _ = picture
    predict = ("predict", run.folder, file, "--device", "cpu", "--out", tmp_path / "out")

    def message(*more: object) -> str:
        assert command(*predict, *more) == 2
        return " ".join(capsys.readouterr().err.split())

    assert "--box X0 Y0 X1 Y1" in message()
    assert "X0 ≤ X1" in message("--box", 9, 1, 2, 3)
    assert "64 columns (x) by 32 rows (y)" in message("--box", 0, 0, 70, 20)
    table = tmp_path / "boxes.csv"
    table.write_text("case,x0,y0,x1,y1\nb,1,1,5,5\n")
    assert "boxes for b" in message("--boxes", table)
    assert "both of them" in message("--boxes", table, "--box", 0, 0, 9, 9)
    assert command("networks", "medsam-vit-b") == 0
    assert "a box around what to segment" in " ".join(capsys.readouterr().out.split())
    assert not list(tmp_path.glob("out/*.png"))
    plain = create_network("unet", in_channels=1, width=2)
    target = TargetSpec(kind="binary", names=("background", "disc"))
    finds_by_itself = Predictor(plain, recipe().input, target)
    with pytest.raises(UsageError, match="no box"):
        segweave.predict(finds_by_itself, read_case(file), boxes=(0, 0, 9, 9))


def test_a_slice_without_a_box_is_background(run: Run) -> None:
    image, masks = discs(np.random.default_rng(5))
    volume = np.stack([image] * 4)[:, None]
    case = Case("v", "v", volume, stack="space", spacing=(5.0, 1.0, 1.0))
    predictor = segweave.load(run.folder, device="cpu")
    box = mask_box(masks[0])
    some = segweave.predict(predictor, case, boxes={1: box, 2: mask_box(masks[1])}).labels
    assert not some[[0, 3]].any()
    assert dice(some[1] > 0, masks[0]) > 0.6
    assert dice(some[2] > 0, masks[1]) > 0.6
    every = segweave.predict(predictor, case, boxes=box).labels
    assert all(np.array_equal(labels, some[1]) for labels in every)
    none = segweave.predict(predictor, case, boxes=np.full((4, 4), np.nan)).labels
    assert not none.any()


def test_scores_say_that_the_boxes_are_those_of_the_reference(run: Run) -> None:
    evaluation = segweave.evaluate(run, device="cpu")
    assert evaluation.manifest.prompt == "box"
    said = "boxed: boxes taken from the reference"
    assert said in summary_table([evaluation]).markdown()
    assert said in (run.folder / "evaluation" / "clean" / "manifest.json").read_text()
    assert "taken from the reference" in (run.folder / "report.html").read_text()
    card = run.model_card
    assert card["prompt"] == "box"
    assert card["scores"]["boxes"] == "taken from the reference"
    assert card["scores"]["validation"]["dice"] > 0.7
    scores = [row.score.value for row in evaluation.rows if row.score.metric == "dice"]
    assert min(float(value or 0) for value in scores) > 0.7


def test_training_reads_boxes_of_windows_and_leaves_empty_slices_out(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    target = TargetSpec(names=("background", "disc"))
    with StoreWriter(tmp_path / "store", "stacks", target) as writer:
        for id in ("a", "b"):
            slices = [discs(random) for _ in range(4)]
            image = np.stack([one for one, _ in slices])[:, None]
            label = np.stack([masks[0] for _, masks in slices]).astype(np.uint8)
            label[3] = 0
            writer.add(Case(id, id, image, label=label, stack="space", spacing=(5, 1, 1)))
        writer.finish({"toy": {"train": ["a"], "valid": ["b"], "test": []}})
    store = Store(tmp_path / "store")
    spec = recipe().input.model_copy(update={"slices": 3})
    batches = Batches(Resized(store, spec), batch_size=2, seed=0, labelled_only=True)
    assert [index for id, index in batches.samples if id == "a"] == [0, 1, 2]
    keys = [("a", 2), ("b", 0)]
    whole = [0, 0, SIDE - 1, SIDE - 1]
    for jitter in (0.0, 0.1):
        shown = ReferenceBoxes(Prompt("boxes", jitter=jitter), batches, seed=0)
        batch = batches.batch(keys, 0, shown.read)
        boxes = shown.inputs(batch, 0)["boxes"].numpy()
        assert boxes.shape == (2, 3, 4)
        assert boxes[0, 2].tolist() == whole  # the neighbour that is empty
        tight = np.stack([mask_box(store.case("a").label[i] > 0) for i in (1, 2)])
        moved = (boxes[0, :2] - tight) * [-1, -1, 1, 1]
        assert (moved >= 0).all()
        assert (moved <= jitter * SIDE).all()
        assert bool(moved.any()) == bool(jitter)
        assert np.array_equal(shown.inputs(batch, 0)["boxes"], boxes)
        assert np.array_equal(shown.inputs(batch, 1)["boxes"], boxes) != bool(jitter)
    changes = {"context": {"name": "conv"}, "weaving": {"at": "decoder"}}
    values = recipe(steps=2, batch_size=2).model_dump(mode="json") | changes
    values["input"]["slices"] = 3
    done = segweave.train(parse_recipe(values), tmp_path / "store", tmp_path / "run", device="cpu")
    assert done.finished
    assert 0 <= done.model_card["scores"]["validation"]["dice"] <= 1
    tiled = parse_recipe(values | {"input": {"size": [16, 16], "fit": "tile"}})
    with pytest.raises(UsageError, match="stretch or pad"):
        segweave.train(tiled, tmp_path / "store", tmp_path / "tiled", device="cpu")


def test_the_published_files_become_model_folders(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_network("medsam-vit-b", **OPTIONS)
    names = network.released_names()
    file = {key: value.clone() for key, value in names.parts(network.state_dict()).items()}
    file |= {key: torch.zeros(2) for key in names.dead}
    torch.save(file, tmp_path / "medsam.pth")
    options = [f"network.options.{key}={json.dumps(value)}" for key, value in OPTIONS.items()]
    sets = [text for option in [*options, "input.size=[32,32]"] for text in ("--set", option)]
    end = command(
        "convert-weights", tmp_path / "medsam.pth", "--recipe", "isic2018-medsam", *sets,
        "--classes", "lesion", "--out", tmp_path / "model",
    )  # fmt: skip
    assert end == 0
    predictor = segweave.load(tmp_path / "model", device="cpu")
    assert predictor.card["prompt"] == "box"
    assert predictor.input.normalisation == "case-minmax"
    x, box = torch.rand(1, 3, SIDE, SIDE), torch.tensor([[4.0, 4, 20, 20]])
    assert torch.equal(predictor.network(x, boxes=box).logits, network.eval()(x, boxes=box).logits)
    # Under the authors' names, some of which are ours too, as start values.
    other = create_network("medsam-vit-b", pretrained=tmp_path / "medsam.pth", **OPTIONS).eval()
    assert torch.equal(other(x, boxes=box).logits, network(x, boxes=box).logits)
    assert other.pretrained is not None
    assert set(other.pretrained.loaded) == set(network.state_dict())
    assert set(other.pretrained.unused) == names.dead
    more = create_network(
        "medsam-vit-b", classes=5, pretrained=tmp_path / "medsam.pth", new_head=True, **OPTIONS
    )
    assert more.pretrained is not None
    assert {name.split(".")[0] for name in more.pretrained.missing} == {
        "kernels",
        "mask_tokens",
        "overlap",
    }
