"""Scores that a protocol sets by rule are counted, and notes say what such a rule does."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from segweave.comparison import Comparison, as_csv, as_markdown, compare
from segweave.data.specs import TargetSpec
from segweave.evaluation import Evaluation, Row, score_case, write_evaluation
from segweave.evaluation.folder import new_manifest
from segweave.evaluation.protocols import get_protocol

TARGET = TargetSpec(kind="binary", names=("background", "organ"))
GROUPS = 7


def scored(folder: Path, arm: str, protocol: str, missed: int, shift: int) -> Evaluation:
    """An organ of 6 × 6 × 6 voxels, in the first `missed` cases not predicted, in the others moved
    by `shift`. The last case lacks it, and `arm` does not predict it there.
    """
    rows = []
    for k in range(GROUPS):
        reference = np.zeros((8, 16, 16), np.uint8)
        reference[1:7, 2:8, 2:8] = k < GROUPS - 1
        prediction = np.roll(reference, shift, 1) * (k >= missed)
        scores = score_case(
            prediction,
            reference,
            target=TARGET,
            spacing=(2.0, 1.0, 1.0),
            stack="space",
            protocol=protocol,
            only=("dice", "hd95"),
        )
        rows += [Row(f"case {k}", f"patient {k}", score, arm, 0) for score in scores]
    return write_evaluation(folder / f"{protocol}-{arm}", rows, new_manifest(protocol, TARGET))


def compared(folder: Path, protocol: str, missed: int = 2) -> tuple[Comparison, str]:
    made = [
        scored(folder, arm, protocol, n, k) for k, (arm, n) in enumerate((("b", missed), ("a", 0)))
    ]
    found = compare(made, "a")
    return found, as_markdown(found)


def test_published_counts_them_and_says_that_a_miss_looks_better(tmp_path: Path) -> None:
    found, text = compared(tmp_path, "published")
    (row,) = found.arms[0].exploratory
    assert (row.metric, row.ruled, row.reference_ruled, row.failed) == ("hd95", 3, 1, 0)
    assert "Dice set by rule (class missing on a side): a 1 of 7; b 3 of 7." in text
    assert "| 0 (0) | 3 (1) |" in text
    for cells in csv.DictReader(io.StringIO(as_csv(found))):
        counts = cells["protocol"], cells["ruled"], cells["reference_ruled"]
        assert counts == ("published", "3", "1")
        assert cells["definition"] == get_protocol("published").definitions[cells["metric"]]
    assert "an arm that misses a class looks better by its distance" in text
    assert "count as the worst" not in text


def test_penalised_counts_them_but_flatters_nobody(tmp_path: Path) -> None:
    found, text = compared(tmp_path, "penalised")
    assert [row.ruled for row in found.arms[0].exploratory] == [3]
    assert "Dice set by rule (class missing on a side): a 1 of 7; b 3 of 7." in text
    assert "the protocol's rule sets one, which counts." in text
    assert "looks better" not in text
    assert "count as the worst" not in text


def test_clean_has_failures_and_no_rule(tmp_path: Path) -> None:
    found, text = compared(tmp_path, "clean")
    (row,) = found.arms[0].exploratory
    assert (row.failed, row.ruled) == (2, 0)
    assert "by rule" not in text
    assert "groups in which a class was missed count as the worst" in text
    assert "count as the worst" not in compared(tmp_path / "all", "clean", missed=0)[1]
