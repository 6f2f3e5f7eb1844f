"""Scores many predictions that are in memory into a folder, or during training; and lists what is
wrong with single cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, one_line
from segweave.evaluation.folder import References, check_free, new_manifest, write_evaluation
from segweave.evaluation.protocols import CLEAN, Protocol, get_protocol, score_rows
from segweave.evaluation.rows import Evaluation, Row
from segweave.evaluation.summary import case_values, estimate
from segweave.runtime.progress import Progress


class Scored(NamedTuple):
    """A case and what was predicted for it.

    Attributes:
        case: the case, with its labels.
        prediction: what the protocol scores (`Protocol.needs`): usually a label map at the case's
            own size, (slices, height, width), with a class axis after slices where classes overlap.
        probabilities: (slices, channels, height, width) at the case's own size, for metrics that
            read them (`needs_probabilities`).
    """

    case: Case
    prediction: NDArray[Any]
    probabilities: NDArray[Any] | None = None


def evaluate_cases(
    scored: Iterable[Scored | tuple[Case, NDArray[Any]]],
    out: str | Path,
    *,
    target: TargetSpec,
    protocol: str | Protocol = "clean",
    metrics: Sequence[str] = (),
    arm: str = "",
    seed: int | None = None,
    fold: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **fields: Any,
) -> Evaluation:
    """Score cases with their predictions, one after the other, and write an evaluation folder.

    Args:
        scored: cases and predictions, see `Scored`.
        out: the evaluation folder.
        target: the classes.
        protocol: a protocol or its name.
        metrics: names of metrics to compute beside the protocol's, a plug-in's too.
        arm: the arm that made the predictions.
        seed: its seed.
        fold: its fold.
        force: write over an evaluation.
        progress: called with (done, total, case); total is 0 where it is unknown.
        fields: further fields of the `Manifest` (`sources`, `parameters`, ...).

    Raises InputError that lists every case that could not be scored; nothing is written then.
    """
    check_free(out, force=force)
    rules = get_protocol(protocol, target=target)
    rows: list[Row] = []
    problems = Problems("scoring cases")
    references = References()
    seen: set[str] = set()
    total = len(scored) if isinstance(scored, Sequence) else 0
    for done, entry in enumerate(scored, start=1):
        case, prediction, probabilities = Scored(*entry)
        if case.id in seen:
            problems.add(case.id, InputError("comes twice"))
            continue
        seen.add(case.id)
        try:
            rows += score_rows(
                case,
                prediction,
                target=target,
                protocol=rules,
                metrics=metrics,
                probabilities=probabilities,
                arm=arm,
                seed=seed,
                fold=fold,
            )
            references.add(case.id, np.asarray(case.label))
        except UsageError:
            raise
        except SegweaveError as error:
            problems.add(case.id, error)
        if progress is not None:
            progress(done, total, case.id)
    problems.check()
    if not rows:
        raise InputError("scoring cases", expected="at least one case", found="none")
    manifest = new_manifest(rules, target, metrics, references=references.checksums(), **fields)
    return write_evaluation(out, rows, manifest, force=force)


def validation_scores(
    predict_labels: Callable[[Case], NDArray[Any]],
    cases: Iterable[Case],
    target: TargetSpec,
    rows: list[Row] | None = None,
) -> dict[str, float]:
    """Means under `clean` at the cases' own size of the metric that arms are compared by, the first
    name (`dice` of classes, `psnr` of images): over classes, and as `dice/CLASS` for each class
    that the references hold. `predict_labels` gives a case's label map; the scores of the cases are
    left in the empty list `rows`.
    """
    rules = get_protocol(CLEAN, target=target)
    metric = rules.primary
    rows = [] if rows is None else rows
    for case in cases:
        rows += score_rows(
            case, predict_labels(case), target=target, protocol=rules, only=(metric,)
        )
    values = case_values(rows, metric)
    if not values:
        raise InputError(
            "scoring the validation cases",
            expected="at least one case whose label holds a class",
            found="none",
            remedy="check the split and the labels",
        )
    groups = {row.case: row.group for row in rows}
    means = {metric: estimate(values, groups, interval=False).mean}
    for name in target.foreground.values():
        of_class = {key: value for key, value in values.items() if key[1] == name}
        if of_class:
            means[f"{metric}/{name}"] = estimate(of_class, groups, interval=False).mean
    return means


class Problems:
    """Collects what is wrong with single cases or files, for one error with all remedies."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self._lines: list[str] = []
        self._remedies: dict[str, None] = {}

    def add(self, name: str, error: SegweaveError) -> None:
        """Add what is wrong with `name`."""
        self._lines.append(f"{name}: {one_line(error)}")
        if error.remedy is not None:
            self._remedies[error.remedy] = None

    def check(self) -> None:
        """Raise InputError if there are any."""
        if self._lines:
            remedy = "; ".join(self._remedies) or None
            raise problem_list(self.doing, self._lines, remedy=remedy)


def problem_list(doing: str, problems: Sequence[str], *, remedy: str | None = None) -> InputError:
    """One error that lists all problems."""
    lines = "\n    ".join(problems)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InputError(f"{doing}: {count}", found=f"\n    {lines}", remedy=remedy)
