"""`segweave train auto`: plans a training for a store and a time, and trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segweave.errors import UsageError

_DOING = "training by plan"


def train_auto(
    stores: Sequence[Path],
    out: Path | None,
    *,
    fixed: Mapping[str, Any],
    hours: float,
    weights: str | None,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Plan, show the plan's facts, train, and print where everything is.

    Args:
        stores: paths of the stores.
        out: the run folder; None for runs/auto-STORE.
        fixed: options that the plan decides, with the values that were given (None for none).
        hours: for planning and training.
        weights: of `--weights`.
        quiet: whether progress is hidden.
        chosen: the further arguments of `segweave.workflow.train_auto.train_auto`.
    """
    given = [option for option, value in fixed.items() if value is not None]
    if given:
        raise UsageError(
            _DOING,
            expected="options that a plan leaves open",
            found=f"{', '.join(given)}, which the plan decides",
            remedy="write the plan (segweave plan), and train that file with these options",
        )
    if not stores:
        raise UsageError(
            _DOING,
            expected="a store",
            found="none",
            remedy="give one that `prepare` wrote (--store)",
        )
    folder = out if out is not None else Path("runs") / f"auto-{stores[0].resolve().name}"
    from segweave.cli.show import counter, facts, remark, results
    from segweave.runs.run_folder import Run, RunLayout
    from segweave.workflow.train_auto import train_auto as plan_and_train

    layout = RunLayout(folder)
    if layout.plan.is_file() and layout.finished:
        remark("the run is finished already: nothing was done; for another one choose another RUN")
        run = Run(folder)
    else:
        if layout.plan.is_file():
            remark(f"the training that {layout.plan} plans is continued")
        with counter("training", show=not quiet) as progress:
            run = plan_and_train(
                list(stores),
                folder,
                hours=hours,
                weights=weights,
                progress=progress,
                planned=lambda made: facts("What was read and measured", made.rows()),
                **chosen,
            )
    results(
        run=run.folder,
        plan=run.layout.plan,
        model=run.layout.model,
        curves=run.layout.metrics,
        report=run.report,
    )
