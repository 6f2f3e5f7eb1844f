"""A grid whose runs fail, are interrupted or killed."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segweave.errors import UsageError
from segweave.evaluation import read_evaluation
from segweave.grid import load_grid, plan_grid, run_grid
from segweave.registry import register_plugin
from segweave.training import Run
from tests.grid.made import write
from tests.small import SETS, files_of


@pytest.mark.slow
def test_a_failed_run_stops_no_other_and_what_is_done_is_skipped(
    tmp_path: Path, store: Path
) -> None:
    file = write(tmp_path, store, seeds=[3], protocols=["published"], jobs=2)
    in_the_way = tmp_path / "runs" / "unet" / "seed-3" / "mine.txt"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("x")
    done = run_grid(plan_grid(load_grid(file)))
    assert list(done.failures) == ["unet/seed-3"]
    assert "mine.txt" in str(done.failures["unet/seed-3"])
    narrow = tmp_path / "runs" / "narrow" / "seed-3"
    assert done.evaluations["published"] == [narrow / "evaluation" / "published"]
    found = read_evaluation(done.evaluations["published"][0])
    assert (found.manifest.arms, found.manifest.seeds) == (["narrow"], [3])
    before = files_of(narrow)
    in_the_way.unlink()
    plan = plan_grid(load_grid(file))
    assert [run.state for run in plan.runs] == ["to do", "done"]
    assert plan.seconds_left() == plan.seconds["narrow/seed-3"] > 0
    done = run_grid(plan)
    assert done.failures == {}
    assert len(done.evaluations["published"]) == 2
    assert files_of(narrow) == before
    # The same folder with another recipe is another grid.
    other = load_grid(write(tmp_path, store, seeds=[3], set=[*SETS, "training.batch_size=2"]))
    with pytest.raises(UsageError, match="batch_size: 4 there, 2 now"):
        plan_grid(other)


HELD = """
import signal
import time
from pathlib import Path

from torch import nn

from segweave.registry import LossCard

CARD = LossCard(name="held", title="Held", entry="Held", paper="none")


class Held(nn.Module):
    # Cross-entropy; once there is a checkpoint, a step lasts until SIGINT or the file `go` is here.

    def __init__(self, target, *, folder):
        super().__init__()
        self.folder = Path(folder)

    def forward(self, logits, label):
        heard = []
        handler = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, lambda *what: (heard.append(what), handler(*what)))
        until = time.monotonic() + 60
        while list(self.folder.glob("runs/*/*/checkpoints/last.ckpt")) and not heard:
            if (self.folder / "go").exists() or time.monotonic() > until:
                break
            (self.folder / "held").touch()
            time.sleep(0.005)
        signal.signal(signal.SIGINT, handler)
        return nn.functional.cross_entropy(logits, label)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_after_ctrl_c_and_after_a_kill_the_same_command_goes_on(
    tmp_path: Path, store: Path
) -> None:
    plugin = tmp_path / "held.py"
    plugin.write_text(HELD)
    loss = f"training.loss=[{{name: held, options: {{folder: {tmp_path}}}}}]"
    sets = [*SETS[1:], loss, "training.epochs=3", "training.validate_every=3"]
    file = write(tmp_path, store, recipes=["demo"], set=sets, seeds=[0])
    call = [sys.executable, "-m", "segweave", "--plugin", str(plugin), "grid", str(file)]
    run = tmp_path / "runs" / "unet" / "seed-0"

    def begun() -> subprocess.Popen[str]:
        """The command, once its training is in a step after its first checkpoint."""
        (tmp_path / "held").unlink(missing_ok=True)
        # What a shell starts in the background ignores Ctrl-C, and so would what it starts.
        heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
        until = time.monotonic() + 60
        while time.monotonic() < until and not (tmp_path / "held").is_file():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        return process

    process = begun()
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in words
    assert "0 of 1 runs are done" in words
    rows = Run(run).metrics
    assert rows
    assert not Run(run).finished
    register_plugin(plugin)
    assert "begun" in plan_grid(load_grid(file)).runs[0].state
    until = time.monotonic() + 120
    if sys.platform == "linux":  # which is asked to end the training with its parent
        process = begun()
        process.kill()
        process.communicate()
        # The training saves the step that it is in and ends: then the same command goes on at once.
    (tmp_path / "go").touch()
    seen = subprocess.run(call, capture_output=True, text=True, check=False, timeout=300)
    while "writing" in seen.stderr and time.monotonic() < until:
        seen = subprocess.run(call, capture_output=True, text=True, check=False, timeout=300)
    assert seen.returncode == 0, seen.stderr
    assert "unet/seed-0: done in" in seen.stderr
    assert str(run / "evaluation" / "clean") in seen.stdout
    assert Run(run).metrics[: len(rows)] == rows
    assert len(Run(run).environment["sessions"]) == (3 if sys.platform == "linux" else 2)
