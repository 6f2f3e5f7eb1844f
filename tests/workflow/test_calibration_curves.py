"""Calibration over all cases: sums equal what the metrics give of everything at once."""

from __future__ import annotations

import numpy as np
import pytest

from segweave.data.specs import TargetSpec
from segweave.metrics import compute_metric
from segweave.prediction.temperature import probabilities_of, scaled
from segweave.report.calibration_section import reliability_diagrams, risk_curves
from segweave.workflow.calibration_curves import CalibrationCurves

TARGETS = (
    TargetSpec(names=("background", "left", "right"), ignored=9),
    TargetSpec(kind="binary", names=("polyp",), ignored=9),
    TargetSpec(kind="overlapping", names=("disc", "cup")),
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_sums_are_those_of_all_cases(target: TargetSpec) -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (5, target.classes, 8, 7)).astype(np.float32)
    maps = probabilities_of(logits, target, axis=1)
    if target.kind == "overlapping":
        truth = draw.integers(0, 2, maps.shape)
    else:
        truth = draw.integers(0, 2 + (target.kind == "exclusive"), (5, 8, 7))
        truth[0, :2] = 9
    curves = CalibrationCurves(target, 2.0)
    for part in (slice(0, 2), slice(2, 5)):
        found = curves.add(maps[part], truth[part].astype(np.uint8))
        np.testing.assert_allclose(found, scaled(maps[part], target, 2.0), rtol=1e-6)
    content = curves.content()
    if target.kind == "overlapping":
        # Each class is a map of two classes; all of them count together.
        pairs = [np.concatenate([one[:, k] for k in range(2)])[:, None] for one in (maps, truth)]
        flat, labels = pairs[0], pairs[1][:, 0]
    else:
        flat, labels = maps, truth
    for state, values in (("before", flat), ("after", scaled(flat, target, 2.0))):
        for key, name in (("ece", "ece"), ("ece_foreground", "ece-foreground"), ("nll", "nll"),
                          ("brier", "brier")):  # fmt: skip
            wanted = compute_metric(name, values, labels, ignored=target.ignored)
            assert content[state][key] == pytest.approx(wanted, abs=2e-6), (state, key)
        # Steps of uncertainty are coarser than the values themselves.
        wanted = compute_metric("aurc", values, labels, ignored=target.ignored)
        assert content[state]["risk"]["all voxels"]["aurc"] == pytest.approx(wanted, rel=0.05)
    for name, one in content["before"]["reliability"]["classes"].items():
        assert sum(one["voxels"]) == content["before"]["voxels"] / (
            2 if target.kind == "overlapping" else 1
        ), name
    states = {state: content[state] for state in ("before", "after")}
    panels = 2 + len(content["before"]["reliability"]["classes"])
    drawn = [axis for axis in reliability_diagrams(states).axes if axis.get_title()]
    assert len(drawn) == panels
    assert len(risk_curves(states).axes) == 2


def test_without_a_temperature_there_is_no_after() -> None:
    curves = CalibrationCurves(TARGETS[1], None)
    maps = np.full((1, 1, 4, 4), 0.25, np.float32)
    assert curves.add(maps, np.zeros((1, 4, 4), np.uint8)) is maps
    content = curves.content()
    assert "after" not in content
    assert content["before"]["ece"] == pytest.approx(0.25)
    # Nothing is foreground: what can't be measured is null, and the figures are drawn all the same.
    assert content["before"]["ece_foreground"] is None
    assert reliability_diagrams({"before": content["before"]}).axes
    assert risk_curves({"before": content["before"]}).axes
