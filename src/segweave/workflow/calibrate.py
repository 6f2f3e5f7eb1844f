"""Fits the temperature of a run, or of several averaged, on validation cases, and keeps it in the
model card of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import segweave
from segweave.data.boxes import reference_boxes
from segweave.data.case import Case
from segweave.data.specs import TargetSpec, check_classes
from segweave.data.store import CaseStore
from segweave.errors import InputError, UsageError
from segweave.metrics.calibration import Reliability, reliability
from segweave.metrics.calibration_classes import foreground_reliability
from segweave.prediction import load_ensemble
from segweave.prediction.flips import Flips
from segweave.prediction.session import Session
from segweave.prediction.temperature import (
    CARD_KEY,
    combination,
    fit_temperature,
    logits_of,
    negative_log_likelihood,
    probabilities_of,
)
from segweave.prediction.tiles import Tiles
from segweave.runs.run_folder import Run
from segweave.runtime.progress import Progress
from segweave.runtime.randomness import numpy_stream
from segweave.storage import write_json
from segweave.workflow.calibration_plan import CalibrationPlan, plan_calibration
from segweave.workflow.evaluate import check_target

_DOING = "calibrating a run"
BINS = 15


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` wrote.

    Attributes:
        card: the model card that keeps it.
        temperature: the temperature.
        nll: negative log likelihood per voxel, before and after.
        ece: expected calibration error over all sampled voxels, before and after.
        ece_foreground: the same over those whose true or predicted class is foreground.
        voxels: how many voxels were sampled.
        cases: of how many validation cases.
    """

    card: Path
    temperature: float
    nll: tuple[float, float]
    ece: tuple[float, float]
    ece_foreground: tuple[float, float]
    voxels: int
    cases: int


def calibrate(
    run: str | Path | Run,
    *,
    members: Sequence[str | Path | Run] = (),
    flips: Flips = "none",
    tiles: Tiles | None = None,
    store: CaseStore | str | Path | None = None,
    voxels: int = 200_000,
    seed: int = 0,
    force: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Calibration:
    """Fit one temperature on the validation cases of a run and write it into its model card.

    `load`, `predict` and `evaluate` use it from then on for the probabilities of exactly this
    combination of members, flips and tiles. It changes no label: these are made of the
    probabilities as the network gives them, also where a target's threshold is not 0.5.

    Args:
        run: the run (folder), whose card keeps the temperature; or a model folder.
        members: more runs on the same data, whose probabilities are averaged with those of `run`.
        flips: mirror images that are averaged too.
        tiles: read images in tiles at their own resolution.
        store: where the run's store is now; for a model folder, the data set whose validation part
            is taken.
        voxels: how many voxels are sampled at most, the same number in each case.
        seed: of the sample.
        force: replace an earlier temperature of this combination.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        progress: called after each case with (cases done, all cases, the case's id).

    Raises UsageError where there are no validation cases, where a member learned from them, and
    where the combination has a temperature already; InputError where none can be fitted. Nothing is
    written then.
    """
    if voxels < 1:
        raise UsageError(_DOING, expected="at least one voxel", found=str(voxels))
    plan = plan_calibration(
        run, members=members, flips=flips, tiles=tiles, store=store, force=force
    )
    first, ids = plan.variant.run, plan.ids
    model = load_ensemble(
        [one.folder for one in plan.variant.runs],
        flips=flips,
        tiles=tiles,
        device=device,
        calibrated=False,
    )
    check_target(model, plan.store)
    check_classes(model.target, "fitting a temperature")
    session, target = model.session(), model.target
    samples, quota = [], max(1, voxels // len(ids))
    for done, id in enumerate(plan.store.verify(ids), start=1):
        samples.append(sample_logits(session, plan.store.case(id), quota, seed))
        if progress is not None:
            progress(done, len(ids), id)
    logits = np.concatenate([logits for logits, _ in samples]).astype(np.float64)
    truth = np.concatenate([truth for _, truth in samples])
    if not len(logits):
        raise InputError(_DOING, expected="labelled voxels", found="only ignored ones")
    temperature = fit_temperature(logits, truth, target)
    both = [_measured(logits, truth, target, t) for t in (1.0, temperature)]
    (nll, ece, foreground) = zip(*both, strict=True)
    result = Calibration(
        first.layout.card, temperature, nll, ece, foreground, len(logits), len(ids)
    )
    _write(plan, flips, tiles, result, seed)
    return result


def sample_logits(
    session: Session, case: Case, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits (voxels, channels) and the truth (class ids (voxels,), or 0 and 1 (voxels, channels)
    for sigmoid channels) of at most `count` random voxels of a case; ignored ones are left out.

    One slice is in memory at a time. Raises InputError for a case without a label.
    """
    target = session.target
    if case.label is None:
        raise InputError(f"calibrating on the case {case.id}", expected="a label", found="none")
    size = case.size[0] * case.size[1]
    draw = numpy_stream(seed, "calibration", case=case.id)
    total = case.slices * size
    chosen = np.sort(draw.choice(total, min(count, total), replace=False, shuffle=False))
    boxes = reference_boxes(case, target.ignored) if session.prompt else None
    logits, truths = [], []
    for index, maps in enumerate(session.probabilities(case, boxes)):
        here = chosen[(chosen >= index * size) & (chosen < (index + 1) * size)] - index * size
        label = np.asarray(case.label[index]).reshape(-1, size)[:, here].astype(np.int64)
        kept = np.ones(len(here), np.bool_)
        if target.ignored is not None:
            kept = (label != target.ignored).all(axis=0)
        sampled = logits_of(maps.reshape(len(maps), size)[:, here], target)
        logits.append(sampled[:, kept].T)
        truth = label[:, kept].T
        truths.append(truth[:, 0] if target.kind == "exclusive" else (truth != 0).astype(np.int64))
    return np.concatenate(logits), np.concatenate(truths)


def _measured(
    logits: NDArray[np.float64], truth: NDArray[np.int64], target: TargetSpec, temperature: float
) -> tuple[float, float, float]:
    """Negative log likelihood, ECE, and ECE on the foreground."""
    nll = negative_log_likelihood(logits, truth, target, temperature)
    scaled = (logits / temperature).astype(np.float32)
    chances = probabilities_of(scaled, target, axis=1).astype(np.float64)
    if target.kind == "exclusive":
        pairs = [(chances.T[:, :, None], truth[:, None])]
    else:
        channels = range(chances.shape[1])
        pairs = [(chances[None, :, k, None], truth[:, k, None]) for k in channels]
    errors = [
        _joined([measure(maps, labels, bins=BINS) for maps, labels in pairs]).expected_error
        for measure in (reliability, foreground_reliability)
    ]
    return nll, errors[0], errors[1]


def _joined(parts: Sequence[Reliability]) -> Reliability:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _write(
    plan: CalibrationPlan, flips: Flips, tiles: Tiles | None, result: Calibration, seed: int
) -> None:
    run = plan.variant.run
    # Read again: the fit took a while.
    cards = [one.model_card for one in plan.variant.runs]
    of_what = combination(cards, flips, tiles)
    entry: dict[str, Any] = {
        **of_what,
        "temperature": result.temperature,
        "nll": _pair(result.nll),
        "ece": _pair(result.ece),
        "ece_foreground": _pair(result.ece_foreground),
        "bins": BINS,
        "voxels": result.voxels,
        "cases": result.cases,
        "part": "validation",
        "store": plan.store.checksum,
        "seed": seed,
        "segweave": segweave.__version__,
    }
    others = [
        one
        for one in cards[0].get(CARD_KEY) or ()
        if any(one.get(key) != value for key, value in of_what.items())
    ]
    write_json(run.layout.card, {**cards[0], CARD_KEY: [*others, entry]})


def _pair(values: tuple[float, float]) -> dict[str, float | None]:
    before, after = (None if np.isnan(value) else round(value, 6) for value in values)
    return {"before": before, "after": after}
