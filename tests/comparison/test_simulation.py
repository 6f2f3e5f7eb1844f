"""Where the truth is known: false alarms, coverage and power of the main test."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks._simulated import (
    LEVELS,
    alarms,
    coverage,
    experiments,
    failing,
    frames,
    heavy,
    normal,
    satterthwaite_alarms,
    sign_flip_p,
    unpaired_experiments,
    wilcoxon_over_frames,
)
from benchmarks._simulated_conditions import conditions
from benchmarks.simulation import RESTLESS, cells, main
from scipy import stats

from segweave.comparison.resampling import sign_flip_p as exact_sign_flip_p
from segweave.comparison.variance import Effect, group_effect, paired_effect, unpaired_effect

COUNT = 20_000
ASKED = dict(zip(LEVELS, (0.055, 0.013, 0.007), strict=True))


def holds_its_levels(effect: Effect) -> None:
    """No more false alarms than asked, give or take three standard errors of the share."""
    count = len(effect.difference)
    for level, most in ASKED.items():
        assert alarms(effect, level) <= most + 3 * np.sqrt(level / count)
    assert coverage(effect) >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "seeds", "seed_sd"), [*cells(), *RESTLESS])
def test_the_main_test_holds_its_levels(groups: int, seeds: int, seed_sd: float) -> None:
    count = COUNT if groups < 100 else COUNT // 4
    generator = np.random.default_rng(100 * groups + 10 * seeds + int(seed_sd))
    values = experiments(generator, count, groups, seeds, seed_sd)
    holds_its_levels(paired_effect(values))
    for law in (normal, heavy):
        arms = unpaired_experiments(
            generator, count, groups, (seeds, 2 * seeds), (seed_sd, 0.5 * seed_sd), law
        )
        holds_its_levels(unpaired_effect(*arms))
    if seed_sd >= 2:
        assert alarms(group_effect(values.mean(-1))) > 0.09  # what the main test is there for
    if (groups, seeds, seed_sd) == (200, 3, 6):
        # Satterthwaite's gives five times 0.5 %.
        assert satterthwaite_alarms(values, 0.005) > 0.015


@pytest.mark.slow
def test_it_holds_its_levels_under_heavy_tails_and_unequal_groups() -> None:
    for number, (name, groups, _, draw) in enumerate(conditions()):
        count = COUNT if groups < 100 else COUNT // 4
        effect = paired_effect(draw(np.random.default_rng(number), count))
        assert alarms(effect, 0.05) <= 0.06, name
        assert alarms(effect, 0.005) <= 0.01, name


def test_false_alarms_at_small_levels_are_not_several_times_too_many() -> None:
    """Three seeds that differ much inflate the tail of Satterthwaite's test, not of this one."""
    values = experiments(np.random.default_rng(1), 8000, 50, 3, 6)
    assert satterthwaite_alarms(values, 0.005) > 0.015
    assert alarms(paired_effect(values), 0.005) < 0.01


@pytest.mark.slow
def test_power_grows_with_the_difference() -> None:
    generator = np.random.default_rng(7)
    for groups, seeds, seed_sd in cells():
        effect = paired_effect(experiments(generator, 2000, groups, seeds, seed_sd))
        power = [alarms(effect, shift=shift) for shift in (0.0, 0.5, 1.0, 2.0)]
        assert power == sorted(power)


def test_t_covers_where_a_few_dice_are_zero() -> None:
    generator = np.random.default_rng(2)
    for groups in (30, 100):
        values = failing(generator, (4000, groups), 0.02) - failing(generator, (4000, groups), 0.02)
        assert coverage(group_effect(values)) > 0.94


def test_frames_of_a_video_are_not_independent() -> None:
    values = frames(np.random.default_rng(1), 1000, 6)
    assert np.mean(wilcoxon_over_frames(values) < 0.05) > 0.4
    assert values.mean(-1).std() == pytest.approx(1, rel=0.05)


def test_the_simulation_counts_as_the_package_does() -> None:
    values = np.random.default_rng(3).normal(0.3, 1, (5, 9))
    assert sign_flip_p(values).tolist() == [exact_sign_flip_p(row) for row in values]
    effect = paired_effect(experiments(np.random.default_rng(4), 50, 8, 3, 2))
    assert alarms(effect, 0.05) == np.mean(effect.p < 0.05)
    one = group_effect(values)
    assert one.p == pytest.approx(stats.ttest_1samp(values, 0, axis=1).pvalue)


def test_the_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulation.py", "--tiny"])
    main()
    printed = capsys.readouterr().out
    assert printed.count("## ") == 13
    assert "Largest share of false alarms" in printed
