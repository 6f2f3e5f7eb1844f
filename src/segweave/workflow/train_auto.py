"""Plans a training and trains it, in a time that is given for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from segweave.errors import UsageError
from segweave.runs.run_folder import Run, RunLayout
from segweave.runtime.progress import Progress
from segweave.workflow.plan import Plan, plan
from segweave.workflow.train import time_limit, train
from segweave.workflow.training_plan import plan_training

AUTO = "auto"
"""What stands for the name of a recipe."""


def train_auto(
    store: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    hours: float,
    weights: str | Path | None = None,
    sets: Sequence[str] = (),
    seed: int | None = None,
    fold: int | None = None,
    precision: str | None = None,
    device: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
    planned: Callable[[Plan], None] | None = None,
) -> Run:
    """Plan a training (`segweave.plan`), write the plan into the run folder as `plan.yaml`, and
    train it. Both together take at most `hours`.

    Where `out` holds a plan already, its training is continued and nothing is planned anew; `hours`
    then counts what its earlier sessions trained.

    Args:
        store: what `prepare` wrote, or a list of stores that are trained on together.
        out: the run folder.
        hours: for planning and training, > 0.
        weights: see `segweave.plan`.
        sets: see `segweave.train`; they override what was planned.
        seed: see `segweave.train`.
        fold: plan and train on the split `fold-K`.
        precision: see `segweave.train`.
        device: see `segweave.train`.
        resume: see `segweave.train`.
        progress: called with (done, total, what is being done) while planning and training.
        planned: called with the plan before the training, to show it.

    Raises what `segweave.plan` and `segweave.train` raise.
    """
    time_limit(hours)  # refuses a time of 0
    began = time.monotonic()
    layout = RunLayout(out)
    stores = [store] if isinstance(store, str | Path) else list(store)
    chosen = {"sets": sets, "seed": seed, "fold": fold, "precision": precision, "resume": resume}
    if not layout.plan.is_file():
        if layout.started:
            raise UsageError(
                "training by plan",
                file=layout.folder,
                expected="a new or empty folder, or a run that was planned",
                found="a run of another recipe",
                remedy="choose another folder",
            )
        split = None if fold is None else f"fold-{fold}"
        made = plan(
            stores,
            hours=hours,
            device=device,
            split=split,
            weights=weights,
            progress=progress,
            began=began,
        )
        # Refuses a folder that holds anything else before something is written into it.
        plan_training(made.recipe, stores, layout.folder, resume=resume)
        if planned is not None:
            planned(made)
        made.write(layout.plan)
    left = max(hours - (time.monotonic() - began) / 3600, 1e-6)
    return train(layout.plan, stores, out, **chosen, device=device, hours=left, progress=progress)  # type: ignore[arg-type]
