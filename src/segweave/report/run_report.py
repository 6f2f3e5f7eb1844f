"""Reads runs and their evaluations and makes a report of them, with pictures of the worst, the
median and the best case.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segweave.data.boxes import FROM_REFERENCE
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.store import CaseStore, Store
from segweave.errors import InputError, SegweaveError, one_line
from segweave.evaluation import Evaluation, Manifest, Row, read_evaluation, summary_table
from segweave.evaluation import Table as ScoreTable
from segweave.evaluation.folder import CALIBRATION
from segweave.evaluation.summary import case_values
from segweave.evaluation.tables import quantity_of
from segweave.registry import metrics
from segweave.report.figures import (
    Panel,
    as_png,
    dice_scale,
    kept_prediction,
    panel_of,
    prediction_panel,
    score_dots,
    training_curves,
)
from segweave.report.page import Image, Page, Section, Table, write_page

if TYPE_CHECKING:
    from segweave.runs.run_folder import Run

Curves = dict[str, dict[str, list[tuple[float, float]]]]


TITLE = "Cases worst, median and best"
_FAR = 0.05
"""A last validation Dice that is so much below the best one is remarked."""


class Pictured(Protocol):
    """What gives the cases and their predictions."""

    @property
    def seen(self) -> bool:
        """Whether there are images, and not label maps alone."""

    def case(self, id: str) -> Case:
        """The case with its true label map."""

    def prediction(self, case: Case) -> NDArray[Any]:
        """The label map, or the image, that was scored."""


@dataclass(frozen=True)
class ValidatedCases:
    """Validation cases as the model predicts them at the end of a training.

    Attributes:
        values: case → what arms are compared by.
        cases: the cases and their predictions.
        target: the classes.
    """

    values: Mapping[str, float]
    cases: Pictured
    target: TargetSpec


def write_report(
    run: Run, path: str | Path | None = None, *, validated: ValidatedCases | None = None
) -> Path:
    """The report of one run, by default `RUN/report.html`: what was trained, its curves, the scores
    that exist with the best, the median and the worst case as pictures, the recipe. Returns the
    path. `validated` are shown where no scores exist yet.
    """
    card = run.model_card if run.finished else {}
    recipe = run.recipe
    environment = run.environment
    facts = [
        ("run", str(run.folder)),
        ("model", str(card.get("title", recipe.network.name))),
        ("parameters", f"{card['parameters']:,}" if "parameters" in card else "not finished"),
        ("data", _data(environment["data"])),
        ("seed", str(recipe.seed)),
        ("segweave", str(environment["segweave"])),
    ]
    if prompt := card.get("prompt"):
        facts.append((f"{prompt} shown to the network", f"{FROM_REFERENCE}, for all scores"))
    evaluations = evaluations_of(run)
    metric, validated_points = validation_scores(run.metrics)
    shares = [value for _, value in validated_points] if metric == "dice" else []
    shares += [v for one in evaluations for v in case_values(one.rows, "dice").values()]
    scale = dice_scale(shares) if shares else None
    sections = [curves_section({recipe.arm or "run": run}, scale)]
    for number, evaluation in enumerate(evaluations):
        # The same definitions stand once on the page.
        earlier = {line for one in evaluations[:number] for line in summary_table([one]).notes}
        sections.append(scores_section([evaluation], scale, known=earlier))
        curves = evaluation.folder / CALIBRATION
        if curves.is_file():
            # Imported where it is needed: most evaluations have none.
            from segweave.report.calibration_section import calibration_section

            sections.append(calibration_section(curves, f"Calibration, {evaluation.folder.name}"))
        sections.append(_pictures(run, evaluation))
    if validated is not None and not evaluations:
        title = f"Validation cases: {TITLE.removeprefix('Cases ')}"
        quantity = metrics.card(metric).heading
        sections.append(
            pictures(
                validated.values, validated.cases, validated.target, title=title, quantity=quantity
            )
        )
    sections.append(Section("Recipe", ["Everything, defaults included."], code=recipe.to_yaml()))
    page = Page(
        f"Run {recipe.arm or run.folder.name}",
        sections,
        warning="Research software, not a medical device.",
        facts=facts,
    )
    return write_page(page, path if path is not None else run.layout.report)


def _data(data: Mapping[str, Any]) -> str:
    """Name of the store, and how many cases each part has."""
    parts = ", ".join(f"{number} {part}" for part, number in data["cases"].items())
    return f"{data['name']}: {parts} cases"


def evaluations_of(run: Run) -> list[Evaluation]:
    """The evaluations in a run's folder."""
    folders = sorted(run.layout.evaluations.glob("*/manifest.json"))
    return [read_evaluation(manifest.parent) for manifest in folders]


def validation_scores(rows: Iterable[Mapping[str, float]]) -> tuple[str, list[tuple[float, float]]]:
    """The metric by which the validation cases of a training are scored ("dice" where none was
    yet), and its (epoch, value), from the rows of metrics.csv.
    """
    given = list(rows)
    prefix = "validation_"
    names = (name for row in given for name in row if name.startswith(prefix) and "/" not in name)
    column = next(names, f"{prefix}dice")
    points = [(row["epoch"], row[column]) for row in given if column in row]
    return column.removeprefix(prefix), points


def curves_of(runs: Mapping[str, Run]) -> Curves:
    """Training loss (mean of each epoch) and validation score (mean over classes) by epoch."""
    loss: dict[str, list[tuple[float, float]]] = {}
    scores: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for arm, run in runs.items():
        by_epoch: dict[float, list[float]] = {}
        metric, points = validation_scores(run.metrics)
        scores.setdefault(f"validation {metrics.card(metric).heading}", {})[arm] = points
        for row in run.metrics:
            epoch = row["epoch"]
            if "loss" in row:
                by_epoch.setdefault(epoch, []).append(row["loss"])
        loss[arm] = [(epoch, float(np.mean(values))) for epoch, values in by_epoch.items()]
    return {"training loss": loss, **scores}


def curves_section(runs: Mapping[str, Run], scale: tuple[float, float] | None = None) -> Section:
    """The section with the training curves, or a line where nothing was written yet. Runs whose
    last validation Dice is far below their best are named. `scale` is that of all scores of the
    page.
    """
    curves = curves_of(runs)
    if not any(points for arms in curves.values() for points in arms.values()):
        return Section("Training", ["Nothing was written yet."])
    figure = training_curves(curves, scale)
    caption = (
        "Loss, mean of each epoch, and mean score of the validation cases (protocol clean); the "
        "ring is the best epoch."
    )
    remarks = [
        line
        for arm, points in curves.get("validation Dice", {}).items()
        if (line := _far_below(arm, points, runs[arm].recipe.training.checkpoint))
    ]
    return Section("Training", remarks, images=[Image(as_png(figure), caption)])


def _far_below(arm: str, points: Sequence[tuple[float, float]], checkpoint: str) -> str:
    """A sentence where the last validation is far below the best one, else ""."""
    finite = [point for point in points if np.isfinite(point[1])]
    if not finite:
        return ""
    (best_epoch, best), (last_epoch, last) = max(finite, key=lambda p: p[1]), finite[-1]
    if best - last <= _FAR:
        return ""
    line = (
        f"{arm}: the last validation Dice, {last:.3f} (epoch {last_epoch:g}), is far below the "
        f"best, {best:.3f} (epoch {best_epoch:g}). "
    )
    if checkpoint == "best":
        return line + "The model has the weights of the best epoch (training.checkpoint: best)."
    return (
        line + "The model has the weights of the last epoch. A lower rate or a longer training may "
        "end better; --checkpoint best uses the best weights, and training.checkpoint=best makes "
        "them the model."
    )


def values_by_case(rows: Sequence[Row], metric: str = "dice") -> dict[str, float]:
    """Case → mean over its classes (of the mean over images and runs)."""
    values: dict[str, list[float]] = {}
    for (case, _), value in case_values(rows, metric).items():
        values.setdefault(case, []).append(value)
    return {case: float(np.mean(of_case)) for case, of_case in values.items()}


def notable(values: Mapping[str, float]) -> dict[str, str]:
    """Case → why it is shown: the worst, the median and the best, as far as they differ."""
    order = sorted(values, key=lambda case: (values[case], case))
    if not order:
        return {}
    if len({*values.values()}) == 1:
        # Where all are equal, none is the best.
        return {order[0]: "one of equal cases" if len(order) > 1 else "the only case"}
    chosen: dict[str, list[str]] = {}
    for word, index in (("worst", 0), ("median", (len(order) - 1) // 2), ("best", -1)):
        chosen.setdefault(order[index], []).append(word)
    return {case: " and ".join(words) for case, words in chosen.items()}


def pictures(
    values: Mapping[str, float],
    cases: Pictured,
    target: TargetSpec,
    *,
    protocol: str = "clean",
    title: str = TITLE,
    quantity: str = "Dice",
) -> Section:
    """The section with image, truth and prediction of the notable cases. A picture that can't be
    drawn is a line with the reason.

    Args:
        values: case → what arms are compared by.
        cases: the cases and their predictions.
        target: the classes.
        protocol: its name.
        title: the heading.
        quantity: the name of the values.
    """
    rows: list[Panel] = []
    lines: list[str] = []
    for id, why in notable(values).items():
        line = f"{id}: {why}, {quantity} {values[id]:.3f}"
        try:
            case = cases.case(id)
            predictions = {"prediction": cases.prediction(case)}
            panel = panel_of(case, predictions, target, protocol=protocol)
        except (SegweaveError, OSError) as error:
            reason = one_line(error) if isinstance(error, SegweaveError) else str(error)
            lines.append(f"{line}. No picture: {reason}.")
            continue
        if panel is None:
            lines.append(f"{line}. No picture: its classes overlap.")
            continue
        title_of_row = f"{why}\n{panel.title}"
        rows.append(replace(panel, seen=cases.seen, title=title_of_row))
        lines.append(f"{line}.")
    if not rows:
        return Section(title, lines or [f"No case has a value of {quantity}."])
    which = "the middle slice; below, its"
    if target.task == "labels":
        which = "the slice in which the rarest class is largest; below, mean"
    caption = (
        f"One row per case, {which} {quantity}{' of that slice' * (target.task == 'labels')}."
        + ("" if cases.seen else " Without images the label maps are drawn on black.")
    )
    return Section(title, lines, images=[Image(as_png(prediction_panel(rows, target)), caption)])


def target_of(kind: str, classes: Sequence[str]) -> TargetSpec:
    """The target with these foreground classes, in the standard colours."""
    hidden = () if kind == "overlapping" else ("background",)
    if kind == "image":
        return TargetSpec(kind="image", names=tuple(classes), range=(0.0, 1.0))
    return TargetSpec.model_validate({"kind": kind, "names": (*hidden, *classes)})


@dataclass(frozen=True)
class _KeptCases:
    """The cases of an evaluation of a run: from its store, and the label maps that were kept."""

    store: CaseStore
    folder: Path
    seen: bool = True

    def case(self, id: str) -> Case:
        return self.store.case(id)

    def prediction(self, case: Case) -> NDArray[Any]:
        return kept_prediction(self.folder, case, self.store.target)


def _pictures(run: Run, evaluation: Evaluation) -> Section:
    manifest = evaluation.manifest
    title = f"{TITLE}, {manifest.protocol}, {_cases_of(manifest)}"
    try:
        other = manifest.sources.get("store_path")
        store = run.open_store() if other is None else Store(other)
        if store is None:
            raise InputError("drawing cases", expected="the run's store", found="none named")
        if store.checksum != manifest.sources.get("store"):
            raise InputError("drawing cases", found="another store than was scored")
        folder = run.layout.predictions(Path(manifest.sources.get("predictions", "")).name)
        cases = _KeptCases(store, folder)
        return pictures(
            values_by_case(evaluation.rows, manifest.primary),
            cases,
            store.target,
            protocol=manifest.protocol,
            title=title,
            quantity=quantity_of(manifest.primary, manifest.metrics),
        )
    except (SegweaveError, OSError) as error:
        reason = one_line(error) if isinstance(error, SegweaveError) else str(error)
        return Section(title, [f"No pictures: {reason}."])


def _cases_of(manifest: Manifest) -> str:
    """Which cases were scored: their part, and their data set where it is not the training's."""
    data = manifest.sources.get("data")
    return f"{manifest.sources.get('part', '')} cases" + (f" of {data}" if data else "")


def scores_section(
    evaluations: Sequence[Evaluation],
    scale: tuple[float, float] | None = None,
    known: Collection[str] = (),
) -> Section:
    """The section with one protocol's table, its definitions, and a dot for each case. `scale` is
    that of all scores of the page, `known` the definitions that the page has already.
    """
    first = evaluations[0].manifest
    table = summary_table(evaluations)
    dots: dict[str, dict[str, list[float]]] = {}
    for evaluation in evaluations:
        for arm in dict.fromkeys(row.arm for row in evaluation.rows):
            rows = [row for row in evaluation.rows if row.arm == arm]
            values = case_values(rows, first.primary)
            for (_, name), value in values.items():
                dots.setdefault(name, {}).setdefault(arm or "prediction", []).append(value)
    images = []
    if dots:
        quantity = quantity_of(first.primary, first.metrics)
        figure = score_dots(dots, quantity, scale)
        images = [Image(as_png(figure), f"{quantity} of every case (dots) and mean (bar).")]
    title = f"Scores, protocol {first.protocol}"
    title += f", {_cases_of(first)}" if "part" in first.sources else ""
    notes = [line for line in table.notes if line not in known]
    return Section(title, notes, [as_table(table)], images)


def as_table(table: ScoreTable, caption: str = "") -> Table:
    """A table of scores for the page."""
    return Table(table.header, table.rows, caption)
