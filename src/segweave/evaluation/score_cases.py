"""Scores predictions that are in memory: of a run on a store's cases, and during training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, one_line
from segweave.evaluation.folder import check_free, metric_entry, write_evaluation
from segweave.evaluation.protocols import CLEAN, Protocol, get_protocol, score_case
from segweave.evaluation.rows import Evaluation, Manifest, Row
from segweave.evaluation.summary import case_values, estimate
from segweave.registry import MetricCard
from segweave.registry import metrics as registry
from segweave.runtime.progress import Progress
from segweave.storage import sha256_of_bytes, sha256_of_text


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


def score_rows(
    case: Case,
    prediction: NDArray[Any],
    *,
    target: TargetSpec,
    protocol: str | Protocol = "clean",
    metrics: Sequence[str] = (),
    only: Sequence[str] | None = None,
    probabilities: NDArray[Any] | None = None,
    arm: str = "",
    seed: int | None = None,
    fold: int | None = None,
) -> list[Row]:
    """The rows of one case.

    Args:
        case: the case, with its labels.
        prediction: as in `Scored`.
        target: the classes.
        protocol: a protocol or its name.
        metrics: names of metrics to compute beside the protocol's, a plug-in's too.
        only: names of metrics; only these are computed.
        probabilities: as in `Scored`.
        arm: the arm that made the prediction.
        seed: its seed.
        fold: its fold.

    Raises InputError, naming the case, where it has no label or the prediction does not fit, and
    what `score_case` raises.
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
        only=only,
        instances=case.instances,
        probabilities=probabilities,
    )
    return [Row(case.id, case.group, score, arm, seed, fold) for score in scores]


class References:
    """Checksums of true labels, slice by slice, so that a video in one file and in one file per
    frame have the same.
    """

    def __init__(self) -> None:
        self._slices: dict[str, dict[int, str]] = {}

    def add(self, case: str, label: NDArray[Any], first: int = 0) -> None:
        """Add the slices of a label map (slices, ...); `first` is the index of the first one."""
        digests = self._slices.setdefault(case, {})
        of_image = label.ndim == 4 and label.dtype != np.uint8  # see `Case.label`
        values = np.asarray(label, np.float32 if of_image else np.uint8)
        for index, image in enumerate(values, start=first):
            content = f"{image.shape}".encode() + image.tobytes()
            digests[index] = sha256_of_bytes(content)

    def checksums(self) -> dict[str, str]:
        """Case → checksum."""
        return {case: _joined(slices) for case, slices in sorted(self._slices.items())}


def _joined(slices: Mapping[int, str]) -> str:
    text = " ".join(f"{index}:{digest}" for index, digest in sorted(slices.items()))
    return sha256_of_text(text)


def new_manifest(
    protocol: str | Protocol, target: TargetSpec, metrics: Sequence[str] = (), **fields: Any
) -> Manifest:
    """The manifest of an evaluation that is about to be written, which fills in its counts.

    Args:
        protocol: a protocol or its name.
        target: the classes.
        metrics: names of the metrics that are computed beside the protocol's.
        fields: any other fields of `Manifest`.
    """
    rules = get_protocol(protocol, target=target)
    extra = [name for name in dict.fromkeys(metrics) if name not in rules.definitions]
    cards = {name: rules.card(name) for name in rules.definitions}
    cards |= {name: registry.card(name) for name in extra}
    # What another card computes keeps the short name under which the protocol prints it.
    entries = {
        name: metric_entry(card).model_copy(
            update={
                "label": registry.card(name).heading,
                "unit": target.unit if card.unit == "image" else card.unit,
            }
        )
        for name, card in cards.items()
    }
    return Manifest(
        protocol=rules.name,
        title=rules.title,
        means=rules.means,
        definitions={**rules.definitions, **{name: _definition(cards[name]) for name in extra}},
        metrics=entries,
        classes=list(target.foreground.values()),
        kind=target.kind,
        primary=rules.primary,
        per=rules.per,
        columns=list(dict.fromkeys((*rules.columns, *metrics))),
        versions={
            f"plug-in {Path(file).name}": digest
            for file, digest in registry.plugin_hashes.items()
            if extra
        },
        **fields,
    )


def _definition(card: MetricCard) -> str:
    """How a metric that the protocol does not list is defined."""
    options = ", ".join(f"{name} {value}" for name, value in card.options.items())
    classes = "" if card.reads == "probabilities" else ", where the class is in the reference"
    return f"{card.title}{f' ({options})' if options else ''}{classes}"


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
    predict_labels: Callable[[Case], NDArray[Any]], cases: Iterable[Case], target: TargetSpec
) -> dict[str, float]:
    """Means under `clean` at the cases' own size of the metric that arms are compared by, the first
    name (`dice` of classes, `psnr` of images): over classes, and as `dice/CLASS` for each class
    that the references hold. `predict_labels` gives a case's label map.
    """
    rules = get_protocol(CLEAN, target=target)
    metric = rules.primary
    rows: list[Row] = []
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
