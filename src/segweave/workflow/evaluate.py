"""Scores a run on the cases of a store: choose the cases, ask the ledger, predict and keep the
label maps, score them, report.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.boxes import FROM_REFERENCE, Boxes, reference_boxes
from segweave.data.case import Case
from segweave.data.store import CaseStore, Store
from segweave.errors import MissingExtraError, SegweaveError, UsageError
from segweave.evaluation import (
    Evaluation,
    Protocol,
    Row,
    nearest_zoom,
    needs_probabilities,
    new_manifest,
    score_rows,
    write_evaluation,
)
from segweave.evaluation.folder import LABEL_MAPS, References
from segweave.formats import label_format, suitable_format, write_label
from segweave.prediction import Ensemble, Flips, Predictor, Session, Tiles, load_ensemble
from segweave.prediction.predictor import target_differences
from segweave.report import write_report
from segweave.report.run_report import ValidatedCases
from segweave.runs.run_folder import Run
from segweave.runtime.progress import Progress
from segweave.storage import atomic_folder, can_write, locked, scratch_folder
from segweave.workflow.evaluation_plan import Part, note_scored, plan_evaluation

_log = logging.getLogger(__name__)


def evaluate(
    run: str | Path | Run,
    *,
    part: Part = "test",
    protocol: str = "clean",
    checkpoint: str | None = None,
    members: Sequence[str | Path | Run] = (),
    flips: Flips = "none",
    tiles: Tiles | None = None,
    store: CaseStore | str | Path | None = None,
    metrics: Sequence[str] = (),
    calibration: bool = False,
    calibrated: bool = True,
    out: str | Path | None = None,
    force: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run on the cases of its store, or of another one, and write an evaluation folder.

    Args:
        run: the run (folder).
        part: "test", "validation" or "training" cases, or "all" cases of the store.
        protocol: "clean", "penalised", or "published", the protocol of the store's data set.
        checkpoint: "last", "best" or "best-on-test" instead of the finished model.
        members: more runs on the same data, whose probabilities are averaged with those of `run`
            (seeds, folds). None may have been trained on the cases to score.
        flips: mirror images that are averaged too ("rows", "columns", "both").
        tiles: read images in tiles at their own resolution.
        store: where the run's store is now, one of the stores that it was trained on together, or
            another data set with the same classes.
        metrics: names of metrics to compute beside those of the protocol, a plug-in's too.
        calibration: also measure how far the probabilities can be trusted, over all cases, before
            and after the temperature of the model card; into OUT/calibration.json and the report.
        calibrated: whether probabilities get the temperature of the model card. Labels do not
            depend on it.
        out: the evaluation folder, `RUN/evaluation/NAME` if None. The name has the protocol, the
            other store's name, the part unless it is test, and checkpoint, members, flips, tiles.
            Needed where the run can't be written.
        force: replace an evaluation, and score test cases a second time.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        progress: called after each case with (cases done, all cases, the case's id).

    Test cases are scored once under a protocol, whatever the checkpoint, members, flips and tiles:
    a second time raises UsageError without `force`, because a choice made after looking at test
    scores turns them into validation scores. The evaluation states how often they were scored. An
    evaluation of another part replaces an earlier one of the same run. The label maps that were
    scored are kept in `RUN/predictions/NAME`; in `OUT/predictions` where the scores are elsewhere.

    Raises UsageError for wrong options and for cases that the run learned from, InputError for
    files that do not fit, SegweaveError where the run can't be written and `out` is None. Example:

        >>> from segweave import evaluate
        >>> scores = evaluate("runs/a", part="validation", device="cpu")
        >>> scores.manifest.protocol
        'clean'
    """
    plan = plan_evaluation(
        run,
        part=part,
        protocol=protocol,
        checkpoint=checkpoint,
        members=members,
        flips=flips,
        tiles=tiles,
        store=store,
        metrics=metrics,
        calibration=calibration,
        calibrated=calibrated,
        out=out,
        force=force,
    )
    run, cases, variant, rules = plan.run, plan.store, plan.variant, plan.protocol
    ids, added, folder, away = plan.ids, plan.metrics, plan.folder, plan.away
    model = load_ensemble(
        [one.folder for one in variant.runs],
        flips=flips,
        tiles=tiles,
        checkpoint=checkpoint,
        device=device,
        calibrated=variant.temperature,
    )
    check_target(model, cases)
    session = model.session()
    curves = None
    if plan.calibration:
        # Imported where it is needed: most evaluations do not.
        from segweave.workflow.calibration_curves import CalibrationCurves

        # They calibrate what the session gives as it is.
        curves = CalibrationCurves(session.target, session.temperature)
        session.temperature = None
    soft = curves is not None or needs_probabilities(added)
    models = model.members if isinstance(model, Ensemble) else (model,)
    rows: list[Row] = []
    references = References()
    with (
        _alone(run, needed=not away),
        _label_maps(run, plan.name, folder, away=away) as (kept, maps),
    ):
        # Predict, keep and score case by case, so that one is in memory at a time.
        for done, id in enumerate(cases.verify(ids), start=1):
            case = cases.case(id)
            labels, probabilities = predict_for(session, case, rules, probabilities=soft)
            if curves is not None and probabilities is not None:
                probabilities = curves.add(probabilities, np.asarray(case.label))
            keep(labels, case, kept)
            rows += score_rows(
                case,
                labels,
                target=session.target,
                protocol=rules,
                metrics=added,
                probabilities=probabilities,
                arm=variant.arm,
                seed=run.recipe.seed,
                fold=run.recipe.fold,
            )
            references.add(id, np.asarray(case.label))
            if progress is not None:
                progress(done, len(ids), id)
        identity = variant.identity
        manifest = new_manifest(
            rules,
            session.target,
            added,
            recipe_digest=identity.digest,
            recipe=identity.recipe,
            margin=run.recipe.margin,
            margin_reason=run.recipe.margin_reason,
            sources={
                **variant.sources,
                **_other_store(variant.other_store, cases),
                "part": part,
                "store": cases.checksum,
                "predictions": str(maps.absolute()),
                **_temperature(model, soft),
            },
            parameters=sum(p.numel() for one in models for p in one.network.parameters()),
            checkpoint=checkpoint or run.recipe.training.checkpoint,
            training_groups=variant.training_groups,
            tested=plan.tested,
            references=references.checksums(),
            grouped=cases.grouped,
            prompt=session.prompt,
            remarks=_prompt_remarks(session.prompt, variant.arm),
        )
        evaluation = write_evaluation(
            folder,
            rows,
            manifest,
            label_maps=kept if away else None,
            calibration=None if curves is None else curves.content(),
            force=plan.force,
        )

    # Report.
    if plan.tests:
        times = plan.tested[plan.key]
        note_scored(variant.runs, plan.key, rules.name, cases.checksum, folder, times)
    update_report(run)
    return evaluation


def _other_store(name: str | None, store: CaseStore) -> dict[str, str]:
    """Where the cases came from, if not from the store of the training."""
    found = {} if name is None else {"data": name}
    if found and isinstance(store, Store):
        found["store_path"] = str(store.path.absolute())
    return found


def _temperature(model: Predictor | Ensemble, soft: bool) -> dict[str, str]:
    """The temperature of the probabilities that were scored, where there is one."""
    used = model.temperature if soft else None
    return {} if used is None else {"temperature": f"{used:g}"}


def _prompt_remarks(prompt: str, arm: str) -> list[str]:
    """What every table of these scores states of a network that was shown what to segment."""
    if not prompt:
        return []
    return [
        f"{arm}: boxes {FROM_REFERENCE}. In each slice the network was shown the box around the "
        "true label: its scores do not measure how well it finds objects, and it can't raise a "
        "false alarm in a slice without any."
    ]


@contextlib.contextmanager
def _alone(run: Run, *, needed: bool) -> Iterator[None]:
    """Let no other process score the run meanwhile (its ledger has one writer), and remove what
    killed ones left half written. Raises UsageError where another process does, SegweaveError where
    the run can't be written, unless nothing `needed` is written there.
    """
    folder = run.layout.predictions("")
    if not (can_write(folder) and can_write(run.layout.evaluations)):
        if needed:
            raise SegweaveError(
                "scoring a run",
                file=run.folder,
                expected="a run folder that can be written, for label maps and scores",
                found="no permission, or a read-only file system",
                remedy="write both to another folder: --out FOLDER",
            )
        yield
        return
    with locked(folder / ".lock", "scoring a run"):
        for parent in (folder, run.layout.evaluations):
            for left in parent.glob(".writing-*"):
                shutil.rmtree(left, ignore_errors=True)
        # Of the run itself only reports: a training that goes on writes other files there.
        for left in run.folder.glob(f".writing-*{run.layout.report.suffix}"):
            left.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def _label_maps(
    run: Run, name: str, evaluation: Path, *, away: bool
) -> Iterator[tuple[Path, Path]]:
    """Yield the folder to write label maps into, and where they will be."""
    if away:
        with scratch_folder(evaluation) as kept:
            yield kept, evaluation / LABEL_MAPS
    else:
        maps = run.layout.predictions(name)
        with atomic_folder(maps) as kept:
            yield kept, maps


def predict_for(
    session: Session, case: Case, protocol: Protocol, *, probabilities: bool = False
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """What a protocol scores of a case: its label map, decided on the grid that the protocol asks
    for, and, where asked for, the probabilities (slices, classes, height, width) on the case's own
    grid. Slices that are not scored stay background.
    """
    boxes = reference_boxes(case, session.target.ignored) if session.prompt else None
    if protocol.needs.decide_on == "case":
        prediction = session.predict(case, boxes=boxes, probabilities=probabilities)
        return prediction.labels, prediction.probabilities
    labels = _labels_on_network_grid(session, case, protocol, boxes)
    if not probabilities:
        return labels, None
    return labels, session.predict(case, boxes=boxes, probabilities=True).probabilities


def _labels_on_network_grid(
    session: Session, case: Case, protocol: Protocol, boxes: Boxes | None
) -> NDArray[np.uint8]:
    """Label map of a protocol that decides on the network's grid, as the released evaluation."""
    target = session.target
    wanted = protocol.needs.slices(case.slices)
    maps = {
        index: protocol.from_network(probabilities, case.size, target)
        for index, probabilities in enumerate(session.network_probabilities(case, boxes))
        if index in wanted
    }
    classes = (target.classes,) if target.kind == "overlapping" else ()
    size = next((labels.shape[-2:] for labels in maps.values()), case.size)
    labels = np.zeros((case.slices, *classes, *size), np.uint8)
    for index, slice_labels in maps.items():
        labels[index] = slice_labels
    return labels


def keep(labels: NDArray[Any], case: Case, folder: Path) -> None:
    """Write what is scored of a case, a label map or an image, at the case's own size."""
    if labels.shape[-2:] != case.size:
        # Scored at the network's size; kept at the case's, to be looked at.
        labels = nearest_zoom(labels, case.size)
    name = urllib.parse.quote(case.id, safe=" ")
    real = labels.dtype.kind == "f"
    format = suitable_format(case, overlapping=labels.ndim == 4, real=real)
    ending = label_format(format).suffixes[0]
    write_label(labels, case, folder / f"{name}{ending}")


def update_report(run: Run, validated: Callable[[], ValidatedCases | None] | None = None) -> None:
    """Write `RUN/report.html` again, where the libraries that draw it are installed. Whatever fails
    is logged and ends nothing: the run's work is done and written. `validated` predicts the cases
    that a report without scores shows.
    """
    if not can_write(run.folder):
        return
    try:
        write_report(run, validated=validated() if validated is not None else None)
    except MissingExtraError:
        pass
    except Exception as error:
        _log.warning(
            "the report of %s could not be written: %s: %s", run.folder, type(error).__name__, error
        )


def check_target(model: Predictor | Ensemble, store: CaseStore) -> None:
    """Raise UsageError where the store's classes are not those of the model."""
    differences = target_differences(model.target, store.target)
    if differences:
        raise UsageError(
            f"scoring a run on the store {store.name}",
            expected="the classes that the run was trained on",
            found=differences,
            remedy="prepare the store with the same classes, or predict files and score those",
        )
