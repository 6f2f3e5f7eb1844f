"""Draws docs/images/weaving.png: where a context module is woven into a network.

Run `python docs/make_diagram.py`. The positions are those of `segweave.weaving.POSITIONS`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from segweave.report import save_figure

BLUE, ORANGE, GREY, INK = "#d6e9f8", "#ffd9a0", "#eceff2", "#1b1f24"
EDGE, STRONG = "#5b6b7b", "#c65d00"
# Position → left, bottom, width and height of its box.
POSITIONS = {
    "encoder": (35.0, 17.0, 12.0, 4.5),
    "bottleneck": (45.0, 28.0, 13.0, 8.0),
    "skips": (45.0, 39.0, 13.0, 4.5),
    "decoder": (80.5, 29.5, 9.5, 5.0),
    "output": (100.2, 29.5, 8.0, 5.0),
}


def diagram() -> Figure:
    """The figure: a window of slices, a network with its positions, and a context module."""
    figure = Figure(figsize=(11.0, 5.2))
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_xlim(0, 110)
    axis.set_ylim(0, 52)
    axis.axis("off")
    _window(axis)
    _network(axis)
    _module(axis)
    return figure


def _window(axis: Any) -> None:
    axis.text(9, 48.5, "window", ha="center", fontsize=12, weight="bold", color=INK)
    axis.text(9, 46, "neighbouring slices", ha="center", fontsize=9, color=EDGE)
    for number, word in enumerate(("slice above", "this slice", "slice below")):
        y = 37 - 8 * number
        colour, line = (BLUE, 1.8) if number == 1 else (GREY, 1.0)
        axis.add_patch(Rectangle((4, y), 10, 6, facecolor=colour, edgecolor=EDGE, lw=line))
        axis.text(9, y + 3, word, ha="center", va="center", fontsize=8.5, color=INK)
        _arrow(axis, (14.3, y + 3), (21.6, 32 + (number - 1) * -1.2))
    axis.text(9, 17.5, "each is encoded once", ha="center", fontsize=8.5, color=EDGE)


def _network(axis: Any) -> None:
    axis.text(52, 48.5, "network", ha="center", fontsize=12, weight="bold", color=INK)
    axis.text(52, 46, "any of them, or yours", ha="center", fontsize=9, color=EDGE)
    _box(axis, (22, 26), 10, 12, "encoder", BLUE)
    _box(axis, (67, 26), 10, 12, "decoder", BLUE)
    _box(axis, (93, 27.5), 6, 9, "head", BLUE)
    for name, (left, bottom, width, height) in POSITIONS.items():
        _box(axis, (left, bottom), width, height, name, ORANGE, position=True)
    _arrow(axis, (32.2, 32), (44.8, 32))
    _arrow(axis, (58.2, 32), (66.8, 32))
    _arrow(axis, (77.2, 32), (80.3, 32))
    _arrow(axis, (90.2, 32), (92.8, 32))
    _arrow(axis, (99.1, 32), (100.1, 32))
    _arrow(axis, (32.2, 36), (44.8, 41))
    _arrow(axis, (58.2, 41), (66.8, 36.5))
    _arrow(axis, (14.3, 22), (34.8, 19.2))
    _arrow(axis, (47.2, 19.4), (51.5, 27.8))
    axis.text(24.5, 17.8, "the images,\nembedded", ha="center", va="center", fontsize=8, color=EDGE)
    axis.text(104, 27.6, "label map of\nthis slice", ha="center", va="top", fontsize=8.5, color=INK)
    for y, colour, edge, words in (
        (48, BLUE, EDGE, "part of the network"),
        (45, ORANGE, STRONG, "position of a module"),
    ):
        axis.add_patch(Rectangle((88, y), 3, 1.8, facecolor=colour, edgecolor=edge, lw=1.3))
        axis.text(92, y + 0.9, words, va="center", fontsize=8.5, color=INK)


def _module(axis: Any) -> None:
    axis.add_patch(
        FancyBboxPatch(
            (20, 2),
            70,
            11,
            boxstyle="round,pad=0.3,rounding_size=1",
            facecolor="#fff7ea",
            edgecolor=STRONG,
            lw=1.4,
        )
    )
    axis.text(22, 11, "context module", fontsize=11, weight="bold", color=INK, va="center")
    axis.text(
        22,
        8.6,
        "in one of the orange boxes: sa-lstm, lstm-sa, sa-embedded-lstm, conv, ... or yours",
        fontsize=9,
        color=EDGE,
        va="center",
    )
    for number in range(3):
        x = 27 + 5.2 * number
        colour = BLUE if number == 1 else GREY
        axis.add_patch(Rectangle((x, 3.2), 4, 3.6, facecolor=colour, edgecolor=EDGE))
    axis.text(25.6, 5, "maps", ha="right", va="center", fontsize=8.5, color=INK)
    _arrow(axis, (43, 5), (49, 5))
    _box(axis, (49.2, 3), 17, 4, "reads the sequence", ORANGE)
    _arrow(axis, (66.5, 5), (72.3, 5))
    axis.add_patch(Rectangle((72.6, 3.2), 4, 3.6, facecolor=BLUE, edgecolor=EDGE))
    axis.text(77.4, 5, "one map", va="center", fontsize=8.5, color=INK)


def _box(
    axis: Any,
    corner: tuple[float, float],
    width: float,
    height: float,
    word: str,
    colour: str,
    position: bool = False,
) -> None:
    axis.add_patch(
        FancyBboxPatch(
            corner,
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.8",
            facecolor=colour,
            edgecolor=STRONG if position else EDGE,
            lw=1.6 if position else 1.2,
        )
    )
    axis.text(
        corner[0] + width / 2,
        corner[1] + height / 2,
        word,
        ha="center",
        va="center",
        fontsize=9.5,
        color=INK,
        weight="bold" if position else None,
        family="monospace" if position else None,
    )


def _arrow(axis: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, color=EDGE, lw=1.1, shrinkA=0, shrinkB=0
        )
    )


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "images" / "weaving.png"
    )
    save_figure(diagram(), parser.parse_args().out, dpi=110)


if __name__ == "__main__":
    main()
