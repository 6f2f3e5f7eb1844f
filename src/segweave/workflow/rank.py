"""Ranks cases without labels by what labelling them is expected to teach, and writes the list."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import segweave
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats import Geometry
from segweave.prediction import Ensemble, load_ensemble
from segweave.prediction.features import pooled_features
from segweave.prediction.flips import Flips
from segweave.prediction.predictor import Predictor
from segweave.prediction.session import Session
from segweave.prediction.tiles import Tiles
from segweave.prediction.uncertainty import Uncertainty
from segweave.report.ranking_page import RankedPicture, write_ranking
from segweave.runs.run_folder import Run
from segweave.runtime.progress import Progress
from segweave.storage import write_json, write_text
from segweave.words import text_cells
from segweave.workflow.candidates import Candidate, Candidates
from segweave.workflow.rank_plan import CSV, FORMAT, JSON, PAGE, plan_ranking
from segweave.workflow.ranking import CaseScore, by_score, diverse_order, score_case

COLUMNS = ("rank", "case", "group", "file", "score", "slice", "slice_score", "region", "distance")


@dataclass(frozen=True)
class Ranked:
    """One case of a ranking.

    Attributes:
        case: its id.
        group: its group.
        file: the image file, None in a store.
        score: mean uncertainty of the pixels near a predicted boundary, 0 to 1.
        slice: the slice with the largest mean, counted from 0.
        slice_score: that mean.
        region: "boundary", or "most uncertain" where nothing is predicted.
        distance: to the nearest case before it, in features; None without diversity.
    """

    case: str
    group: str
    file: Path | None
    score: float
    slice: int
    slice_score: float
    region: str
    distance: float | None


@dataclass(frozen=True)
class Ranking:
    """What `rank` wrote.

    Attributes:
        folder: the folder with rank.csv, rank.json and rank.html.
        cases: the cases, the one to label first in front.
        labelled: how many were left out because they have a label.
        known: how many were left out because the runs learned from them or are tested on them.
        failures: file or case → why it could not be ranked.
        page: the page with pictures, None where the libraries that draw it are missing.
    """

    folder: Path
    cases: tuple[Ranked, ...]
    labelled: int
    known: int
    failures: dict[str, SegweaveError]
    page: Path | None


def rank(
    source: str | Path,
    runs: Sequence[str | Path | Run],
    out: str | Path,
    *,
    by: Uncertainty = "entropy",
    flips: Flips = "none",
    tiles: Tiles | None = None,
    diverse: bool = False,
    labelled: bool = False,
    pictures: int = 12,
    geometry: Geometry = "check",
    force: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Ranking:
    """List cases in the order in which they should be labelled: the most uncertain first.

    A case scores the mean uncertainty of the pixels within two steps of a predicted boundary; where
    nothing is predicted, that of the most uncertain 1 % of its pixels.

    Args:
        source: a store, or a folder of images.
        runs: the run (folder), or several whose predictions are averaged.
        out: the folder for rank.csv, rank.json and rank.html.
        by: the uncertainty: "entropy", or "mutual-information" of several runs or flips.
        flips: mirror images that are predicted too.
        tiles: read images in tiles at their own resolution.
        diverse: order cases so that near-duplicates do not come together (see
            `segweave.workflow.ranking.diverse_order`), by features of the first run's encoder.
        labelled: rank cases with labels too. Those that a run learned from or is tested on are
            always left out.
        pictures: how many of the first cases are drawn on the page.
        geometry: what is right where a NIfTI header contradicts itself.
        force: replace an earlier ranking in `out`.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        progress: called after each case with (cases done, all cases, the case's id).

    A case that can't be read or predicted is in `failures`, the others are ranked. Raises
    UsageError for wrong options, where a ranking exists in `out`, and where nothing is left to
    rank; InputError where nothing can be ranked. Nothing is written then.
    """
    plan = plan_ranking(
        source, runs, out, by=by, flips=flips, labelled=labelled, geometry=geometry, force=force
    )
    model = load_ensemble(
        [run.folder for run in plan.runs], flips=flips, tiles=tiles, device=device
    )
    first = model.members[0] if isinstance(model, Ensemble) else model
    session = model.session()
    # A network that segments what is in a box can't be asked what it finds.
    session.check_boxes(None)
    scored, features, failures = _scored(plan.candidates, session, first, by, diverse, progress)
    if not scored:
        raise InputError(
            "ranking cases",
            file=plan.candidates.source,
            expected="at least one case that can be predicted",
            found="\n    ".join(f"{name}: {error}" for name, error in failures.items()),
        )
    scores = [score.score for _, score in scored]
    distances: list[float | None] = [None] * len(scored)
    if diverse:
        order, distances = diverse_order(scores, np.stack(features))
    else:
        order = by_score(scores)
    ranked = tuple(
        _ranked(*scored[index], distance) for index, distance in zip(order, distances, strict=True)
    )
    about = {
        "source": str(plan.candidates.source.absolute()),
        "runs": [str(run.folder.absolute()) for run in plan.runs],
        "by": by,
        "flips": flips,
        "temperature": session.temperature,
        "diverse": diverse,
    }
    folder = Path(out)
    _write(folder, ranked, about)
    shown = [scored[index][0] for index in order[:pictures]]
    page = _draw(folder / PAGE, plan.candidates, shown, ranked, session, by, about)
    return Ranking(folder, ranked, plan.candidates.labelled, plan.candidates.known, failures, page)


def _scored(
    given: Candidates,
    session: Session,
    first: Predictor,
    by: Uncertainty,
    diverse: bool,
    progress: Progress | None,
) -> tuple[list[tuple[Candidate, CaseScore]], list[Any], dict[str, SegweaveError]]:
    """Candidates with their scores, their features where wanted, and what failed."""
    scored, features, failures = [], [], {}
    for done, candidate in enumerate(given.cases, start=1):
        try:
            case = given.case(candidate)
            found = session.predict(case, uncertainty=by)
            assert found.uncertainty is not None, "it was asked for"
            vector = pooled_features(first, case) if diverse else None
        except UsageError:
            raise
        except SegweaveError as error:
            failures[str(candidate.file or candidate.id)] = error
        else:
            scored.append((candidate, score_case(found.labels, found.uncertainty)))
            features.append(vector)
        if progress is not None:
            progress(done, len(given.cases), candidate.id)
    return scored, features, failures


def _ranked(candidate: Candidate, score: CaseScore, distance: float | None) -> Ranked:
    return Ranked(
        candidate.id,
        candidate.group,
        candidate.file,
        score.score,
        score.slice,
        score.slice_score,
        score.region,
        distance,
    )


def _write(folder: Path, ranked: Sequence[Ranked], about: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "rank": number,
            "case": one.case,
            "group": one.group,
            "file": None if one.file is None else str(one.file.absolute()),
            "score": round(one.score, 6),
            "slice": one.slice,
            "slice_score": round(one.slice_score, 6),
            "region": one.region,
            "distance": None if one.distance is None else round(one.distance, 6),
        }
        for number, one in enumerate(ranked, start=1)
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(text_cells([row[name] for name in COLUMNS]))
    write_text(folder / CSV, stream.getvalue())
    content = {"format": FORMAT, "segweave": segweave.__version__, **about, "cases": rows}
    write_json(folder / JSON, content)


def _draw(
    page: Path,
    given: Candidates,
    shown: Sequence[Candidate],
    ranked: Sequence[Ranked],
    session: Session,
    by: Uncertainty,
    about: dict[str, Any],
) -> Path | None:
    """The page with the first cases, predicted once more so that not all are kept in memory."""

    def pictured(candidate: Candidate, one: Ranked) -> RankedPicture:
        case = given.case(candidate)
        found = session.predict(case, uncertainty=by)
        assert found.uncertainty is not None, "it was asked for"
        return RankedPicture(
            one.case,
            case,
            found.labels[one.slice],
            found.uncertainty[one.slice],
            one.slice,
            one.score,
        )

    pictures = (pictured(c, one) for c, one in zip(shown, ranked, strict=False))
    rows = [
        (
            str(number),
            one.case,
            f"{one.score:.4f}",
            str(one.slice + 1),
            one.region,
            "" if one.distance is None else f"{one.distance:.3f}",
        )
        for number, one in enumerate(ranked, start=1)
    ]
    return write_ranking(page, pictures, rows, session.target, about)
