"""Training and evaluation as one call each: joins training, prediction and evaluation, which know
nothing of each other.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, Stack
from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import MissingExtraError, UsageError, nearest
from segweave.runtime.progress import Progress
from segweave.storage import atomic_folder
from segweave.workflow.scored import (
    Variant,
    check_scored_once,
    keep,
    label_maps_folder,
    note_scored,
    replaces_its_own,
    store_of,
)

if TYPE_CHECKING:
    from torch import nn

    from segweave.data.store import CaseStore
    from segweave.evaluation import Evaluation, Protocol
    from segweave.prediction import Ensemble, Flips, Predictor, Tiles
    from segweave.recipes import Recipe
    from segweave.training import Run

Geometry = Literal["check", "pixdim", "affine"]
PARTS = ("training", "validation", "test")


def train(
    recipe: Recipe | str | Path,
    store: CaseStore | str | Path | None = None,
    out: str | Path = "run",
    *,
    sets: Sequence[str] = (),
    seed: int | None = None,
    fold: int | None = None,
    precision: str | None = None,
    device: str = "auto",
    resume: bool = True,
    progress: bool = True,
) -> Run:
    """Train as a recipe says, leaving a run folder in `out`; an interrupted one is continued.

    Args:
        recipe: a Recipe, the name of a shipped one, or a YAML file.
        store: what `prepare` wrote; without it, the recipe's own `data.store`.
        out: the run folder.
        sets: fields to override, as texts "training.epochs=10".
        seed: overrides the recipe's seed.
        fold: train on the store's split `fold-K`, which keeps fold K for testing.
        precision: overrides the recipe's `training.precision`.
        device: "auto", "cpu", "cuda" or "cuda:1".
        resume: continue what `out` holds; without it a folder that holds a run is refused.
        progress: show a bar on stderr.

    Validation cases are scored under the protocol `clean`; test cases are touched only where the
    recipe's protocol is `published`, whose checkpoint is chosen on them. Raises what
    `segweave.training.run_training` raises.
    """
    from segweave.recipes import load_recipe
    from segweave.training import train as train_on

    over = [*sets]
    over += [f"seed={seed}"] if seed is not None else []
    over += [f"fold={fold}", "data.split=fold-{fold}"] if fold is not None else []
    over += [f"training.precision={precision}"] if precision is not None else []
    if isinstance(recipe, str | Path):
        chosen = load_recipe(recipe, over)
    elif over:
        raise UsageError(
            "overriding fields of a recipe",
            expected="the name or the file of a recipe",
            found="a Recipe object",
            remedy="make the object with the values that are wanted",
        )
    else:
        chosen = recipe
    source = store if store is not None else chosen.data.store
    if source is None:
        raise UsageError(
            "training", expected="a store", found="none", remedy="give one that `prepare` wrote"
        )
    if isinstance(source, str | Path):
        place = chosen.data.model_copy(update={"store": str(Path(source).absolute())})
        chosen = chosen.model_copy(update={"data": place})
    run = train_on(
        chosen,
        source,
        out,
        score=_validation_score,
        score_on_test=functools.partial(_published_score, source),
        device=device,
        resume=resume,
    )
    _report(run)
    return run


def _report(run: Run) -> None:
    """Bring `RUN/report.html` up to date, where the libraries that draw it are installed."""
    from segweave.report import write_report

    with contextlib.suppress(MissingExtraError):
        write_report(run)


def evaluate(
    source: str | Path | Run,
    references: str | Path | None = None,
    *,
    part: str = "test",
    protocol: str = "clean",
    checkpoint: str | None = None,
    members: Sequence[str | Path | Run] = (),
    flips: Flips = "none",
    tiles: Tiles | None = None,
    store: CaseStore | str | Path | None = None,
    cases: str | Path | None = None,
    stack: Stack | None = None,
    classes: Sequence[str] | None = None,
    geometry: Geometry = "check",
    mask_threshold: int | None = None,
    out: str | Path | None = None,
    force: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run on its store's cases, or a folder of label maps against a folder of references.

    Args:
        source: a run (folder), or a folder of label maps.
        references: true label maps of the same names, where `source` is not a run.
        part: of a run: "test", "validation" or "training" cases.
        protocol: "clean" or "published".
        checkpoint: of a run: "last", "best" or "best-on-test" in place of the finished model.
        members: of a run: more runs, on the same data, whose probabilities are averaged with its
            own (seeds, folds). None may have been trained on the cases to score.
        flips: of a run: mirror images predicted too ("rows", "columns", "both"), averaged.
        tiles: of a run: read images in tiles at their own resolution.
        store: of a run: the store, where the run no longer finds it.
        cases: of files: a CSV with case and any of group, part, stack, arm, seed, fold, id,
            slice.
        stack: of files: what slices are where the CSV does not say: "space" (a volume, scored in
            3D), "time" (frames of a video, one by one) or "single".
        classes: of files: names of the classes from id 1 on.
        geometry: of files: what holds where a NIfTI header contradicts itself.
        mask_threshold: of files: in grey or JPEG masks, what is above this is foreground.
        out: the evaluation folder; of a run: `RUN/evaluation/PROTOCOL` (averaging, with a sum that
            tells the members, flips and tiles are part of that name, and of the arm's).
        force: write over an evaluation, and score test cases a second time.
        device: where a run's model predicts.
        progress: called with (done, all, case).

    Test cases are scored once under a protocol, whatever the checkpoint, members, flips and tiles:
    a second time raises UsageError without `force`, because a choice made after looking at test
    scores turns them into validation scores. The evaluation says how often it was. Of other parts,
    a run's evaluation takes the place of its earlier one. The label maps that were scored lie in
    `RUN/predictions`, those of each evaluation in a folder of their own. Raises InputError for
    files that do not fit.
    """
    from segweave.evaluation import evaluate_folders
    from segweave.training import Run

    if references is not None:
        if members or tiles is not None or flips != "none":
            raise UsageError("evaluating label maps", found="options that belong to a run's model")
        if out is None:
            raise UsageError(
                "evaluating label maps", expected="a folder to write to (--out)", found="none"
            )
        return evaluate_folders(
            str(source),
            references,
            out,
            protocol=protocol,
            cases_csv=cases,
            target=_target(classes),
            stack=stack,
            geometry=geometry,
            mask_threshold=mask_threshold,
            force=force,
            progress=progress,
        )
    if not isinstance(source, Run):
        if not (Path(source) / "recipe.yaml").is_file():
            raise UsageError(
                "evaluating",
                file=source,
                expected="a run folder, or a folder of label maps and one of references",
                found="one folder that is no run" if Path(source).is_dir() else "no such folder",
                remedy="give the folder of references too",
            )
        source = Run(source)
    given = {
        "cases": cases,
        "stack": stack,
        "classes": classes,
        "mask_threshold": mask_threshold,
    }
    if any(value is not None for value in given.values()):
        raise UsageError(
            "evaluating a run",
            expected="a run, whose store knows its cases, slices and classes",
            found=", ".join(name for name, value in given.items() if value is not None)
            + ", which belong to a folder of label maps",
            remedy="leave them out, or give a folder of label maps and one of references",
        )
    if part not in PARTS:
        raise UsageError("choosing cases to score", found=repr(part), remedy=nearest(part, PARTS))
    variant = Variant((source, *_runs(members)), checkpoint, flips, tiles)
    return _evaluate_run(variant, part, protocol, store, out, force, device, progress)


def _runs(members: Sequence[str | Path | Run]) -> tuple[Run, ...]:
    from segweave.training import Run

    return tuple(member if isinstance(member, Run) else Run(member) for member in members)


def _target(classes: Sequence[str] | None) -> TargetSpec | None:
    """The target with these foreground classes, None where they are to be found in the files."""
    if not classes:
        return None
    kind: Literal["binary", "exclusive"] = "binary" if len(classes) == 1 else "exclusive"
    return TargetSpec(kind=kind, names=("background", *classes))


def _evaluate_run(
    variant: Variant,
    part: str,
    protocol: str,
    store: CaseStore | str | Path | None,
    out: str | Path | None,
    force: bool,
    device: str,
    progress: Progress | None,
) -> Evaluation:
    from segweave.evaluation import evaluate_cases, get_protocol
    from segweave.prediction import Ensemble, load_ensemble
    from segweave.training.run_training import choose_parts

    run, recipe = variant.run, variant.run.recipe
    name = "-".join([protocol, *([part] if part != "test" else []), *variant.names])
    own = run.folder / "evaluation" / name
    folder = Path(out) if out is not None else own
    cases = store_of(run, store)
    rules = get_protocol(protocol, dataset=cases.name)
    ids = choose_parts(recipe, cases).get(part)
    if not ids:
        raise UsageError(
            f"choosing the {part} cases of the store {cases.name}", expected="some", found="none"
        )
    variant.check_cases(ids, part, cases)
    tested: dict[str, int] = {}
    if part == "test":
        tested = check_scored_once(variant.runs, name, rules.name, cases.name, force)
    predictor = load_ensemble(
        [one.folder for one in variant.runs],
        flips=variant.flips,
        tiles=variant.tiles,
        checkpoint=variant.checkpoint,
        device=device,
    )
    models = predictor.members if isinstance(predictor, Ensemble) else (predictor,)

    def report(done: float, total: float, name: str) -> None:
        if progress is not None:
            progress(done, len(ids), name)

    maps = label_maps_folder(run, name, folder)
    with atomic_folder(maps) as kept:

        def pairs() -> Iterator[tuple[Case, NDArray[Any]]]:
            for id in cases.verify(ids):
                case = cases.case(id)
                labels = _labels(predictor, case, rules)
                keep(labels, case, kept)
                yield case, labels

        found = evaluate_cases(
            pairs(),
            folder,
            target=predictor.target,
            protocol=rules,
            arm=variant.arm,
            seed=recipe.seed,
            fold=recipe.fold,
            sources={
                **variant.sources,
                "part": part,
                "store": cases.checksum,
                "predictions": str(maps.absolute()),
            },
            parameters=sum(p.numel() for model in models for p in model.network.parameters()),
            checkpoint=variant.checkpoint or recipe.training.checkpoint,
            training_groups=variant.training_groups(cases),
            tested=tested,
            grouped=cases.grouped,
            force=force or (part != "test" and replaces_its_own(run, folder)),
            progress=report,
        )
    if part == "test":
        note_scored(variant.runs, name, rules.name, folder)
    _report(run)
    return found


def _labels(predictor: Predictor | Ensemble, case: Case, rules: Protocol) -> NDArray[np.uint8]:
    """What the protocol scores of a case: its label map, decided where the protocol decides."""
    from segweave.prediction import Ensemble, predict

    if rules.needs.decide_on == "case":
        return predict(predictor, case).labels
    if isinstance(predictor, Ensemble):
        raise UsageError(
            f"scoring under the protocol {rules.name}",
            expected="one model, without flips and tiles, as the evaluation that it repeats",
            found="averaged predictions",
            remedy="score them under the protocol clean",
        )
    return _labels_by_network_grid(predictor, case, rules)


def _labels_by_network_grid(predictor: Predictor, case: Case, rules: Protocol) -> NDArray[np.uint8]:
    """As the released evaluation: the protocol makes what it scores of the probabilities on the
    network's grid; slices that are not scored stay background.
    """
    from segweave.prediction import network_probabilities

    wanted = rules.needs.slices(case.slices)
    overlapping = predictor.target.kind == "overlapping"
    classes = (predictor.target.classes,) if overlapping else ()
    maps = {
        index: rules.from_network(probabilities, case.size, predictor.target)
        for index, probabilities in enumerate(network_probabilities(predictor, case))
        if index in wanted
    }
    size = next((kept.shape[-2:] for kept in maps.values()), case.size)
    labels = np.zeros((case.slices, *classes, *size), np.uint8)
    for index, kept in maps.items():
        labels[index] = kept
    return labels


def _validation_score(
    network: nn.Module, input: InputSpec, target: TargetSpec, cases: Sequence[Case]
) -> dict[str, float]:
    from segweave.evaluation import validation_scores
    from segweave.prediction import Predictor, predict

    predictor = Predictor(network, input, target, {})
    return validation_scores(lambda case: predict(predictor, case).labels, cases, target)


def _published_score(
    source: CaseStore | str | Path,
    network: nn.Module,
    input: InputSpec,
    target: TargetSpec,
    cases: Sequence[Case],
) -> dict[str, float]:
    """Means of the published protocol of the store's data set."""
    from segweave.data.store import Store
    from segweave.evaluation import estimate, get_protocol, score_rows
    from segweave.evaluation.curves import at_best_threshold
    from segweave.evaluation.summary import case_values, unit_of
    from segweave.prediction import Predictor

    name = Store(source).name if isinstance(source, str | Path) else source.name
    rules = get_protocol("published", dataset=name)
    predictor = Predictor(network, input, target, {})
    rows = []
    for case in cases:
        labels = _labels(predictor, case, rules)
        rows += score_rows(case, labels, target=target, protocol=rules)
    rows = at_best_threshold(rows)
    groups = {unit_of(row, rules.per): row.group for row in rows}
    values = {metric: case_values(rows, metric, rules.per) for metric in rules.definitions}
    return {
        metric: estimate(found, groups, interval=False).mean
        for metric, found in values.items()
        if found
    }
