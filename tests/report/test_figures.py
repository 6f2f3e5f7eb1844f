"""Figures show what they are given: colours of classes, one column an arm, nothing global."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from segweave.data.specs import TargetSpec
from segweave.errors import MissingExtraError, UsageError
from segweave.report import (
    Panel,
    prediction_panel,
    save_figure,
    score_dots,
    training_curves,
)
from segweave.report.comparison_report import difference_dots
from segweave.report.figures import as_png

HEART = TargetSpec(names=("background", "RV", "myocardium", "LV"))


def row(arms: tuple[str, ...] = ("unet", "sa-lstm")) -> Panel:
    image = np.random.default_rng(0).normal(size=(24, 20))
    truth = np.zeros((24, 20), np.uint8)
    truth[5:15, 5:15] = 1
    truth[8:12, 8:12] = 3
    return Panel("case, slice 3", image, truth, {arm: truth.copy() for arm in arms}, {"unet": "1"})


def test_the_panel_has_a_column_for_image_truth_and_each_arm_and_names_the_classes() -> None:
    figure = prediction_panel([row(), row()], HEART, title="two slices")
    assert len(figure.axes) == 2 * 4
    assert [a.get_title() for a in figure.axes[:4]] == ["image", "truth", "unet", "sa-lstm"]
    assert figure.axes[2].get_xlabel() == "1"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["RV", "myocardium", "LV"]


def test_the_drawn_colours_are_those_of_the_classes() -> None:
    overlay = prediction_panel([row()], HEART).axes[1].images[1].get_array()
    assert np.allclose(overlay[0, 0], 0), "background is left clear"
    assert overlay[9, 9, 3] > 0
    assert np.allclose(overlay[9, 9, :3], [0x56 / 255, 0xB4 / 255, 0xE9 / 255])


def test_a_panel_without_truth_and_with_colour_images() -> None:
    image = np.zeros((8, 9, 3), np.uint8)
    figure = prediction_panel([Panel("x", image, None, {"m": np.ones((8, 9), np.uint8)})], HEART)
    assert [a.get_title() for a in figure.axes] == ["image", "m"]


def test_curves_and_dots_hold_every_value() -> None:
    curves = training_curves({"loss": {"a": [(1, 0.5), (2, 0.25)]}, "empty": {"a": []}})
    assert len(curves.axes) == 1
    assert curves.axes[0].lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.25]]
    dots = score_dots({"RV": {"a": [0.5, float("nan"), 0.7], "b": [0.9]}})
    assert dots.axes[0].lines[0].get_xdata().tolist() == [0.5, 0.7]
    assert dots.axes[0].lines[1].get_xdata() == pytest.approx([0.6, 0.6])


@pytest.mark.parametrize(
    "draw",
    [lambda: prediction_panel([], HEART), lambda: training_curves({}), lambda: score_dots({})],
    ids=["panel", "curves", "dots"],
)
def test_nothing_to_draw_is_a_usage_error(draw: object) -> None:
    with pytest.raises(UsageError, match="at least one"):
        draw()  # type: ignore[operator]


def test_a_figure_is_written_whole_and_is_a_png(tmp_path: Path) -> None:
    path = save_figure(prediction_panel([row()], HEART), tmp_path / "deep" / "panel.png")
    with Picture.open(path) as picture:
        assert picture.size[0] > 400
    assert [p.name for p in path.parent.iterdir()] == ["panel.png"]


def test_the_picture_is_the_same_each_time() -> None:
    one, two = (Picture.open(BytesIO(as_png(prediction_panel([row()], HEART)))) for _ in range(2))
    assert np.array_equal(np.asarray(one), np.asarray(two))


def test_figures_touch_no_global_state_of_matplotlib() -> None:
    code = (
        "import sys, numpy as np\n"
        "from segweave.report import training_curves\n"
        "training_curves({'loss': {'a': [(1, 2.0)]}})\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"segweave\[report\]"):
        prediction_panel([row()], HEART)


@pytest.mark.parametrize(
    "name", ["$\\frac{$", "a$b", "a\x1b[31mb", "a\nb", "", "=1+1", "\ud83d\ude00"]
)
def test_names_of_any_kind_are_drawn(name: str) -> None:
    """A figure that fails would take the command down that wants it."""
    for figure in (
        training_curves({"loss": {name: [(0.0, 1.0), (1.0, 0.5)]}}),
        score_dots({name: {name: [0.1, 0.5]}}),
        difference_dots({name: ([0.1, 0.2], (0.15, 0.1, 0.2))}, name),
    ):
        assert as_png(figure).startswith(b"\x89PNG")


def test_logarithmic_axes_keep_their_exponents() -> None:
    figure = training_curves({"loss": {"unet": [(0.0, 1.0)]}})
    figure.axes[0].set_yscale("log")
    figure.axes[0].set_ylim(1e-4, 1)
    as_png(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert any("mathdefault" in label for label in labels)
