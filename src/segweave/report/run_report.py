"""Reads runs and their evaluations and makes figures and a report of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.boxes import FROM_REFERENCE
from segweave.data.case import Case
from segweave.data.joined_store import open_stores
from segweave.data.specs import TargetSpec
from segweave.data.store import CaseStore
from segweave.errors import InputError, SegweaveError, one_line
from segweave.evaluation import Evaluation, read_evaluation, summary_table
from segweave.evaluation import Table as ScoreTable
from segweave.evaluation.summary import case_values
from segweave.evaluation.tables import quantity_of
from segweave.registry import metrics
from segweave.report.case_pictures import TITLE, Pictured, pictures, values_by_case
from segweave.report.figures import as_png, score_dots, score_scale, training_curves
from segweave.report.page import Image, Page, Section, Table, write_page
from segweave.report.panels import kept_prediction
from segweave.runs.metrics_file import validation_scores

if TYPE_CHECKING:
    from segweave.runs.run_folder import Run

Curves = dict[str, dict[str, list[tuple[float, float]]]]


_FAR = 0.05
"""A last validation Dice that is so much below the best one is remarked."""


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
    scale = score_scale(
        [value for _, value in validated_points]
        + [v for one in evaluations for v in case_values(one.rows, one.manifest.primary).values()],
        evaluations[0].manifest.primary if evaluations else metric,
    )
    sections = [curves_section({recipe.arm or "run": run}, scale)]
    for number, evaluation in enumerate(evaluations):
        # The same definitions stand once on the page.
        earlier = {line for one in evaluations[:number] for line in summary_table([one]).notes}
        sections.append(scores_section([evaluation], scale, known=earlier))
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
    title = f"{TITLE}, {manifest.protocol}, {manifest.sources.get('part', '')} cases"
    try:
        path = run.recipe.data.store
        if path is None:
            raise InputError("drawing cases", expected="the run's store", found="none named")
        store = open_stores(path)
        if store.checksum != manifest.sources.get("store"):
            raise InputError("drawing cases of another store than that of the training")
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


def scores_section(
    evaluations: Sequence[Evaluation],
    scale: tuple[float, float] | None = None,
    known: Collection[str] = (),
) -> Section:
    """The section with one protocol's table, its definitions, and a dot for each case. `scale` is
    that of all scores of the page, `known` the definitions that the page has already.
    """
    first = evaluations[0].manifest
    part = first.sources.get("part", "")
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
    title = f"Scores, protocol {first.protocol}" + (f", {part} cases" if part else "")
    notes = [line for line in table.notes if line not in known]
    return Section(title, notes, [as_table(table)], images)


def as_table(table: ScoreTable, caption: str = "") -> Table:
    """A table of scores for the page."""
    return Table(table.header, table.rows, caption)
