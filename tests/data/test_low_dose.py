"""Simulated low dose: the noise has the size, the growth and the mean that physics gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.low_dose import WATER, Projections, Scanner, low_dose
from segweave.errors import InputError, UsageError
from segweave.formats import read_case

pytest.importorskip("skimage")
SIDE, PIXEL = 48, 4.0
QUIET = Scanner(photons=1e6, electronic_noise=0, views=48)


def water() -> NDArray[np.int16]:
    """A disc of water in air, off the centre of a picture that is not square."""
    y, x = np.mgrid[:SIDE, : SIDE - 8]
    inside = (y - 26) ** 2 + (x - 19) ** 2 < 15**2
    return np.where(inside, 0, -1000).astype(np.int16)


@pytest.fixture(scope="module")
def projections() -> Projections:
    return Projections(water(), PIXEL, QUIET)


def noise(of: Projections, dose: float, times: int) -> NDArray[np.float64]:
    streams = (np.random.default_rng(k) for k in range(times))
    return np.stack([of.seen_at(dose, stream) - of.image for stream in streams])


MIDDLE = (slice(20, 32), slice(13, 25))


def test_back_projection_undoes_projection(projections: Projections) -> None:
    values = projections.backprojected(projections.integrals) - 1000
    assert values.shape == water().shape
    assert abs(values[MIDDLE]).mean() < 25
    # The longest ray goes through 30 pixels of water.
    assert projections.integrals.max() == pytest.approx(WATER * 30 * PIXEL, rel=0.05)


def test_variance_grows_as_one_over_dose_and_the_mean_stays(projections: Projections) -> None:
    full, tenth = noise(projections, 1.0, 24), noise(projections, 0.1, 24)
    ratio = tenth[:, *MIDDLE].var() / full[:, *MIDDLE].var()
    assert ratio == pytest.approx(10, rel=0.12)
    # The error of a mean of 24 pictures; noise of neighbours is correlated, the bound is wide.
    error = tenth[:, *MIDDLE].std() / np.sqrt(24)
    assert abs(tenth[:, *MIDDLE].mean(0)).max() < 5 * error
    assert abs(tenth[:, *MIDDLE].mean()) < error


def test_the_noise_has_the_size_that_theory_gives(projections: Projections) -> None:
    # Parallel beams, ramp filter: variance = π² / (12 · views · pixel²) · variance of an integral;
    # reading between detectors smooths a little.
    through = WATER * 30 * PIXEL * np.pi / 4
    integral = np.exp(through) / QUIET.photons
    wanted = np.pi / np.sqrt(12 * QUIET.views) / PIXEL * np.sqrt(integral) * 1000 / WATER
    measured = noise(projections, 1.0, 8)[:, *MIDDLE].std()
    assert 0.6 * wanted < measured < 1.3 * wanted


def test_electronic_noise_is_added_and_no_ray_is_without_photons() -> None:
    of = [Projections(water(), PIXEL, Scanner(2e3, sd, 24)) for sd in (0.0, 200.0)]
    quiet, loud = (noise(one, 0.5, 2)[:, *MIDDLE].std() for one in of)
    assert loud > 1.5 * quiet
    dark = of[1].seen_at(0.001, np.random.default_rng(0))
    assert np.isfinite(dark).all()


def scan(**changes: object) -> Case:
    image = np.stack([water()[None]] * 2)
    given = {"stack": "space", "spacing": (3.0, PIXEL, PIXEL), **changes}
    return Case("scan", "patient", given.pop("image", image), **given)  # type: ignore[arg-type]


def test_a_case_at_a_dose_is_the_same_each_time() -> None:
    first, second = (low_dose(scan(), 0.25, scanner=QUIET) for _ in range(2))
    assert (first.id, first.group) == ("scan@0.25", "patient")
    assert np.array_equal(first.image, second.image)
    assert first.label is not None
    assert np.array_equal(first.label, scan().image)
    assert first.image.dtype == np.int16
    assert not np.array_equal(first.image[0], first.image[1])
    other = low_dose(scan(), 0.25, scanner=QUIET, seed=1)
    assert not np.array_equal(first.image, other.image)
    real = low_dose(scan(image=scan().image.astype(np.float32)), 0.25, scanner=QUIET)
    assert real.image.dtype == np.float32
    assert np.array_equal(np.rint(real.image), first.image)


def test_what_is_no_ct_is_refused() -> None:
    with pytest.raises(UsageError, match="above 0 and up to 1"):
        low_dose(scan(), 1.5)
    with pytest.raises(InputError, match="Hounsfield"):
        low_dose(scan(image=np.zeros((1, 1, 8, 8), np.float32)), 0.5)
    with pytest.raises(InputError, match="square pixels"):
        low_dose(scan(spacing=(3.0, 1.0, 2.0)), 0.5)
    with pytest.raises(InputError, match="no spacing"):
        low_dose(scan(spacing=None), 0.5)
    with pytest.raises(UsageError, match="views"):
        Scanner(views=1)


@pytest.mark.real
def test_a_real_slab_gets_the_noise_of_its_dose(real_data: Path) -> None:
    whole = read_case(real_data / "synapse-layout/case9001_ct.nii.gz", with_label=False)
    case = replace(whole, image=whole.image[15:16], source_grid=None)
    scanner = Scanner(views=90)
    quarter, tenth = (low_dose(case, dose, scanner=scanner) for dose in (0.25, 0.1))
    body = case.image > -200
    spread = [float((one.image - case.image.astype(float))[body].std()) for one in (quarter, tenth)]
    assert spread[1] / spread[0] == pytest.approx(np.sqrt(2.5), rel=0.1)
    assert abs((tenth.image - case.image.astype(float))[body].mean()) < 0.1 * spread[1]
