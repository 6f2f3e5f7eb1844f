"""What a ranking will list and where it goes, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segweave.errors import UsageError
from segweave.formats import Geometry
from segweave.prediction.flips import Flips, check_flips, views_of
from segweave.prediction.uncertainty import Uncertainty, check_uncertainty
from segweave.runs.run_folder import Run
from segweave.workflow.candidates import Candidates, candidates

FORMAT = 1
CSV, JSON, PAGE = "rank.csv", "rank.json", "rank.html"


@dataclass(frozen=True)
class RankingPlan:
    """A ranking that may be made: the runs and the cases."""

    runs: tuple[Run, ...]
    candidates: Candidates


def plan_ranking(
    source: str | Path,
    runs: Sequence[str | Path | Run],
    out: str | Path,
    *,
    by: Uncertainty = "entropy",
    flips: Flips = "none",
    labelled: bool = False,
    geometry: Geometry = "check",
    force: bool = False,
) -> RankingPlan:
    """The plan of `rank`, whose arguments these are; predicts nothing and changes nothing. Raises
    what that raises for wrong options, runs and sources.
    """
    doing = "ranking cases"
    if not runs:
        raise UsageError(doing, expected="at least one run", found="none", remedy="give --run RUN")
    check_flips(flips)
    check_uncertainty(by, len(runs) * views_of(flips))
    opened = tuple(run if isinstance(run, Run) else Run(run) for run in runs)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(doing, file=folder, expected="a folder for the list", found="a file")
    there = [name for name in (CSV, JSON, PAGE) if (folder / name).exists()]
    if there and not force:
        raise UsageError(
            doing,
            file=folder,
            expected="a folder without a ranking",
            found=", ".join(there),
            remedy="choose another folder, or replace it (--force)",
        )
    return RankingPlan(opened, candidates(source, opened, labelled=labelled, geometry=geometry))
