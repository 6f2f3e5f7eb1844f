"""The smaller parts of training: metrics file, checkpoints, run reader, devices, denormals, bar."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.errors import InputError, SegweaveError, UsageError
from segweave.runs.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from segweave.runs.metrics_file import MetricsFile, read_rows
from segweave.runtime.devices import choose_device, denormals_are_flushed, flushed_denormals
from segweave.training import Run


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": float(step), "epoch": 1.0, "loss": 1 / step, **more}


@given(
    losses=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12),
    kept=st.integers(0, 12),
)
@settings(max_examples=25, deadline=None)
def test_rows_come_back_exactly_and_are_cut_where_resumed(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], kept: int
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    file = MetricsFile(path)
    for step, loss in enumerate(losses, start=1):
        file.append({"step": float(step), "loss": loss})
    assert [r["loss"] for r in read_rows(path)] == losses
    MetricsFile(path, step=kept).append({"step": kept + 1.0, "loss": 7.0})
    expected = [*losses[:kept], 7.0]
    assert [r["loss"] for r in read_rows(path)] == expected


def test_new_columns_are_added_to_all_rows(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.csv")
    file.append(row(1))
    file.append(row(2, validation_dice=0.5))
    file.append(row(3))
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0].endswith(",validation_dice")
    assert len({line.count(",") for line in lines}) == 1
    assert read_rows(tmp_path / "metrics.csv")[1] == row(2, validation_dice=0.5)
    MetricsFile(tmp_path / "metrics.csv", step=2).append(row(3, validation_dice=0.7))
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


def test_half_a_line_is_cut_away(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.append(row(1))
    file.append(row(2))
    path.write_text(path.read_text()[:-6])
    assert [r["step"] for r in read_rows(path)] == [1.0]
    MetricsFile(path, step=2).append(row(2))
    assert [r["step"] for r in read_rows(path)] == [1.0, 2.0]


def test_a_full_disk_leaves_the_rows_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.append(row(1))
    before = path.read_bytes()
    real_open = Path.open

    class Full:
        """A file that takes half of what is written."""

        def __init__(self, inner):  # type: ignore[no-untyped-def]
            self.inner = inner

        def __enter__(self):  # type: ignore[no-untyped-def]
            return self

        def __exit__(self, *_: object) -> None:
            self.inner.close()

        def write(self, text: str) -> None:
            self.inner.write(text[: len(text) // 2])
            self.inner.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    def opening(self: Path, mode: str = "r", *arguments, **options):  # type: ignore[no-untyped-def]
        opened = real_open(self, mode, *arguments, **options)
        return Full(opened) if mode == "a" else opened

    monkeypatch.setattr(Path, "open", opening)
    with pytest.raises(SegweaveError, match="No space left"):
        file.append(row(2))
    monkeypatch.undo()
    assert path.read_bytes() == before


def checkpoint(step: int = 3) -> Checkpoint:
    parameter = torch.nn.Parameter(torch.arange(4.0))
    optimiser = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(4)
    optimiser.step()
    return Checkpoint(
        step=step,
        epoch=1,
        seconds=0.5,
        network={"weight": parameter.detach()},
        optimiser=optimiser.state_dict(),
        random=torch.get_rng_state(),
        scores={"dice": 0.25},
        best=(0.25, 3),
    )


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.ckpt"
    written = checkpoint()
    write_checkpoint(written, path)
    read = read_checkpoint(path)
    assert torch.equal(read.network["weight"], written.network["weight"])
    assert torch.equal(read.random, written.random)
    assert read.optimiser["state"][0]["step"] == 1
    assert (read.step, read.scores, read.best, read.best_on_test) == (
        3,
        {"dice": 0.25},
        (0.25, 3),
        None,
    )
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint(3), path)
    for error in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")):

        def failing(content: object, file, error: Exception = error) -> None:  # type: ignore[no-untyped-def]
            file.write(b"half")
            raise error

        monkeypatch.setattr(torch, "save", failing)
        with pytest.raises(SegweaveError, match="free some space"):
            write_checkpoint(checkpoint(4), path)
        assert read_checkpoint(path).step == 3
        assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_wrong_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(InputError, match="no such file"):
        read_checkpoint(path)
    torch.save({"format": 2}, path)
    with pytest.raises(InputError, match="format 1"):
        read_checkpoint(path)
    torch.save({"format": 1, "step": 2}, path)
    with pytest.raises(InputError, match="optimiser"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError):
        read_checkpoint(path)


def test_the_run_reader_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Run(tmp_path / "gone")
    with pytest.raises(InputError, match="an empty folder"):
        Run(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"notes\.txt"):
        Run(tmp_path)
    (tmp_path / "recipe.yaml").write_text("network: {name: unet}\ntraining: {epochs: 1}\n")
    run = Run(tmp_path)
    assert not run.finished
    assert run.metrics == []
    assert run.recipe.network.name == "unet"
    with pytest.raises(InputError, match="reached step 0"):
        run.weights()
    with pytest.raises(UsageError, match="train first"):
        run.weights("best")
    (tmp_path / "checkpoints").mkdir()
    write_checkpoint(checkpoint(), tmp_path / "checkpoints" / "last.ckpt")
    assert set(run.weights("last")) == {"weight"}
    with pytest.raises(UsageError, match="did you mean last"):
        run.weights("lats")
    (tmp_path / "environment.json").write_text("{ half")
    with pytest.raises(InputError, match=r"environment\.json"):
        run.environment  # noqa: B018
    (tmp_path / "environment.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="a JSON object"):
        run.environment  # noqa: B018


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "cuda:", "", "cuda:99"])
def test_wrong_devices_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="device"):
        choose_device(name)


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="--device cpu"):
            choose_device("cuda")


@pytest.mark.parametrize("before", [True, False])
def test_denormals_are_put_back(before: bool) -> None:
    torch.set_flush_denormal(before)
    try:
        with flushed_denormals():
            assert denormals_are_flushed()
        assert denormals_are_flushed() == before
        with pytest.raises(ZeroDivisionError), flushed_denormals():
            raise ZeroDivisionError
        assert denormals_are_flushed() == before
    finally:
        torch.set_flush_denormal(False)


def test_reading_recipes_and_runs_imports_neither_torch_nor_lightning() -> None:
    code = (
        "import sys, segweave.training, segweave.recipes\n"
        "segweave.training.Run; segweave.recipes.load_recipe('demo')\n"
        "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
