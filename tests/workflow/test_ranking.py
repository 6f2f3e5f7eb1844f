"""The arithmetic of ranking, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from segweave.workflow.ranking import boundary, by_score, diverse_order, score_case


def test_the_band_is_two_pixels_on_both_sides() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[:, 4:] = 2
    band = boundary(labels)
    assert (band == band[0]).all()
    assert band[0].tolist() == [False] * 2 + [True] * 4 + [False] * 3
    assert not boundary(np.zeros((9, 9), np.uint8)).any()
    # Where classes overlap, the boundary of each counts.
    planes = np.stack([labels // 2, np.zeros_like(labels)])
    np.testing.assert_array_equal(boundary(planes), band)


def test_the_score_is_the_mean_in_the_band() -> None:
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[1:, :, 4:] = 1
    uncertainty = np.zeros((3, 9, 9), np.float32)
    uncertainty[0] = 1.0  # no boundary here: it does not count
    uncertainty[1, :, 2:6] = 0.2
    uncertainty[2, :, 2:6] = 0.6
    found = score_case(labels, uncertainty)
    assert found.score == pytest.approx(0.4)
    assert (found.region, found.slice) == ("boundary", 2)
    assert found.slice_score == pytest.approx(0.6)


def test_where_nothing_is_predicted_the_most_uncertain_pixels_count() -> None:
    uncertainty = np.zeros((2, 10, 10), np.float32)
    uncertainty[1, 3, 4:6] = (0.5, 0.7)
    found = score_case(np.zeros((2, 10, 10), np.uint8), uncertainty)
    assert (found.region, found.slice) == ("most uncertain", 1)
    assert found.score == pytest.approx(0.6)


def test_near_duplicates_come_late() -> None:
    scores = [0.9, 0.89, 0.5, 0.4]
    features = np.array([[0, 0], [0.01, 0], [5, 5], [-5, 4]], np.float32)
    assert by_score(scores) == [0, 1, 2, 3]
    order, distances = diverse_order(scores, features)
    assert order == [0, 2, 3, 1]
    assert distances[0] is None
    assert all(distance > 0.5 for distance in distances[1:3] if distance is not None)
    assert distances[3] is not None
    assert distances[3] < 0.01
    # Copies of one case: by score alone, each once.
    order, distances = diverse_order([0.1, 0.3, 0.2], np.ones((3, 4), np.float32))
    assert order == [1, 2, 0]
    assert distances == [None, 0, 0]
    assert diverse_order([], np.zeros((0, 4), np.float32)) == ([], [])
