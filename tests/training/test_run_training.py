"""A whole training on a toy store: the run folder, pairing of arms, and refusals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from segweave.data.batches import Batches
from segweave.data.cache import Resized
from segweave.data.store import Store
from segweave.recipes import Recipe, differences, load_recipe
from segweave.recipes.build import build_network
from segweave.runtime.devices import denormals_are_flushed
from segweave.training import Run, train
from tests.training import toy
from tests.training.toy import run_of


def test_the_run_folder_holds_what_it_should(finished: Run, store: Store) -> None:
    assert {path.name for path in finished.folder.iterdir()} == {
        "recipe.yaml",
        "environment.json",
        "metrics.csv",
        "tensorboard",
        "checkpoints",
        "model",
    }
    assert set(finished.checkpoints) == {"last", "best"}
    assert {path.name for path in finished.model.iterdir()} == {"weights.safetensors", "card.json"}
    assert list((finished.folder / "tensorboard").glob("events.*"))
    assert not list(finished.folder.rglob(".writing-*"))
    assert finished.finished
    environment = finished.environment
    assert environment["data"]["checksum"] == store.checksum
    assert environment["data"]["cases"] == {"training": 4, "validation": 1, "test": 1}
    assert environment["sessions"][0]["device"] in ("cpu", "cuda:0")
    assert environment["libraries"]["torch"] == torch.__version__.partition("+")[0]


def test_it_learns(finished: Run) -> None:
    rows = finished.metrics
    assert np.mean([row["loss"] for row in rows[-5:]]) < 0.8 * rows[0]["loss"]
    assert finished.model_card["scores"]["validation"]["dice"] > 0.5


def test_metrics_have_a_row_a_step(finished: Run) -> None:
    rows = finished.metrics
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert [row["epoch"] for row in rows[4:7]] == [1, 2, 2]
    assert ["validation_dice" in row for row in rows] == [step % 5 == 0 for step in range(1, 61)]
    assert rows[0]["rate"] == 0.01
    assert rows[-1]["rate"] == pytest.approx(0.01 * (1 / 60) ** 0.9)
    assert all(0 <= row["loader_share"] <= 1 for row in rows)
    assert all(a["seconds"] < b["seconds"] for a, b in itertools.pairwise(rows))


def test_the_resolved_recipe_is_beside_the_result(finished: Run) -> None:
    written = yaml.safe_load((finished.folder / "recipe.yaml").read_text())
    assert written["training"]["schedule"]["power"] == 0.9  # a default, written out
    assert written["format"] == 1
    assert load_recipe(finished.folder / "recipe.yaml") == finished.recipe
    assert finished.recipe == toy.recipe(training__epochs=12)


def test_the_card_describes_the_model_and_the_weights_are_its(finished: Run, store: Store) -> None:
    card = finished.model_card
    assert card["format"] == 1
    assert card["classes"] == ["background", "ring", "core"]
    assert card["input"]["size"] == [16, 16]
    assert card["training_data"]["groups"] == [f"patient{k}" for k in range(4)]
    assert card["training_data"]["checksum"] == store.checksum
    assert card["scores"]["step"] == 60
    assert "medical device" in card["limits"]
    network = build_network(Recipe.model_validate(card["recipe"]), 1, store.target)
    assert card["parameters"] == sum(p.numel() for p in network.parameters())
    network.load_state_dict(finished.weights())
    network.eval()
    with torch.no_grad():
        ids = finished.recipe.choose_parts(store)["validation"]
        scores = toy.score(
            network, finished.recipe.input, store.target, [store.case(id) for id in ids]
        )
    assert scores == card["scores"]["validation"]


def test_the_best_checkpoint_is_the_one_with_the_highest_validation_score(finished: Run) -> None:
    scored = [row for row in finished.metrics if "validation_dice" in row]
    best = max(scored, key=lambda row: row["validation_dice"])
    content = torch.load(finished.checkpoints["best"], weights_only=True)
    assert content["step"] == best["step"]
    assert content["best"] == (best["validation_dice"], best["step"])


def test_a_finished_run_is_returned_as_it_is(finished: Run, store: Store) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file()}
    again = train(finished.recipe, store, finished.folder, score=toy.score)
    assert again.model_card == finished.model_card
    assert before == {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file()}


def test_the_best_checkpoint_becomes_the_model_where_the_recipe_says_so(
    store: Store, out: Path
) -> None:
    scores = iter([0.2, 0.9, 0.4, float("nan")])
    run = train(
        toy.recipe(training__epochs=4, training__checkpoint="best"),
        store,
        out,
        score=lambda *_: {"dice": next(scores)},
    )
    assert run.model_card["scores"]["step"] == 10
    assert run.model_card["scores"]["validation"] == {"dice": 0.9}
    best, last = run.weights("best"), run.weights("last")
    written = run.weights()
    assert all(torch.equal(written[name], best[name]) for name in written)
    assert any(not torch.equal(written[name], last[name]) for name in written)


def test_the_published_protocol_keeps_the_best_on_test_apart(store: Store, out: Path) -> None:
    test_ids: list[list[str]] = []

    def on_test(network, spec, target, cases):  # type: ignore[no-untyped-def]
        test_ids.append([case.id for case in cases])
        return {"dice": 1.0 / len(test_ids)}

    run = train(
        toy.recipe(training__epochs=2, protocol="published"),
        store,
        out,
        score=toy.score,
        score_on_test=on_test,
    )
    assert test_ids == [["patient5_a"]] * 2
    assert torch.load(run.checkpoints["best-on-test"], weights_only=True)["step"] == 5
    assert run.metrics[-1]["test_dice"] == 0.5
    assert run.model_card["scores"]["step"] == 10


def test_under_the_clean_protocol_no_test_case_is_read(store: Store, out: Path) -> None:
    read: list[str] = []

    class Watched(Store):
        def case(self, id: str):  # type: ignore[no-untyped-def]
            read.append(id)
            return super().case(id)

    def forbidden(*_: object) -> dict[str, float]:
        raise AssertionError("scored on test")

    run = train(
        toy.recipe(training__epochs=1),
        Watched(store.path),
        out,
        score=toy.score,
        score_on_test=forbidden,
    )
    assert set(run.checkpoints) == {"last", "best"}
    assert "patient5_a" not in read


def test_two_arms_with_one_seed_see_the_same_batches_and_start_values(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[object]] = {}
    original = Batches.batch

    def watched(self: Batches, keys, epoch, masks=None):  # type: ignore[no-untyped-def]
        batch = original(self, keys, epoch, masks)
        middle = batch.image[:, batch.image.shape[1] // 2]
        seen.setdefault(current, []).append(
            (tuple(batch.keys), batch.label.numpy().tobytes(), middle.numpy().tobytes())
        )
        return batch

    monkeypatch.setattr(Batches, "batch", watched)
    for current, changes in (
        ("plain", {}),
        ("conv", {"context": {"name": "conv"}, "input__slices": 3}),
        ("other", {"seed": 1}),
    ):
        run_of(store, tmp_path / current, **changes)
    assert len(seen["plain"]) == 10
    assert seen["plain"] == seen["conv"]
    assert seen["plain"] != seen["other"]
    assert len({tuple(key) for key, _, _ in seen["plain"][:5]}) == 5


def test_training_is_repeatable_and_leaves_torch_as_it_was(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.set_flush_denormal(False)
    before = torch.get_rng_state()
    one = run_of(store, tmp_path / "one")
    assert torch.equal(before, torch.get_rng_state())
    assert not denormals_are_flushed()
    torch.manual_seed(4)
    two = run_of(store, tmp_path / "two")
    assert [row["loss"] for row in one.metrics] == [row["loss"] for row in two.metrics]
    weights, others = one.weights(), two.weights()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_denormals_are_flushed_while_training(store: Store, out: Path) -> None:
    seen: list[bool] = []

    def score(*arguments):  # type: ignore[no-untyped-def]
        seen.append(denormals_are_flushed())
        assert not arguments[0].training
        assert not torch.is_grad_enabled()
        return toy.score(*arguments)

    train(toy.recipe(training__epochs=1), store, out, score=score)
    assert seen == [True]


@pytest.mark.parametrize(
    "changes",
    [
        {"training__optimiser": {"name": "sgd", "rate": 0.1}},
        {"training__optimiser": {"name": "adam", "rate": 0.01, "weight_decay": 1e-4}},
        {"training__gradient_clip": 0.5},
        {"training__precision": "bf16"},
        {"training__schedule": {"name": "cosine", "warm_up": 3}},
        {"training__augmentation": {"odds": "released"}},
        {"input": {"size": [16, 16], "fit": "tile"}, "data__validation": None},
        {"data__validation": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_option_trains(store: Store, out: Path, changes: dict[str, object]) -> None:
    run = run_of(store, out, **changes)
    rows = run.metrics
    assert len(rows) == 10
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert ("best" in run.checkpoints) == ("data__validation" not in changes)


def test_gradient_clipping_bounds_the_step(store: Store, tmp_path: Path) -> None:
    changes = {
        "training__optimiser": {"name": "sgd", "rate": 1.0, "momentum": 0.0, "weight_decay": 0.0},
        "training__schedule": {"name": "constant"},
        "training__epochs": None,
        "training__steps": 1,
        "training__gradient_clip": 1e-3,
    }
    run = run_of(store, tmp_path / "run", **changes)
    start = dict(build_network(run.recipe, 1, store.target).named_parameters())
    moved = torch.cat([(run.weights()[n] - p.detach()).flatten() for n, p in start.items()])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_steps_count_optimiser_steps(store: Store, out: Path) -> None:
    run = run_of(store, out, training__epochs=None, training__steps=7)
    assert [row["step"] for row in run.metrics] == list(range(1, 8))
    assert "validation_dice" in run.metrics[-1]
    assert run.model_card["scores"]["step"] == 7


def test_validation_comes_every_few_epochs_and_at_the_end(store: Store, out: Path) -> None:
    run = run_of(store, out, training__epochs=5, training__validate_every=2)
    assert [r["step"] for r in run.metrics if "validation_dice" in r] == [10, 20, 25]


def test_a_binary_target_trains(binary_store: Store, out: Path) -> None:
    run = run_of(binary_store, out, training__epochs=8)
    assert run.model_card["target"]["kind"] == "binary"
    assert run.metrics[-1]["loss"] < 0.8 * run.metrics[0]["loss"]
    assert run.weights()["network.classifier.bias"].shape == (1,)


def test_windows_and_dropout_train(store: Store, out: Path) -> None:
    context = {"name": "sa-embedded-lstm", "form": "released", "options": {"attention_size": 16}}
    run = run_of(store, out, context=context, input__slices=3)
    assert run.model_card["context"] == "sa-embedded-lstm"
    assert len(run.metrics) == 10


def test_the_store_may_lie_elsewhere_when_resumed(finished: Run, store: Store) -> None:
    moved = toy.recipe(training__epochs=12, data__store="/elsewhere")
    assert set(differences(finished.recipe, moved)) == {"data.store"}
    assert train(moved, store, finished.folder, score=toy.score).finished


def test_metrics_of_resized_cases_are_cached_beside_the_store(store: Store) -> None:
    ids = store.splits["toy"]["train"]
    path = Resized(store, toy.recipe().input, ids).path_of(ids[0])
    assert path.parent.parent == store.path.parent


def test_the_environment_names_no_secret(finished: Run) -> None:
    text = json.dumps(finished.environment)
    assert str(Path.home()) not in text
