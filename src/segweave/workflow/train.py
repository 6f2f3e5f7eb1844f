"""Trains a run: joins training, prediction and evaluation, which do not know each other."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segweave.data.case import Case
from segweave.data.joined_store import JoinedStore
from segweave.data.specs import InputSpec, TargetSpec
from segweave.data.store import CaseStore
from segweave.errors import UsageError
from segweave.evaluation import Row, estimate, get_protocol, score_rows, validation_scores
from segweave.evaluation.folder import at_best_threshold
from segweave.evaluation.summary import case_values, unit_of
from segweave.prediction import Predictor, Session, load
from segweave.recipes import Recipe
from segweave.report.run_report import ValidatedCases, evaluations_of, values_by_case
from segweave.runs.run_folder import Run
from segweave.runtime.progress import Progress
from segweave.training import train as train_on
from segweave.training.time_limit import TimeLimit
from segweave.workflow.evaluate import predict_for, update_report
from segweave.workflow.training_plan import plan_training

_log = logging.getLogger(__name__)


def train(
    recipe: Recipe | str | Path,
    store: CaseStore | str | Path | Sequence[str | Path] | None = None,
    out: str | Path = "run",
    *,
    sets: Sequence[str] = (),
    seed: int | None = None,
    fold: int | None = None,
    precision: str | None = None,
    device: str = "auto",
    resume: bool = True,
    hours: float | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train as a recipe says and write a run folder; an interrupted training is continued.

    Args:
        recipe: a Recipe, the name of a shipped one, or a YAML file.
        store: what `prepare` wrote, or a list of stores that are trained on together; without it,
            the recipe's `data.store`.
        out: the run folder.
        sets: fields to override, as texts "training.epochs=10".
        seed: overrides the recipe's seed.
        fold: train on the store's split `fold-K`, which keeps fold K for testing.
        precision: overrides the recipe's `training.precision`.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        resume: continue the training in `out`; without it a folder that holds a run is refused.
        hours: end the training in this time, behind the epoch after which no further one fits; the
            schedule stays that of all epochs. None for no limit.
        progress: called with (done, total, what is being done): first while the store is checked
            and images are read, then after each optimiser step, with loss and validation Dice.

    Validation cases are scored under the protocol `clean`. Test cases are used only where the
    recipe's protocol is `published`, whose checkpoint is chosen on them. Where several stores are
    trained on and the same image is in two of the parts, a warning names it. Raises what
    `segweave.training.train` raises. Example:

        >>> from segweave import train
        >>> run = train("demo", "stores/acdc", "runs/new", sets=["training.epochs=1"], device="cpu")
        >>> run.finished
        True
    """
    limit = None if hours is None else time_limit(hours)
    recipe, source = plan_training(
        recipe, store, out, sets=sets, seed=seed, fold=fold, precision=precision, resume=resume
    )
    if isinstance(source, JoinedStore):
        warn_of_copies(recipe, source)
    dataset = source.name

    def score_published(
        network: nn.Module, input: InputSpec, target: TargetSpec, cases: Sequence[Case]
    ) -> dict[str, float]:
        return _published_scores(Predictor(network, input, target), cases, dataset)

    passes: list[tuple[float, dict[str, float]]] = []

    def score_and_note(
        network: nn.Module, input: InputSpec, target: TargetSpec, cases: Sequence[Case]
    ) -> dict[str, float]:
        rows: list[Row] = []
        means = score_validation(network, input, target, cases, rows)
        primary = get_protocol("clean", target=target).primary
        passes.append((means[primary], values_by_case(rows, primary)))
        return means

    run = train_on(
        recipe,
        source,
        out,
        score=score_and_note,
        score_on_test=score_published,
        device=device,
        resume=resume,
        progress=progress,
        limit=limit,
    )
    update_report(run, lambda: _validated_cases(run, source, device, passes))
    return run


def time_limit(hours: float) -> TimeLimit:
    """The limit that begins now; raises UsageError for hours that are no time."""
    if not (math.isfinite(hours) and hours > 0):
        raise UsageError(
            "limiting the time of a training",
            expected="a time above 0 hours, as in --hours 1",
            found=f"--hours {hours:g}",
        )
    return TimeLimit(hours * 3600)


def warn_of_copies(recipe: Recipe, store: JoinedStore) -> None:
    """Log a warning for pairs of cases with the same image in different parts of a training: data
    sets that hold images of each other leak this way.
    """
    chosen = {recipe.data.split or "its split": recipe.choose_parts(store)}
    for sentence in store.copies(chosen):
        _log.warning(sentence)


class _Predicted:
    """Cases of a store as a session predicts them, predicted again where they are drawn, so that
    one is in memory at a time.
    """

    seen = True

    def __init__(self, store: CaseStore, session: Session) -> None:
        self._store = store
        self._session = session

    def case(self, id: str) -> Case:
        return self._store.case(id)

    def prediction(self, case: Case) -> NDArray[np.uint8]:
        return self._session.predict(case).labels


def _validated_cases(
    run: Run,
    store: CaseStore,
    device: str,
    passes: Sequence[tuple[float, Mapping[str, float]]] = (),
) -> ValidatedCases | None:
    """The validation cases for the report of a training; None where there are none, where scores
    exist that the report shows, or where the libraries that draw are not installed.

    `passes` are the mean and the value of each case of this session's validations: where that
    of the model's weights is among them, only the cases that are drawn are predicted again.
    """
    ids = run.recipe.choose_parts(store).get("validation", [])
    drawn = all(find_spec(name) is not None for name in ("matplotlib", "jinja2"))
    if not ids or not drawn or evaluations_of(run):
        return None
    session = load(run.folder, device=device).session()
    primary = get_protocol("clean", target=session.target).primary
    values = _scores_of_model(run, passes, primary)
    if values is None:
        rows: list[Row] = []
        cases = (store.case(id) for id in ids)
        validation_scores(lambda case: session.predict(case).labels, cases, session.target, rows)
        values = values_by_case(rows, primary)
    return ValidatedCases(values, _Predicted(store, session), session.target)


def score_validation(
    network: nn.Module,
    input: InputSpec,
    target: TargetSpec,
    cases: Sequence[Case],
    rows: list[Row] | None = None,
) -> dict[str, float]:
    """Means of validation cases under the protocol `clean`, as a training asks for them; the scores
    of the cases are left in the empty list `rows`.
    """
    session = Predictor(network, input, target).session()
    clean = get_protocol("clean", target=target)
    return validation_scores(lambda case: predict_for(session, case, clean)[0], cases, target, rows)


def _scores_of_model(
    run: Run, passes: Sequence[tuple[float, Mapping[str, float]]], metric: str
) -> Mapping[str, float] | None:
    """The pass that validated the weights of the finished model; None where an earlier session of
    the training did.
    """
    name = f"validation_{metric}"
    noted = [row[name] for row in run.metrics if name in row]
    if not noted:
        return None
    if run.recipe.training.checkpoint == "best":
        return next((values for mean, values in passes if mean == max(noted)), None)
    return next((values for mean, values in reversed(passes) if mean == noted[-1]), None)


def _published_scores(
    predictor: Predictor, cases: Sequence[Case], dataset: str
) -> dict[str, float]:
    """Means of the published protocol of a data set."""
    protocol = get_protocol("published", dataset=dataset, target=predictor.target)
    session = predictor.session()
    rows = []
    for case in cases:
        labels, _ = predict_for(session, case, protocol)
        rows += score_rows(case, labels, target=session.target, protocol=protocol)
    rows = at_best_threshold(rows)
    groups = {unit_of(row, protocol.per): row.group for row in rows}
    values = {metric: case_values(rows, metric, protocol.per) for metric in protocol.definitions}
    return {
        metric: estimate(scores, groups, per=protocol.per, interval=False).mean
        for metric, scores in values.items()
        if scores
    }
