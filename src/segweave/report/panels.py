"""The rows of pictures of a report: one slice of a case, its truth and what was predicted."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.evaluation import get_protocol
from segweave.evaluation.label_pairs import case_file
from segweave.formats import read_case, read_label
from segweave.metrics import compute_metric, confusion
from segweave.report.figures import Panel


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
        if case.label is None or (case.label.ndim != 3 and target.task == "labels"):
            continue
        maps = {arm: kept_prediction(folder, case, target) for arm, folder in predictions.items()}
        panel = panel_of(case, maps, target, protocol=protocol, margin=margin)
        rows += [panel] if panel is not None else []
    return rows


def panel_of(
    case: Case,
    predictions: Mapping[str, NDArray[Any]],
    target: TargetSpec,
    *,
    protocol: str = "clean",
    margin: int = 14,
) -> Panel | None:
    """The row of one case: the slice in which the rarest class is largest, cut to what is labelled;
    of images the middle slice. None for a case whose classes overlap.

    Args:
        case: the case, with its true label map.
        predictions: arm → what `protocol` scored, (slices, height, width), of images with an axis
            of channels after slices.
        target: the classes.
        protocol: its name.
        margin: pixels around what is labelled.
    """
    if target.task == "image":
        return _panel_of_images(case, predictions, target)
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


def _panel_of_images(
    case: Case, predictions: Mapping[str, NDArray[Any]], target: TargetSpec
) -> Panel | None:
    """The middle slice of a case, its true image and the predicted ones: their first channel."""
    if case.label is None or target.range is None:
        return None
    index, (low, high) = case.slices // 2, target.range
    truth = np.clip(np.asarray(case.label[index, 0], np.float64), low, high)
    shown = {arm: np.clip(image[index, 0], low, high) for arm, image in predictions.items()}
    values = {
        arm: compute_metric("psnr", image, truth, data_range=high - low)
        for arm, image in shown.items()
    }
    return Panel(
        f"{case.id}, slice {index + 1}" if case.slices > 1 else case.id,
        np.clip(np.asarray(case.image[index, 0], np.float64), low, high),
        truth,
        shown,
        {arm: f"PSNR {value:.2f} dB" for arm, value in values.items()},
        case.spacing[1] / case.spacing[2] if case.spacing else 1.0,
    )


def kept_prediction(folder: Path, case: Case, target: TargetSpec) -> NDArray[Any]:
    """The label map, or the image, of a case in a folder of predictions. Raises InputError."""
    file = kept_label(folder, case.id)
    # Where a header contradicts itself, its size was settled when the case was read.
    if target.task == "image":
        return read_case(file, geometry="pixdim", channels=True).image
    return read_label(file, case, geometry="pixdim", scaled=target.one_class)


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


def kept_label(folder: Path, id: str) -> Path:
    """The label map of a case in a folder of segweave or of another program. Raises InputError."""
    name = urllib.parse.quote(id, safe=" ")
    for ending in (".nii.gz", ".png", ".npz"):
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    return case_file(folder, id)  # of another program
