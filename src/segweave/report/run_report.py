"""Reads runs and their evaluations and makes figures and a report of them."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segweave.data.boxes import FROM_REFERENCE
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.evaluation import Evaluation, get_protocol, read_evaluation, summary_table
from segweave.evaluation import Table as ScoreTable
from segweave.evaluation.label_pairs import case_file
from segweave.evaluation.summary import case_values
from segweave.formats import read_label
from segweave.metrics import confusion
from segweave.report.figures import Panel, as_png, score_dots, training_curves
from segweave.report.page import Image, Page, Section, Table, write_page

if TYPE_CHECKING:
    from segweave.runs.run_folder import Run

Curves = dict[str, dict[str, list[tuple[float, float]]]]


def write_report(run: Run, path: str | Path | None = None) -> Path:
    """The report of one run, by default `RUN/report.html`: what was trained, its curves, the scores
    that exist, the recipe. Returns the path.
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
    sections = [curves_section({recipe.arm or "run": run})]
    for evaluation in evaluations_of(run):
        sections.append(scores_section([evaluation]))
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
    """Training loss (mean of each epoch) and validation Dice (mean over classes) by epoch."""
    loss: dict[str, list[tuple[float, float]]] = {}
    dice: dict[str, list[tuple[float, float]]] = {}
    for arm, run in runs.items():
        by_epoch: dict[float, list[float]] = {}
        dice[arm] = []
        for row in run.metrics:
            epoch = row["epoch"]
            if "loss" in row:
                by_epoch.setdefault(epoch, []).append(row["loss"])
            if "validation_dice" in row:
                dice[arm].append((epoch, row["validation_dice"]))
        loss[arm] = [(epoch, float(np.mean(values))) for epoch, values in by_epoch.items()]
    return {"training loss": loss, "validation Dice": dice}


def curves_section(runs: Mapping[str, Run]) -> Section:
    """The section with the training curves, or a line where nothing was written yet."""
    curves = curves_of(runs)
    if not any(points for arms in curves.values() for points in arms.values()):
        return Section("Training", ["Nothing was written yet."])
    figure = training_curves(curves)
    caption = "Loss, mean of each epoch, and mean Dice of the validation cases (protocol clean)."
    return Section("Training", images=[Image(as_png(figure), caption)])


def scores_section(evaluations: Sequence[Evaluation]) -> Section:
    """The section with one protocol's table, its definitions, and a dot for each case."""
    first = evaluations[0].manifest
    part = first.sources.get("part", "")
    table = summary_table(evaluations)
    dots: dict[str, dict[str, list[float]]] = {}
    for evaluation in evaluations:
        for arm in dict.fromkeys(row.arm for row in evaluation.rows):
            values = case_values([row for row in evaluation.rows if row.arm == arm], "dice")
            for (_, name), value in values.items():
                dots.setdefault(name, {}).setdefault(arm or "prediction", []).append(value)
    images = []
    if dots:
        images = [Image(as_png(score_dots(dots)), "Dice of every case (dots) and mean (bar).")]
    title = f"Scores, protocol {first.protocol}" + (f", {part} cases" if part else "")
    return Section(title, list(table.notes), [as_table(table)], images)


def as_table(table: ScoreTable, caption: str = "") -> Table:
    """A table of scores for the page."""
    return Table(table.header, table.rows, caption)


class HasCases(Protocol):
    """What gives a case by its id: a store, or scored files."""

    def case(self, id: str) -> Case:
        """The case."""


def panels(
    store: HasCases,
    ids: Sequence[str],
    predictions: Mapping[str, Path],
    target: TargetSpec,
    *,
    protocol: str = "clean",
    margin: int = 14,
) -> list[Panel]:
    """One row per case: the slice in which the rarest class is largest, cut to what is labelled.

    `predictions` maps an arm to the folder with what `protocol` scored. Under each map is its Dice
    in this slice. Raises InputError where a label map is missing.
    """
    rows = []
    for id in ids:
        case = store.case(id)
        if case.label is None or case.label.ndim != 3:
            continue
        # Where a header contradicts itself, its size was settled when the case was read.
        maps = {
            arm: read_label(
                _label_file(folder, id), case, geometry="pixdim", scaled=target.one_class
            )
            for arm, folder in predictions.items()
        }
        panel = panel_of(case, maps, target, protocol=protocol, margin=margin)
        rows += [panel] if panel is not None else []
    return rows


def panel_of(
    case: Case,
    predictions: Mapping[str, NDArray[np.uint8]],
    target: TargetSpec,
    *,
    protocol: str = "clean",
    margin: int = 14,
) -> Panel | None:
    """The row of one case: the slice in which the rarest class is largest, cut to what is labelled.
    None for a case whose classes overlap.

    Args:
        case: the case, with its true label map.
        predictions: arm → what `protocol` scored, (slices, height, width).
        target: the classes.
        protocol: its name.
        margin: pixels around what is labelled.
    """
    if case.label is None or case.label.ndim != 3:
        return None
    index = _shown_slice(case, target)
    truth = np.asarray(case.label[index])
    rows, columns = _window(truth, margin)
    maps: dict[str, NDArray[np.uint8]] = {}
    notes: dict[str, str] = {}
    for arm, scored in predictions.items():
        labels = get_protocol(protocol).shown(scored[index : index + 1])[0]
        maps[arm] = labels[rows, columns]
        notes[arm] = _dice_note(labels, truth, target)
    image = np.asarray(case.image[index])
    image = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    pixel = case.spacing[1] / case.spacing[2] if case.spacing else 1.0
    slice_name = f"{case.id}, slice {index + 1}" if case.slices > 1 else case.id
    return Panel(slice_name, image[rows, columns], truth[rows, columns], maps, notes, pixel)


def _shown_slice(case: Case, target: TargetSpec) -> int:
    assert case.label is not None
    sizes = np.stack(
        [(np.asarray(case.label) == label).sum(axis=(1, 2)) for label in target.foreground]
    )
    return int(np.lexsort((sizes.sum(axis=0), sizes.min(axis=0)))[-1])


def _window(truth: NDArray[np.uint8], margin: int) -> tuple[slice, slice]:
    """Rows and columns around what is labelled, all of the image where nothing is."""
    labelled = np.argwhere(truth > 0)
    if len(labelled) == 0:
        return slice(None), slice(None)
    low, high = labelled.min(axis=0), labelled.max(axis=0) + 1
    side = int((high - low).max()) + 2 * margin
    middle = (low + high) // 2
    start = np.maximum(middle - side // 2, 0)
    return slice(int(start[0]), int(start[0]) + side), slice(int(start[1]), int(start[1]) + side)


def _dice_note(labels: NDArray[np.uint8], truth: NDArray[np.uint8], target: TargetSpec) -> str:
    counts = confusion(labels, truth, tuple(target.foreground))
    values = [count.dice for count in counts.values() if count.present]
    return f"Dice {np.mean(values):.2f}" if values else ""


def _label_file(folder: Path, id: str) -> Path:
    name = urllib.parse.quote(id, safe=" ")
    for ending in (".nii.gz", ".png", ".npz"):
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    return case_file(folder, id)  # of another program
