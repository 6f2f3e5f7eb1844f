"""The section of a report with reliability diagrams and error against uncertainty, from an
evaluation's calibration.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segweave.report.figures import LINES, as_png, figure_class, plain_axis
from segweave.report.page import Image, Section, Table
from segweave.storage import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
_BEFORE, _AFTER = "as the network gives them", "at the temperature"
_NAMES = {
    "ece": "ECE",
    "ece_foreground": "ECE, foreground",
    "ece_classwise": "ECE, class-wise",
    "brier": "Brier score",
    "nll": "NLL",
}


def calibration_section(file: Path, title: str) -> Section:
    """Table and figures of one calibration.json. Raises InputError for a file of another format."""
    content = read_json(
        file, "drawing a calibration", formats=(FORMAT,), expected="calibration curves"
    )
    temperature = content["temperature"]
    states = {_BEFORE: content["before"]}
    if "after" in content:
        states[_AFTER] = content["after"]
    rows = []
    for key, name in _NAMES.items():
        rows.append([name, *(_text(state[key]) for state in states.values())])
    for name in content["before"]["reliability"]["classes"]:
        of_class = [state["reliability"]["classes"][name]["ece"] for state in states.values()]
        rows.append([f"ECE, {name}", *map(_text, of_class)])
    for where in content["before"]["risk"]:
        areas = [state["risk"][where]["aurc"] for state in states.values()]
        rows.append([f"AURC, {where}", *map(_text, areas)])
    columns = ["all cases together", *states]
    found = (
        f"The temperature is {temperature:g}: it was fitted on validation cases and changes no "
        "label."
        if temperature is not None
        else "No temperature was fitted for this combination of models, flips and tiles "
        "(segweave calibrate)."
    )
    notes = [
        found,
        f"Bins of equal width: {content['bins']}.",
        *(f"{_NAMES[key]}: {text}." for key, text in content["definitions"].items()),
        "AURC: area under the curve of error against the share of kept voxels.",
    ]
    images = [
        Image(
            as_png(reliability_diagrams(states)),
            "Reliability: where a point is on the diagonal, voxels of that confidence are right as "
            "often as they claim. Below it they are too certain. Bars: share of the voxels in each "
            "bin (log scale).",
        ),
        Image(
            as_png(risk_curves(states)),
            "Error against uncertainty: the share of wrong voxels among those that are kept, when "
            "the voxels of highest entropy are given to a person. Dotted: the best possible order; "
            "dashed: a random one.",
        ),
    ]
    return Section(title, notes, [Table(columns, rows)], images)


def reliability_diagrams(states: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One diagram for all voxels, one for the foreground, one for each class; a line per state."""
    first = next(iter(states.values()))["reliability"]
    panels = ["all voxels", "foreground", *first["classes"]]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = figure_class()(figsize=(3.1 * columns, 3.1 * lines + 0.4), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, name in zip(axes, panels, strict=False):
        is_class = name in first["classes"] and name not in ("all voxels", "foreground")
        share = axis.twinx()
        for number, (state, content) in enumerate(states.items()):
            found = content["reliability"]
            bins = found["classes"][name] if is_class else found[name]
            voxels = np.asarray(bins["voxels"], float)
            edges = np.linspace(0, 1, len(voxels) + 1)
            width = 0.9 / len(voxels) / len(states)
            left = edges[:-1] + 0.05 / len(voxels) + number * width
            share.bar(
                left,
                # A bin without voxels has no bar on a log scale.
                np.where(voxels > 0, voxels / max(1, voxels.sum()), np.nan),
                width,
                align="edge",
                color=LINES[number],
                alpha=0.18,
                linewidth=0,
            )
            points = [
                (c, a)
                for c, a in zip(bins["confidence"], bins["accuracy"], strict=True)
                if c is not None
            ]
            x, y = zip(*points, strict=True) if points else ((), ())
            label = f"{state}" if name == panels[0] else None
            axis.plot(
                x, y, color=LINES[number], marker="o", markersize=3.5, linewidth=1.4, label=label
            )
        axis.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle="--")
        errors = " → ".join(
            _text(
                (c["reliability"]["classes"][name] if is_class else c["reliability"][name])["ece"]
            )
            for c in states.values()
        )
        axis.set_title(f"{name}\nECE {errors}", fontsize=9)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        share.set_ylim(1e-6, 30)
        share.set_yscale("log")
        share.set_yticks([])
        share.minorticks_off()
        for side in share.spines.values():
            side.set_visible(False)
        axis.set_zorder(share.get_zorder() + 1)
        axis.patch.set_visible(False)
        axis.set_xlabel("probability of the class" if is_class else "confidence", fontsize=8)
        axis.set_ylabel("share that is of the class" if is_class else "accuracy", fontsize=8)
        plain_axis(axis)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def risk_curves(states: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Error among the kept voxels against the share that is left out, all and foreground."""
    panels = list(next(iter(states.values()))["risk"])
    figure = figure_class()(figsize=(4.2 * len(panels), 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, name in zip(axes, panels, strict=True):
        for number, (state, content) in enumerate(states.items()):
            found = content["risk"][name]
            if not found["coverage"]:
                continue
            left_out = 1 - np.asarray(found["coverage"])
            axis.plot(
                left_out,
                found["risk"],
                color=LINES[number],
                linewidth=1.5,
                linestyle="-" if number == 0 else "-.",
                label=f"entropy, {state}" if name == panels[0] else None,
            )
            if number == 0:
                wrong = float(found["errors"])
                kept = np.linspace(1e-3, 1, 2000)
                best = np.maximum(0, (kept - (1 - wrong)) / kept)
                axis.plot(1 - kept, best, color="#555555", linewidth=1, linestyle=":", label="best")
                axis.axhline(wrong, color="#888888", linewidth=0.8, linestyle="--", label="random")
        area = " → ".join(_text(c["risk"][name]["aurc"]) for c in states.values())
        axis.set_title(f"{name}\nAURC {area}", fontsize=9)
        axis.set_xlim(0, _end([content["risk"][name] for content in states.values()]))
        axis.set_ylim(bottom=0)
        axis.set_xlabel("share of voxels left out, the most uncertain first", fontsize=8)
        axis.set_ylabel("share of wrong voxels among the others", fontsize=8)
        plain_axis(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _end(found: Sequence[Mapping[str, Any]]) -> float:
    """Up to which share the curves are worth drawing: a little beyond the last errors."""
    ends = [0.02]
    for one in found:
        rest = zip(one["coverage"], one["risk"], strict=True)
        ends += [1 - kept for kept, risk in rest if risk > 0.01 * one["errors"]]
    return min(1.0, 1.25 * max(ends))


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.1e}"
