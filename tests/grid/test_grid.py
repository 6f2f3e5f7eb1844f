"""A grid is checked before it starts, skips what is done, continues after a stop and a failure."""

from __future__ import annotations

import itertools
import json
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from segweave.data.joined_store import open_stores
from segweave.errors import InputError, UsageError
from segweave.grid import Job, RunEvent, in_words, load_grid, plan_grid, run_grid
from segweave.recipes import arm_digest, arm_identity, load_recipe
from tests.grid.made import write
from tests.small import SETS


def test_the_plan_has_every_run_with_its_own_recipe(tmp_path: Path, store: Path) -> None:
    plan = plan_grid(load_grid(write(tmp_path, store)))
    assert [run.name for run in plan.runs] == [
        "unet/seed-0", "unet/seed-1", "narrow/seed-0", "narrow/seed-1"
    ]  # fmt: skip
    assert [run.recipe.seed for run in plan.runs] == [0, 1, 0, 1]
    assert [run.recipe.network.options["width"] for run in plan.runs] == [2, 2, 1, 1]
    assert plan.runs[0].folder == tmp_path / "runs" / "unet" / "seed-0"
    assert len(plan.left) == 4
    assert plan.seconds_left() is None
    assert not (tmp_path / "runs").exists()


def test_every_recipe_is_trained_with_every_context(tmp_path: Path, store: Path) -> None:
    contexts = [
        "none",
        "conv",
        {"context": "sa-lstm", "at": "skips", "slices": 5},
        {"context": "mean", "slices": 1, "tiles": 2, "join": "replace"},
    ]
    plan = plan_grid(load_grid(write(tmp_path, store, contexts=contexts, seeds=[0])))
    assert [run.name for run in plan.runs] == [
        f"{network}{module}/seed-0"
        for network in ("unet", "narrow")
        for module in ("", "+conv", "+sa-lstm@skips", "+mean")
    ]
    recipes = {run.recipe.arm: run.recipe for run in plan.runs}
    assert recipes["unet"] == load_recipe("demo", SETS)
    assert [recipes[f"narrow{m}"].slices for m in ("", "+conv", "+sa-lstm@skips")] == [1, 3, 5]
    assert recipes["narrow+conv"].network.options["width"] == 1
    assert recipes["unet+mean"].weaving.model_dump() == {
        "at": "bottleneck",
        "tiles": 2,
        "join": "replace",
        "channels": None,
    }
    # The command trains exactly the planned recipe.
    for run in plan.runs:
        sets = [b for a, b in itertools.pairwise(run.train) if a == "--set"]
        assert load_recipe(run.train[1], sets) == run.recipe
    named = [{"context": "conv", "arm": "neighbours"}]
    plan = plan_grid(load_grid(write(tmp_path, store, contexts=named, recipes=["demo"])))
    assert {run.recipe.arm for run in plan.runs} == {"neighbours"}


MARGIN = {"margin": 0.01, "margin_reason": "two readers differ by more: 0.02"}


def test_a_margin_is_written_into_every_run_before_it_is_trained(
    tmp_path: Path, store: Path
) -> None:
    plain = plan_grid(load_grid(write(tmp_path, store)))
    plan = plan_grid(load_grid(write(tmp_path, store, contexts=["none", "conv"], **MARGIN)))
    for run in plan.runs:
        sets = [b for a, b in itertools.pairwise(run.train) if a == "--set"]
        recipe = load_recipe(run.train[1], sets)
        assert (recipe.margin, recipe.margin_reason) == (0.01, MARGIN["margin_reason"])
    # It does not belong to the settings of the training: the arm stays the same.
    assert arm_digest(plan.runs[0].recipe) == arm_digest(plain.runs[0].recipe)
    assert "margin" not in arm_identity(plan.runs[0].recipe).recipe


@pytest.mark.parametrize("given", [{"margin": 0.01}, {"margin_reason": "why"}, {"margin": 1.5}])
def test_a_margin_needs_a_reason(tmp_path: Path, store: Path, given: dict[str, Any]) -> None:
    reason = {"margin_reason": "why"} if given.get("margin", 0) > 1 else {}
    with pytest.raises(InputError, match="margin"):
        load_grid(write(tmp_path, store, **given, **reason))


def test_a_margin_is_not_changed_once_a_run_has_begun(tmp_path: Path, store: Path) -> None:
    plan = plan_grid(load_grid(write(tmp_path, store, **MARGIN)))
    run = plan.runs[0]
    run.folder.mkdir(parents=True)
    (run.folder / "recipe.yaml").write_text(run.recipe.to_yaml())
    (run.folder / "environment.json").write_text(
        json.dumps({"format": 1, "data": {"checksum": open_stores([store]).checksum}})
    )
    assert plan_grid(load_grid(write(tmp_path, store, **MARGIN))).runs[0].folder == run.folder
    with pytest.raises(UsageError, match=r"margin: 0\.01 there, 0\.02 now"):
        plan_grid(load_grid(write(tmp_path, store, **{**MARGIN, "margin": 0.02})))


class Recording:
    """A runner that runs nothing: it ends each job with a code."""

    def __init__(self, codes: dict[str, int]) -> None:
        self.codes = codes
        self.jobs: list[Job] = []

    def run(
        self,
        jobs: Sequence[Job],
        *,
        ended: Callable[[Job, int], None],
        began: Callable[[Job], None] = lambda job: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        for job in jobs:
            self.jobs.append(job)
            began(job)
            tick()
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.write_text("out of memory")
            ended(job, self.codes.get(job.name, 0))


def test_any_runner_runs_the_jobs_and_events_report_them(tmp_path: Path, store: Path) -> None:
    grid = load_grid(write(tmp_path, store, seeds=[0], protocols=["clean", "published"]))
    runner = Recording({"narrow/seed-0": 1})
    events: list[RunEvent] = []
    done = run_grid(plan_grid(grid), runner=runner, report=events.append)
    assert pickle.loads(pickle.dumps(runner.jobs)) == runner.jobs
    train, *scoring = runner.jobs[0].calls
    assert train[:2] == ("train", "demo")
    assert [call[:1] + call[2:4] for call in scoring] == [
        ("evaluate", "--protocol", "clean"),
        ("evaluate", "--protocol", "published"),
    ]
    assert list(done.failures) == ["narrow/seed-0"]
    assert "out of memory" in str(done.failures["narrow/seed-0"])
    assert [(event.kind, event.run) for event in events if event.kind != "progress"] == [
        ("note", ""),
        ("began", "unet/seed-0"),
        ("ended", "unet/seed-0"),
        ("began", "narrow/seed-0"),
        ("ended", "narrow/seed-0"),
    ]
    assert events[0].text == "0 of 2 runs are done"
    assert "failed, see" in events[-1].text


def test_a_finished_grid_starts_no_job(tmp_path: Path, store: Path) -> None:
    plan = plan_grid(load_grid(write(tmp_path, store)))
    for run in plan.runs:
        for path in (run.folder / "model/card.json", run.evaluations["clean"] / "manifest.json"):
            path.parent.mkdir(parents=True)
            path.write_text("{}")
    runner = Recording({})
    assert run_grid(plan, runner=runner).failures == {}
    assert runner.jobs == []
    assert not (tmp_path / "runs" / "grid.json").exists()


def test_metrics_of_the_grid_are_computed_for_every_run(tmp_path: Path, store: Path) -> None:
    plan = plan_grid(load_grid(write(tmp_path, store, metrics=["nsd", "dice"])))
    words = plan.runs[0].evaluate("clean")
    assert [words[at + 1] for at, word in enumerate(words) if word == "--metric"] == ["nsd", "dice"]
    scored = plan.runs[1].evaluations["clean"] / "manifest.json"
    scored.parent.mkdir(parents=True)
    scored.write_text(json.dumps({"format": 1, "definitions": {"dice": "", "nsd": ""}}))
    plan_grid(load_grid(write(tmp_path, store, metrics=["nsd"])))
    with pytest.raises(UsageError, match="without assd") as caught:
        plan_grid(load_grid(write(tmp_path, store, metrics=["nsd", "assd"])))
    assert "--metric nsd --metric assd --force" in str(caught.value)


def test_time_left_comes_from_finished_runs_of_the_arm_shared_by_processes(
    tmp_path: Path, store: Path
) -> None:
    seconds = {"unet/seed-0": 60.0, "narrow/seed-0": 20.0, "narrow/seed-1": 7.0}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "grid.json").write_text(json.dumps({"format": 1, "seconds": seconds}))
    file = write(tmp_path, store, jobs=2, seeds=[0, 1, 2])
    for name in ("unet/seed-0", "narrow/seed-0"):
        folder = tmp_path / "runs" / name
        for part in ("model/card.json", "evaluation/clean/manifest.json"):
            (folder / part).parent.mkdir(parents=True)
            (folder / part).write_text("{}")
    plan = plan_grid(load_grid(file))
    assert [run.name for run in plan.left] == [
        "unet/seed-1", "unet/seed-2", "narrow/seed-1", "narrow/seed-2"
    ]  # fmt: skip
    assert plan.seconds_left() == (60 + 60 + 20 + 20) / 2
    assert plan.seconds_left(plan.left[:1]) == 60
    # Half of a training done counts as half.
    begun = plan.left[0].folder
    begun.mkdir(parents=True)
    (begun / "metrics.csv").write_text("step,epoch,loss\n1,1,0.5\n")
    assert plan.left[0].state == "begun, 50%"
    assert plan.seconds_left(plan.left[:1]) == 30


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seedz": [1]}, "did you mean seeds"),
        ({"recipes": [{"recipe": "demo", "sets": []}]}, "did you mean set"),
        ({"seeds": [1, 1]}, "each of seeds once"),
        ({"metrics": ["nsd", "nsd"]}, "each of metrics once"),
        ({"jobs": 0}, "jobs"),
        ({"format": 2}, "format: 2"),
        ({"recipes": []}, "recipes"),
        ({"contexts": [{"context": "conv", "slice": 3}]}, "did you mean slices"),
        ({"contexts": [{"at": "skips"}]}, "contexts.0.context"),
    ],
)
def test_the_message_about_a_wrong_file_names_the_key(
    tmp_path: Path, store: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load_grid(write(tmp_path, store, **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipes": ["demo", "demo"]}, "arm unet twice"),
        ({"recipes": ["demo", {"recipe": "demo", "arm": "b"}]}, "equal recipes for unet and b"),
        ({"contexts": ["conv", {"context": "conv", "slices": 5}]}, r"arm unet\+conv twice"),
        ({"contexts": ["cnv"]}, "did you mean conv"),
        ({"contexts": [{"context": "none", "at": "skips"}]}, "without one"),
        ({"folds": [0, 1]}, "fold-{fold}"),
        ({"protocols": ["cleen"]}, "did you mean clean"),
        ({"metrics": ["nds"]}, "did you mean nsd"),
        ({"metrics": ["psnr"]}, "a metric of labels"),
        ({"set": ["training.epochz=1"]}, "did you mean"),
        ({"set": ["data.split=other"]}, "data.split: other"),
        ({"recipes": ["dmo"]}, "did you mean demo"),
        ({"set": ["network.name=unett"]}, "did you mean unet"),
        ({"set": ["network.options.widht=3"]}, "did you mean width"),
    ],
)
def test_a_grid_that_cannot_run_is_refused_before_it_starts(
    tmp_path: Path, store: Path, changes: dict[str, Any], words: str
) -> None:
    grid = load_grid(write(tmp_path, store, **changes))
    with pytest.raises((UsageError, InputError), match=words):
        plan_grid(grid)
    assert not (tmp_path / "runs").exists()


def test_files_of_the_current_folder_stand_in_for_no_module(tmp_path: Path) -> None:
    """`python -m` puts the current folder first; a random.py there must not run."""
    for name in ("random", "torch", "segweave"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')")
    script = (
        "import sys; sys.path.pop(0); from pathlib import Path\n"
        "from segweave.grid.processes import start\n"
        "raise SystemExit(start(['--version'], Path('log'), 1).wait())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "log").read_text().startswith("segweave ")


def test_the_compare_command_names_arms_that_were_scored(tmp_path: Path, store: Path) -> None:
    folder = tmp_path / "my runs"
    folder.mkdir()
    grid = load_grid(write(folder, store, out="../my runs/out"))

    def scored(arm: str) -> None:
        evaluation = folder / "out" / arm / "seed-0" / "evaluation" / "clean"
        evaluation.mkdir(parents=True)
        (evaluation / "manifest.json").write_text("{}")

    assert plan_grid(grid).compare_command("clean") is None
    scored("narrow")
    assert plan_grid(grid).compare_command("clean") is None
    scored("unet")
    words = shlex.split(plan_grid(grid).compare_command("clean") or "")
    assert words[2:] == [f"{folder}/out/*/*/evaluation/clean", "--reference", "unet"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (40, "40 s"), (700, "12 min"), (12_000, "3 h 20 min"), (187_300, "2 d 4 h")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
