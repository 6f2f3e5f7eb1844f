"""Trains a run: joins training, prediction and evaluation, which do not know each other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segweave.data.case import Case
from segweave.data.joined_store import JoinedStore
from segweave.data.specs import InputSpec, TargetSpec
from segweave.data.store import CaseStore
from segweave.evaluation import estimate, get_protocol, score_rows, validation_scores
from segweave.evaluation.folder import at_best_threshold
from segweave.evaluation.summary import case_values, unit_of
from segweave.prediction import Predictor, Session, load
from segweave.recipes import Recipe
from segweave.report.run_report import ValidatedCases, evaluations_of, values_by_case
from segweave.runs.run_folder import Run
from segweave.runtime.progress import Progress
from segweave.training import train as train_on
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

    run = train_on(
        recipe,
        source,
        out,
        score=_validation_scores,
        score_on_test=score_published,
        device=device,
        resume=resume,
        progress=progress,
    )
    update_report(run, lambda: _validated_cases(run, source, device))
    return run


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


def _validated_cases(run: Run, store: CaseStore, device: str) -> ValidatedCases | None:
    """The validation cases for the report of a training; None where there are none, where scores
    exist that the report shows, or where the libraries that draw are not installed.
    """
    ids = run.recipe.choose_parts(store).get("validation", [])
    drawn = all(find_spec(name) is not None for name in ("matplotlib", "jinja2"))
    if not ids or not drawn or evaluations_of(run):
        return None
    session = load(run.folder, device=device).session()
    protocol = get_protocol("clean", target=session.target)
    rows = []
    for id in ids:
        case = store.case(id)
        labels = session.predict(case).labels
        rows += score_rows(case, labels, target=session.target, protocol=protocol)
    values = values_by_case(rows, protocol.primary)
    return ValidatedCases(values, _Predicted(store, session), session.target)


def _validation_scores(
    network: nn.Module, input: InputSpec, target: TargetSpec, cases: Sequence[Case]
) -> dict[str, float]:
    session = Predictor(network, input, target).session()
    clean = get_protocol("clean", target=target)
    return validation_scores(lambda case: predict_for(session, case, clean)[0], cases, target)


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
