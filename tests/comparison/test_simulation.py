"""Where the truth is known: false alarms, coverage and power of the main test."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.simulation import (
    alarms,
    cells,
    coverage,
    experiments,
    frames,
    main,
    print_power,
    unpaired_experiments,
    wilcoxon_over_frames,
)

from segweave.comparison.variance import group_effect, paired_effect, unpaired_effect

COUNT = 12_000


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "seeds", "seed_sd"), list(cells()))
def test_false_alarms_and_coverage(groups: int, seeds: int, seed_sd: int) -> None:
    generator = np.random.default_rng(100 * groups + 10 * seeds + seed_sd)
    values = experiments(generator, COUNT, groups, seeds, seed_sd)
    arms = unpaired_experiments(generator, COUNT, groups, seeds, seed_sd)
    for effect in (paired_effect(values), unpaired_effect(*arms)):
        assert 0.03 <= alarms(effect) <= 0.07
        assert coverage(effect) >= 0.93
    if seed_sd == 2:
        assert alarms(group_effect(values.mean(-1))) > 0.09  # what the main test is there for


@pytest.mark.slow
def test_power_grows_with_the_difference_and_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    generator = np.random.default_rng(7)
    for groups, seeds, seed_sd in cells():
        effect = paired_effect(experiments(generator, 2000, groups, seeds, seed_sd))
        power = [alarms(effect, shift) for shift in (0.0, 0.5, 1.0, 2.0)]
        assert power == sorted(power)
    print_power(generator, 500)
    with capsys.disabled():
        print()
        print(capsys.readouterr().out)


def test_frames_of_a_video_are_not_independent() -> None:
    values = frames(np.random.default_rng(1), 1000, 6)
    assert np.mean(wilcoxon_over_frames(values) < 0.05) > 0.4
    assert values.mean(-1).std() == pytest.approx(1, rel=0.05)


def test_the_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulation.py", "--tiny"])
    main()
    assert capsys.readouterr().out.count("\n## ") == 4
