"""Plans of real stores train, in the time that was given."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import yaml

import segweave
from segweave.datasets import prepare
from segweave.errors import InputError, UsageError
from segweave.phantoms.abdomen import write_abdomen
from segweave.phantoms.polyp import write_polyps
from segweave.runs.run_folder import Run
from segweave.training.time_limit import TimeLimit
from segweave.workflow import plan as plan_module
from segweave.workflow.plan import Plan
from segweave.workflow.planner.speed import Speed
from segweave.workflow.train_auto import train_auto
from tests.cli.conftest import Command, command
from tests.small import SETS, make_store

__all__ = ["command"]

ONE_STEP = ("training.steps=1", "training.batch_size=1", "input.size=[32,32]")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    make_store(folder)
    write_polyps(folder / "videos", videos=6, frames=2, size=(48, 64))
    prepare("cvc-clinicdb", folder / "videos", folder / "polyps")
    write_abdomen(folder / "bodies", cases=3, size=48, slices=12)
    prepare("synapse", folder / "bodies", folder / "abdomen")
    return folder


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning without waiting: every candidate takes 50 ms per step."""
    speed = Speed(step=0.05, validation=0.5, checkpoint=0.05, reading=1.0)
    monkeypatch.setattr(plan_module, "measure_speed", lambda *_, **__: speed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("store", {"classes": 3, "colour": False, "stack": "space", "mirror": "both"}),
        ("polyps", {"classes": 1, "colour": True, "stack": "time", "mirror": "both"}),
        ("abdomen", {"classes": 8, "colour": False, "stack": "space", "mirror": "none"}),
    ],
)
def test_the_plan_of_each_phantom_trains(
    stores: Path, tmp_path: Path, measured: None, name: str, expected: dict[str, object]
) -> None:
    planned = segweave.plan(stores / name, hours=0.5, device="cpu")
    terms = planned.recipe.training.augmentation
    assert isinstance(terms, tuple)
    assert expected == {
        "classes": len(planned.facts.classes),
        "colour": planned.facts.colour,
        "stack": planned.facts.stack,
        "mirror": terms[0].options["mirror"],
    }
    assert (planned.facts.hounsfield is not None) == (name == "abdomen")
    file = planned.write(tmp_path / "plan.yaml")
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["store"] == str(stores / name)
    width = [] if planned.recipe.network.name != "unet" else ["network.options.width=2"]
    validation = ["data.validation=null", "training.checkpoint=last"]
    sets = [*ONE_STEP, *width, *validation]
    run = segweave.train(file, out=tmp_path / "run", sets=sets, device="cpu")
    assert run.finished
    assert planned.text == segweave.plan(stores / name, hours=0.5, device="cpu").text


def test_auto_plans_with_real_steps_trains_in_time_and_is_continued(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shown: list[Plan] = []
    sets = ["training.steps=2", "input.size=[32,32]", "network.options.width=2"]
    began = time.monotonic()
    run = train_auto(
        stores / "store",
        out,
        hours=60 / 3600,
        sets=sets,
        device="cpu",
        planned=shown.append,
    )
    assert run.finished
    assert time.monotonic() - began < 60
    (plan,) = shown
    assert plan.choice.speed.step > 0
    assert run.layout.plan.read_text(encoding="utf-8") == plan.text
    assert run.recipe.data.split == plan.facts.split
    # Where a plan is there, also one whose training had not begun, nothing is planned anew.
    monkeypatch.setattr(plan_module, "measure_speed", None)
    (tmp_path / "stopped").mkdir()
    shutil.copy(run.layout.plan, tmp_path / "stopped" / "plan.yaml")
    for folder in (out, tmp_path / "stopped"):
        again = train_auto(stores / "store", folder, hours=1, sets=sets, device="cpu")
        assert again.finished
        assert again.recipe == run.recipe


def test_a_training_ends_in_its_time(stores: Path, tmp_path: Path) -> None:
    sets = [*SETS, "training.epochs=100000", "training.validate_every=100000"]
    run = segweave.train(
        "demo", stores / "store", tmp_path / "run", sets=sets, hours=8 / 3600, device="cpu"
    )
    assert run.finished
    assert "no time for another epoch" in run.model_card["ended"]
    assert "validation_dice" in run.metrics[-1]
    assert run.metrics[-1]["step"] < 100000


def test_the_limit_leaves_time_for_the_longest_epoch_and_for_scoring() -> None:
    now = [0.0]
    limit = TimeLimit(100, clock=lambda: now[0])
    limit.begin(20)  # earlier sessions
    for moment, fits in ((20.0, True), (40.0, True), (60.0, False)):
        now[0] = moment
        assert (limit.epoch_ended() == "") == fits
    fresh = TimeLimit(100, clock=lambda: now[0])
    fresh.begin(0)
    fresh.scored(30)
    now[0] += 10
    assert "100" not in fresh.epoch_ended()  # hours, not seconds
    assert fresh.epoch_ended()


def test_what_can_not_be_planned_is_refused(stores: Path, tmp_path: Path, measured: None) -> None:
    store = stores / "store"
    for hours in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="above 0 hours"):
            segweave.plan(store, hours=hours)
    with pytest.raises(UsageError, match="time for one epoch"):
        segweave.plan(store, hours=1e-4)
    with pytest.raises(UsageError, match="fold-9"):
        segweave.plan(store, split="fold-9")
    with pytest.raises(InputError, match="ImageNet weights"):
        segweave.plan(store, weights=tmp_path / "none.pth")
    (tmp_path / "no.pth").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="without colours"):
        segweave.plan(store, weights=tmp_path / "no.pth")
    with pytest.raises(InputError, match=r"no\.pth"):
        segweave.plan(stores / "polyps", weights=tmp_path / "no.pth")
    with pytest.raises(InputError, match="store"):
        segweave.plan(tmp_path / "none")
    other = Run(segweave.train("demo", store, tmp_path / "run", sets=SETS, device="cpu").folder)
    with pytest.raises(UsageError, match="another recipe"):
        train_auto(store, other.folder, hours=1, device="cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        train_auto(store, tmp_path / "mine", hours=1, device="cpu")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_command_prints_facts_and_writes_the_recipe(
    command: Command, stores: Path, tmp_path: Path, measured: None
) -> None:
    out = tmp_path / "plan.yaml"
    arguments = ("plan", stores / "polyps", "--hours", "1", "--out", out, "--device", "cpu", "-q")
    seen = command(*arguments)
    assert seen.code == 0
    assert all(word in seen.out for word in ("share of pixels", "polyp", "colour", str(out)))
    assert out.read_text(encoding="utf-8").startswith("# Planned for the store")
    command(*arguments).refused("--force")
    train = ("train", "auto", "--out", tmp_path / "run")
    command(*train).refused("--store")
    command(*train, "--store", stores / "store", "--context", "mean").refused("--context")
    command("train", "demo", "--store", stores / "store").refused("--out")
    assert not (tmp_path / "run").exists()
