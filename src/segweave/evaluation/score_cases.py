"""Scores predictions that are in memory: of a run on a store's cases, and during training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, one_line
from segweave.evaluation.families import get_protocol, score_case
from segweave.evaluation.folder import check_free, write_evaluation
from segweave.evaluation.protocols import Protocol, clean
from segweave.evaluation.rows import Evaluation, Manifest, Row
from segweave.evaluation.statistics import estimate
from segweave.evaluation.summary import case_values

Progress = Callable[[int, str], None]
"""Called with the number of cases done and the name of the last one."""


def score_rows(
    case: Case,
    prediction: NDArray[Any],
    *,
    target: TargetSpec,
    protocol: str | Protocol = "clean",
    arm: str = "",
    seed: int | None = None,
    fold: int | None = None,
    metrics: Sequence[str] | None = None,
) -> list[Row]:
    """The rows of one case. Raises InputError, naming the case, where it has no label or the
    prediction does not fit.
    """
    if case.label is None:
        raise InputError(
            f"scoring the case {case.id}", expected="a case with a label", found="none"
        )
    scores = score_case(
        prediction,
        case.label,
        target=target,
        spacing=case.spacing,
        stack=case.stack,
        protocol=protocol,
        metrics=metrics,
        instances=case.instances,
    )
    return [Row(case.id, case.group, score, arm, seed, fold) for score in scores]


class References:
    """Checksums of true labels, slice by slice, so that a video in one file and in a file a frame
    have the same.
    """

    def __init__(self) -> None:
        self._slices: dict[str, dict[int, str]] = {}

    def add(self, case: str, label: NDArray[Any], first: int = 0) -> None:
        """Note the slices of a label map (slices, ...), of which the first is number `first`."""
        known = self._slices.setdefault(case, {})
        for index, part in enumerate(np.asarray(label, np.uint8), start=first):
            content = f"{part.shape}".encode() + part.tobytes()
            known[index] = hashlib.sha256(content).hexdigest()

    def checksums(self) -> dict[str, str]:
        """Case → checksum."""
        return {case: _joined(slices) for case, slices in sorted(self._slices.items())}


def _joined(slices: Mapping[int, str]) -> str:
    text = " ".join(f"{index}:{digest}" for index, digest in sorted(slices.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def new_manifest(protocol: str | Protocol, target: TargetSpec, **fields: Any) -> Manifest:
    """A manifest with the protocol's words; its counts are filled in when it is written."""
    rules = get_protocol(protocol)
    return Manifest(
        protocol=rules.name,
        title=rules.title,
        means=rules.means,
        definitions=dict(rules.definitions),
        classes=list(target.foreground.values()),
        kind=target.kind,
        per=rules.per,
        columns=list(rules.columns),
        **fields,
    )


def evaluate_cases(
    pairs: Iterable[tuple[Case, NDArray[Any]]],
    out: str | Path,
    *,
    target: TargetSpec,
    protocol: str | Protocol = "clean",
    arm: str = "",
    seed: int | None = None,
    fold: int | None = None,
    sources: dict[str, str] | None = None,
    parameters: int | None = None,
    checkpoint: str | None = None,
    training_groups: int | None = None,
    tested: dict[str, int] | None = None,
    grouped: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score cases with their predictions, one after the other, and write an evaluation folder.

    Each prediction is a label map at the case's own size, made as `protocol.needs` says. What is
    known of the model goes into the manifest, see there. Raises InputError that lists every case
    that could not be scored; nothing is written then.
    """
    check_free(out, force=force)
    rows: list[Row] = []
    problems = Problems("scoring cases")
    references = References()
    seen: set[str] = set()
    for count, (case, prediction) in enumerate(pairs, start=1):
        if case.id in seen:
            problems.add(case.id, InputError("comes twice"))
            continue
        seen.add(case.id)
        try:
            rows += score_rows(
                case,
                prediction,
                target=target,
                protocol=protocol,
                arm=arm,
                seed=seed,
                fold=fold,
            )
            if case.label is not None:
                references.add(case.id, case.label)
        except UsageError:
            raise
        except SegweaveError as error:
            problems.add(case.id, error)
        if progress is not None:
            progress(count, case.id)
    problems.check()
    if not rows:
        raise InputError("scoring cases", expected="at least one case", found="none")
    manifest = new_manifest(
        protocol,
        target,
        sources=sources or {},
        parameters=parameters,
        checkpoint=checkpoint,
        training_groups=training_groups,
        tested=tested or {},
        references=references.checksums(),
        grouped=grouped,
    )
    return write_evaluation(out, rows, manifest, force=force)


def validation_scores(
    predict_labels: Callable[[Case], NDArray[Any]], cases: Iterable[Case], target: TargetSpec
) -> dict[str, float]:
    """Mean Dice under `clean` at the cases' own size: `dice` over classes and `dice/CLASS` for each
    class that the references hold. `predict_labels` gives a case's label map.
    """
    rows: list[Row] = []
    for case in cases:
        rows += score_rows(
            case, predict_labels(case), target=target, protocol=clean, metrics=("dice",)
        )
    values = case_values(rows, "dice")
    if not values:
        raise InputError(
            "scoring the validation cases",
            expected="at least one case whose label holds a class",
            found="none",
            remedy="check the split and the labels",
        )
    groups = {row.case: row.group for row in rows}
    found = {"dice": estimate(values, groups, interval=False).mean}
    for name in target.foreground.values():
        own = {key: value for key, value in values.items() if key[1] == name}
        if own:
            found[f"dice/{name}"] = estimate(own, groups, interval=False).mean
    return found


class Problems:
    """What is wrong with single files, told in one error with every remedy once."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self._lines: list[str] = []
        self._remedies: dict[str, None] = {}

    def add(self, name: str, error: SegweaveError) -> None:
        """Note what is wrong with `name`."""
        self._lines.append(f"{name}: {one_line(error)}")
        if error.remedy is not None:
            self._remedies[error.remedy] = None

    def check(self) -> None:
        """Raise InputError where there are any."""
        if self._lines:
            remedy = "; ".join(self._remedies) or None
            raise problem_list(self.doing, self._lines, remedy=remedy)


def problem_list(doing: str, problems: Sequence[str], *, remedy: str | None = None) -> InputError:
    """One error that lists all problems."""
    lines = "\n    ".join(problems)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InputError(f"{doing}: {count}", found=f"\n    {lines}", remedy=remedy)
