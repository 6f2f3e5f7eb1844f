"""What an evaluation of a run will score and where it goes, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from segweave.data.splits import only_split
from segweave.data.store import CaseStore
from segweave.errors import UsageError, nearest
from segweave.evaluation import Protocol, check_metrics, get_protocol
from segweave.evaluation.folder import check_free
from segweave.prediction.flips import Flips
from segweave.prediction.tiles import Tiles
from segweave.runs.model_folder import model_folder
from segweave.runs.run_folder import Run
from segweave.workflow.ledger import check_scored_once
from segweave.workflow.variants import Variant, may_replace, open_store, part_of_joined

Part = Literal["test", "validation", "training", "all"]


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation that may be made.

    Attributes:
        run: the run that keeps it.
        store: the store whose cases are scored.
        variant: what is scored.
        protocol: its rules.
        metrics: metrics beside those of the protocol.
        ids: the cases.
        name: the evaluation's name.
        folder: where it is written.
        away: whether that is elsewhere than in the run.
        tests: whether there are test cases among them.
        key: its name in the ledger.
        tested: how often test cases were scored, with this time.
        force: whether what is in the folder may be replaced.
    """

    run: Run
    store: CaseStore
    variant: Variant
    protocol: Protocol
    metrics: list[str]
    ids: list[str]
    name: str
    folder: Path
    away: bool
    tests: bool
    key: str
    tested: dict[str, int]
    force: bool


def plan_evaluation(
    run: str | Path | Run,
    *,
    part: Part = "test",
    protocol: str = "clean",
    checkpoint: str | None = None,
    members: Sequence[str | Path | Run] = (),
    flips: Flips = "none",
    tiles: Tiles | None = None,
    store: CaseStore | str | Path | None = None,
    metrics: Sequence[str] = (),
    out: str | Path | None = None,
    force: bool = False,
) -> EvaluationPlan:
    """The plan of `segweave.evaluate`, whose arguments these are; reads no image and changes
    nothing. Raises what that raises for wrong options, runs and cases.
    """
    run = run if isinstance(run, Run) else Run(run)
    if part not in get_args(Part):
        raise UsageError(
            "choosing cases to score", found=repr(part), remedy=nearest(part, get_args(Part))
        )
    cases = open_store(run, store)
    other = cases.checksum != run.environment["data"]["checksum"]
    more = tuple(one if isinstance(one, Run) else Run(one) for one in members)
    variant = Variant((run, *more), checkpoint, flips, tiles, cases.name if other else None)
    rules = get_protocol(protocol, dataset=cases.name, target=cases.target)
    added = [metric for metric in metrics if metric not in rules.definitions]
    check_metrics(added, probabilities=True, task=rules.task)

    # Choose the cases.
    ids = _choose(run, part, cases, other=other)
    if checkpoint is not None:
        for one in variant.runs:
            model_folder(one.folder, checkpoint)
    variant.check_cases(ids, part, cases)
    name = variant.evaluation_name(protocol, part)
    standard = run.layout.evaluation(name)
    folder = Path(out) if out is not None else standard
    away = folder.resolve() != standard.resolve()

    # Ask the ledger.
    tests = part in ("test", "all")
    key = f"{name}-{cases.checksum[:8]}" if other else name
    tested: dict[str, int] = {}
    if tests:
        tested = check_scored_once(
            variant.runs, key, rules.name, cases.checksum, cases.name, force=force
        )
    force = force or (not tests and may_replace(run, folder))
    check_free(folder, force=force)

    return EvaluationPlan(
        run, cases, variant, rules, added, ids, name, folder, away, tests, key, tested, force
    )


def _choose(run: Run, part: str, store: CaseStore, *, other: bool) -> list[str]:
    """The ids of the cases to score. Raises UsageError where there are none."""
    doing = f"choosing the {part} cases of the store {store.name}"
    if part == "all":
        ids = list(store.ids)
    elif not other:
        ids = run.recipe.choose_parts(store).get(part, [])
    elif (of_joined := part_of_joined(run, part, store)) is not None:
        ids = of_joined
    else:
        split = only_split(store.splits)
        named = str(getattr(run.recipe.data, part))
        if split is None or named not in store.splits[split]:
            raise UsageError(
                doing,
                expected=f"one split with the part {named}",
                found=", ".join(store.splits) or "no splits",
                remedy="score every case of that store with --part all",
            )
        ids = list(store.splits[split][named])
    if not ids:
        raise UsageError(doing, expected="at least one case", found="none")
    return ids
