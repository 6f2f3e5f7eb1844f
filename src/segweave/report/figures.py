"""Figures of predictions, training curves and scores, drawn without global state; and which slice
of a case is shown with its truth and its predictions.
"""

from __future__ import annotations

import io
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec, class_colours
from segweave.errors import MissingExtraError, UsageError
from segweave.evaluation import get_protocol
from segweave.evaluation.label_pairs import case_file
from segweave.formats import read_case, read_label
from segweave.metrics import confusion
from segweave.storage import atomic_write
from segweave.words import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#000000")


@dataclass(frozen=True)
class Panel:
    """One row of a panel: an image (height, width) or (height, width, 3), its true label map and
    one predicted label map per arm; or a true image and predicted ones, floats, which are drawn in
    the grey values of the image. `notes` are small texts under a map, keyed like `predictions`.
    `pixel` is the height of a pixel over its width. Without a `seen` image the maps are on black.
    """

    title: str
    image: NDArray[Any]
    truth: NDArray[Any] | None
    predictions: Mapping[str, NDArray[Any]]
    notes: Mapping[str, str] = field(default_factory=dict)
    pixel: float = 1.0
    seen: bool = True


def prediction_panel(rows: Sequence[Panel], target: TargetSpec, title: str = "") -> Figure:
    """Image, truth and each prediction side by side, one row per slice, with a legend of classes.

    Label maps are drawn over the image, filled and outlined. Raises UsageError without rows and
    MissingExtraError without matplotlib.
    """
    figure_type = figure_class()
    if not rows:
        raise UsageError("drawing predictions", expected="at least one slice", found="none")
    arms = list(dict.fromkeys(arm for row in rows for arm in row.predictions))
    with_truth = any(row.truth is not None for row in rows)
    with_image = any(row.seen for row in rows) or not (with_truth or arms)
    columns = [*(["image"] if with_image else []), *(["truth"] if with_truth else []), *arms]
    tallest = max(_aspect(row) for row in rows)
    figure = figure_type(
        figsize=(1.9 * len(columns), (1.8 * tallest + 0.15) * len(rows) + 0.55),
        layout="constrained",
    )
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    colours = class_colours(target)
    for number, (row, line) in enumerate(zip(rows, axes, strict=True)):
        for name, axis in zip(columns, line, strict=True):
            labels = row.truth if name == "truth" else row.predictions.get(name)
            _draw(axis, row, labels, colours)
            if number == 0:
                axis.set_title(name, fontsize=9, fontweight="bold" if name == "truth" else None)
            if name in row.notes:
                axis.set_xlabel(row.notes[name], fontsize=7.5, labelpad=2)
        line[0].set_ylabel(row.title, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    if target.task == "labels":
        _legend(figure, target, colours)
    return figure


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
        predictions: arm → what `protocol` scored, (slices, height, width).
        target: the classes.
        protocol: its name.
        margin: pixels around what is labelled.
    """
    if target.task == "image":
        from segweave.report.image_panel import row_of_images

        return Panel(**row_of_images(case, predictions, target))
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


def kept_prediction(folder: Path, case: Case, target: TargetSpec) -> NDArray[Any]:
    """The label map, or the image, of a case in a folder of predictions. Raises InputError."""
    file = kept_label(folder, case.id)
    # Where a header contradicts itself, its size was settled when the case was read.
    if target.task == "image":
        return read_case(file, geometry="pixdim", channels=True).image
    return read_label(file, case, geometry="pixdim", scaled=target.one_class)


def kept_label(folder: Path, id: str) -> Path:
    """The label map of a case in a folder of segweave or of another program. Raises InputError."""
    name = urllib.parse.quote(id, safe=" ")
    for ending in (".nii.gz", ".png", ".npz"):
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    return case_file(folder, id)  # of another program


def dice_scale(values: Iterable[float]) -> tuple[float, float]:
    """The one scale of all Dice on a page: from 0, 0.5 or 0.8, whatever is below all, to 1."""
    lowest = min((value for value in values if np.isfinite(value)), default=0.0)
    return max(start for start in (0.0, 0.5, 0.8) if start == 0 or lowest >= start), 1.0


def training_curves(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    scale: tuple[float, float] | None = None,
) -> Figure:
    """One small plot per quantity, one line per arm; `curves` maps quantity → arm → (epoch, value).
    The best validation score of a line has a ring. `scale` is that of all scores of the page.

    Raises UsageError where there is nothing to draw.
    """
    figure_type = figure_class()
    shown = {name: arms for name, arms in curves.items() if any(arms.values())}
    if not shown:
        raise UsageError("drawing training curves", expected="at least one value", found="none")
    figure = figure_type(figsize=(4.6 * len(shown), 3.2), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False, sharex=True)[0]
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    everyone = list(dict.fromkeys(arm for arms in shown.values() for arm in arms))
    styles = {arm: LINES[i % len(LINES)] for i, arm in enumerate(everyone)}
    for axis, (name, arms) in zip(axes, shown.items(), strict=True):
        for arm, points in arms.items():
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(
                    x,
                    y,
                    color=styles[arm],
                    linewidth=1.5,
                    marker="o" if len(x) < 12 else None,
                    markersize=3,
                    label=arm,
                )
        axis.set_xlabel("epoch", fontsize=9)
        axis.set_title(name, fontsize=10)
        plain_axis(axis)
        if name.startswith("validation"):
            _mark_best(axis, arms, styles)
        if name.endswith("Dice"):
            low, high = scale or dice_scale(y for points in arms.values() for _, y in points)
            axis.set_ylim(low, high + 0.02 * (high - low))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def score_dots(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    quantity: str = "Dice",
    scale: tuple[float, float] | None = None,
) -> Figure:
    """Every case's score as a dot and the mean as a bar; `scores` maps class → arm → values. All
    classes have one scale, by default `dice_scale`, of other quantities the range of the scores.
    """
    figure_type = figure_class()
    arms = list(dict.fromkeys(arm for values in scores.values() for arm in values))
    if not arms:
        raise UsageError("drawing scores", expected="at least one score", found="none")
    figure = figure_type(
        figsize=(2.6 * len(scores) + 1.6, 0.34 * len(arms) + 1.3), layout="constrained"
    )
    axes = figure.subplots(1, len(scores), squeeze=False, sharey=True)[0]
    every = [v for arms_of in scores.values() for values in arms_of.values() for v in values]
    around = (min(every, default=0.0), max(every, default=0.0) + 1e-9)
    low, high = scale or (dice_scale(every) if quantity == "Dice" else around)
    for axis, (name, values) in zip(axes, scores.items(), strict=True):
        for y, arm in enumerate(arms):
            points = np.asarray(values.get(arm, ()), dtype=float)
            points = points[np.isfinite(points)]
            if len(points):
                spread = (np.arange(len(points)) % 5 - 2) * 0.06
                axis.plot(points, y + spread, "o", color=LINES[0], alpha=0.45, markersize=3.5)
                axis.plot([points.mean()] * 2, [y - 0.3, y + 0.3], color="#000", lw=1.6)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(quantity, fontsize=8)
        axis.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        plain_axis(axis)
    axes[0].set_yticks(range(len(arms)), printable_names(arms), fontsize=8)
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    return figure


def as_png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as the bytes of a PNG."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        # Names may hold dollar signs; only the numbers of a logarithmic axis are formulas.
        assert isinstance(text, Text)
        if "mathdefault" not in text.get_text():
            text.set_parse_math(False)
            if not text.get_text().isprintable():
                text.set_text(printable(text.get_text()))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Write the figure as a PNG, whole or not at all; returns the path."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(as_png(figure, dpi))
    return Path(path)


def _draw(axis: Any, row: Panel, labels: NDArray[Any] | None, colours: Mapping[int, str]) -> None:
    from matplotlib.colors import to_rgb

    image = np.asarray(row.image) if row.seen else np.zeros(row.image.shape[:2])
    if image.ndim == 2:
        low, high = np.percentile(image, (0.5, 99.5))
        of_image = labels is not None and labels.dtype.kind == "f"
        shown, labels = (labels, None) if of_image else (image, labels)
        axis.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), aspect=row.pixel)
    else:
        axis.imshow(image, aspect=row.pixel)
    if labels is not None:
        overlay = np.zeros((*labels.shape, 4))
        for label, colour in colours.items():
            # On black a thin fill would not have the colour of the legend.
            overlay[labels == label] = (*to_rgb(colour), 0.4 if row.seen else 1.0)
        axis.imshow(overlay, aspect=row.pixel, interpolation="nearest")
        for label, colour in colours.items():
            inside = labels == label
            if inside.any() and not inside.all():
                # The dark edge keeps the line legible on tissue of the same brightness.
                axis.contour(inside, levels=[0.5], colors=["#000000"], linewidths=2.0, alpha=0.55)
                axis.contour(inside, levels=[0.5], colors=[colour], linewidths=1.1)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def _mark_best(
    axis: Any,
    arms: Mapping[str, Sequence[tuple[float, float]]],
    styles: Mapping[str, str],
) -> None:
    """A ring around the highest value of each line, and its number where there is one line."""
    drawn = {arm: points for arm, points in arms.items() if len(points) > 1}
    for arm, points in drawn.items():
        epoch, value = max(points, key=lambda point: point[1])
        axis.plot(
            [epoch], [value], "o", markersize=9, markerfacecolor="none", color=styles[arm], zorder=3
        )
        if len(drawn) == 1:
            axis.annotate(
                f"best {value:.3f}",
                (epoch, value),
                textcoords="offset points",
                xytext=(0, -16),
                ha="center",
                fontsize=8,
            )


def _legend(figure: Figure, target: TargetSpec, colours: Mapping[int, str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colours[label], label=name) for label, name in target.foreground.items()]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(len(patches), 6),
        fontsize=8,
        frameon=False,
    )


def printable_names(names: Iterable[str]) -> list[str]:
    """Labels of ticks are set anew when the figure is drawn, so they are cleaned before."""
    return [name if name.isprintable() else printable(name) for name in names]


def _aspect(row: Panel) -> float:
    height, width = row.image.shape[:2]
    return float(height * row.pixel / width)


def plain_axis(axis: Any) -> None:
    """Small ticks, a light grid, no frame at the top and on the right."""
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def figure_class() -> type[Figure]:
    """Matplotlib's Figure; raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure as FigureType
    except ImportError as error:
        raise MissingExtraError("drawing a figure", library="matplotlib", extra="report") from error
    return FigureType
