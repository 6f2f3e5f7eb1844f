"""Image quality: by hand, and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.errors import InputError, UsageError
from segweave.metrics.image_quality import (
    peak_signal_to_noise_ratio,
    root_mean_square_error,
    structural_similarity,
)


def test_by_hand() -> None:
    reference = np.zeros((2, 2), np.uint8)
    image = np.array([[3, 0], [0, 4]], np.uint8)
    assert root_mean_square_error(image, reference, None) == 2.5
    assert root_mean_square_error(image, reference, 255) == pytest.approx(2.5 / 255)
    assert peak_signal_to_noise_ratio(image, reference, 25) == pytest.approx(20)
    assert peak_signal_to_noise_ratio(image, image, 255) == math.inf
    # Unsigned differences must not wrap around.
    assert root_mean_square_error(reference, image, None) == 2.5


@given(st.integers(0, 1000), st.sampled_from([(12, 15), (11, 11), (13, 12, 14)]))
@settings(max_examples=25, deadline=None)
def test_against_scikit_image(seed: int, shape: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    generator = np.random.default_rng(seed)
    a = generator.random(shape) * 200
    b = np.clip(a + generator.normal(0, 20, shape), 0, 255)
    wanted = metrics.structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert structural_similarity(a, b, 255) == pytest.approx(wanted, abs=1e-9)
    wanted = metrics.peak_signal_noise_ratio(a, b, data_range=255)
    assert peak_signal_to_noise_ratio(b, a, 255) == pytest.approx(wanted, abs=1e-9)
    wanted = metrics.normalized_root_mse(a, b, normalization="min-max")
    scale = float(a.max() - a.min())
    assert root_mean_square_error(b, a, scale) == pytest.approx(wanted, abs=1e-9)


def test_similarity_is_symmetric_and_knows_the_range() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 20, 20))
    assert structural_similarity(a, b, 1) == pytest.approx(structural_similarity(b, a, 1))
    assert structural_similarity(a, b, 255) > structural_similarity(a, b, 1)
    assert structural_similarity(3 * a, 3 * b, 3) == pytest.approx(structural_similarity(a, b, 1))


def test_wrong_input() -> None:
    image = np.zeros((12, 12))
    with pytest.raises(InputError, match="one shape"):
        root_mean_square_error(image, image[1:], 1)
    with pytest.raises(InputError, match="11 pixels"):
        structural_similarity(image[:10], image[:10], 1)
    for wrong in (0, -1, math.nan, math.inf):
        with pytest.raises(UsageError, match="range"):
            peak_signal_to_noise_ratio(image, image, wrong)
