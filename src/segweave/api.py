"""Training and evaluation as one call each: joins training, prediction and evaluation, which know
nothing of each other.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import InputError, UsageError, nearest
from segweave.files import atomic_write

if TYPE_CHECKING:
    from torch import nn

    from segweave.data.store import CaseStore
    from segweave.evaluation import Evaluation, Protocol
    from segweave.prediction import Predictor
    from segweave.recipes import Recipe
    from segweave.training import Run

Geometry = Literal["check", "pixdim", "affine"]
PARTS = ("training", "validation", "test")
Progress = Callable[[int, int, str], None]
"""Called with the number of cases done, of all, and the name of the last one."""


def train(
    recipe: Recipe | str | Path,
    store: CaseStore | str | Path | None = None,
    out: str | Path = "run",
    *,
    sets: Sequence[str] = (),
    seed: int | None = None,
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
        precision: overrides the recipe's `training.precision`.
        device: "auto", "cpu", "cuda" or "cuda:1".
        resume: continue what `out` holds; without it a folder that holds a run is refused.
        progress: show a bar on stderr.

    Validation cases are scored under the protocol `clean`; test cases are touched only where the
    recipe's protocol is `published`, whose checkpoint is chosen on them. Raises what
    `segweave.training.train` raises.
    """
    from segweave.recipes import load_recipe
    from segweave.training import train as train_on

    over = [*sets]
    over += [f"seed={seed}"] if seed is not None else []
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
    return train_on(
        chosen,
        source,
        out,
        score=_validation_score,
        score_on_test=functools.partial(_published_score, source),
        device=device,
        resume=resume,
        progress=progress,
    )


def evaluate(
    source: str | Path | Run,
    references: str | Path | None = None,
    *,
    part: str = "test",
    protocol: str = "clean",
    checkpoint: str | None = None,
    store: CaseStore | str | Path | None = None,
    cases: str | Path | None = None,
    classes: Sequence[str] | None = None,
    geometry: Geometry = "check",
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
        store: of a run: the store, where the run no longer finds it.
        cases: of files: a CSV with case, group, stack, arm, seed, fold.
        classes: of files: names of the classes from id 1 on.
        geometry: of files: what holds where a NIfTI header contradicts itself.
        out: the evaluation folder; of a run: `RUN/evaluation/PROTOCOL`.
        force: write over an evaluation, and score test cases a second time.
        device: where a run's model predicts.
        progress: called with (done, all, case).

    Test cases are scored once under a protocol: a second time raises UsageError without `force`,
    because a choice made after looking at test scores turns them into validation scores. The label
    maps that were scored lie in `RUN/predictions`. Raises InputError for files that do not fit.
    """
    from segweave.evaluation import evaluate_folders
    from segweave.training import Run

    if references is not None:
        if out is None:
            raise UsageError(
                "evaluating label maps", expected="a folder to write to (out)", found="none"
            )
        return evaluate_folders(
            str(source),
            references,
            out,
            protocol=protocol,
            cases_csv=cases,
            target=_target(classes),
            geometry=geometry,
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
    if part not in PARTS:
        raise UsageError("choosing cases to score", found=repr(part), remedy=nearest(part, PARTS))
    return _evaluate_run(source, part, protocol, checkpoint, store, out, force, device, progress)


def _target(classes: Sequence[str] | None) -> TargetSpec | None:
    """The target with these foreground classes, None where they are to be found in the files."""
    if not classes:
        return None
    kind: Literal["binary", "exclusive"] = "binary" if len(classes) == 1 else "exclusive"
    return TargetSpec(kind=kind, names=("background", *classes))


def _evaluate_run(
    run: Run,
    part: str,
    protocol: str,
    checkpoint: str | None,
    store: CaseStore | str | Path | None,
    out: str | Path | None,
    force: bool,
    device: str,
    progress: Progress | None,
) -> Evaluation:
    from segweave.evaluation import evaluate_cases, get_protocol
    from segweave.prediction import load
    from segweave.training.running import choose_parts

    recipe = run.recipe
    name = "-".join([protocol, *([part] if part != "test" else []), *_named(checkpoint)])
    folder = Path(out) if out is not None else run.folder / "evaluation" / name
    if part == "test":
        _check_scored_once(run, name, force)
    cases = _store_of(run, store)
    rules = get_protocol(protocol, dataset=cases.name)
    ids = choose_parts(recipe, cases).get(part)
    if not ids:
        raise UsageError(
            f"choosing the {part} cases of the store {cases.name}", expected="some", found="none"
        )
    predictor = load(run.folder, checkpoint=checkpoint, device=device)

    def report(done: int, case: str) -> None:
        if progress is not None:
            progress(done, len(ids), case)

    with _predictions_folder(run.folder / "predictions" / name) as kept:

        def pairs() -> Iterator[tuple[Case, NDArray[Any]]]:
            for id in ids:
                case = cases.case(id)
                labels = _labels(predictor, case, rules)
                _keep(labels, case, kept)
                yield case, labels

        found = evaluate_cases(
            pairs(),
            folder,
            target=predictor.target,
            protocol=rules,
            arm="-".join([recipe.arm, *_named(checkpoint)]),
            seed=recipe.seed,
            fold=recipe.fold,
            sources={"run": str(run.folder), "part": part, "store": cases.checksum},
            parameters=sum(p.numel() for p in predictor.network.parameters()),
            checkpoint=checkpoint or recipe.training.checkpoint,
            force=force,
            progress=report,
        )
    if part == "test":
        _note_scored(run, name, folder)
    return found


def _named(checkpoint: str | None) -> list[str]:
    return [] if checkpoint is None else [checkpoint]


def _store_of(run: Run, store: CaseStore | str | Path | None) -> CaseStore:
    """The store that a run was trained on, known by its checksum."""
    from segweave.data.store import Store

    place = store if store is not None else run.recipe.data.store
    if place is None:
        raise UsageError(
            "evaluating a run", file=run.folder, expected="its store", found="none named in it"
        )
    opened = Store(place) if isinstance(place, str | Path) else place
    checksum = run.environment["data"]["checksum"]
    if opened.checksum != checksum:
        raise InputError(
            "evaluating a run",
            file=run.folder,
            expected=f"the store that it was trained on (checksum {checksum[:12]})",
            found=f"the store {opened.name} with checksum {opened.checksum[:12]}",
            remedy="give the store as it was; for other data, predict files and score those",
        )
    return opened


def _labels(predictor: Predictor, case: Case, rules: Protocol) -> NDArray[np.uint8]:
    """What the protocol scores of a case: its label map, decided where the protocol decides."""
    from segweave.prediction import predict

    if rules.needs.decide_on == "case":
        return predict(predictor, case).labels
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


# What was scored on test cases, and the label maps behind it

_LEDGER = "tested.json"


def _check_scored_once(run: Run, name: str, force: bool) -> None:
    done = _ledger(run).get(name)
    if done is not None and not force:
        raise UsageError(
            "scoring test cases a second time",
            file=run.folder,
            expected="test cases that this run was not scored on yet",
            found=f"scores of {done['when']} in {done['folder']}",
            remedy="read those; a choice made after looking at test scores makes them worthless, "
            "so choose on part validation; after a repaired fault, force it",
        )


def _note_scored(run: Run, name: str, folder: Path) -> None:
    ledger = _ledger(run)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    times = ledger.get(name, {}).get("times", 0) + 1
    ledger[name] = {"when": when, "folder": str(folder), "times": times}
    with atomic_write(run.folder / "evaluation" / _LEDGER) as temporary:
        temporary.write_text(json.dumps(ledger, indent=2) + "\n", encoding="utf-8")


def _ledger(run: Run) -> dict[str, Any]:
    path = run.folder / "evaluation" / _LEDGER
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("reading what was scored already", file=path, found=str(error)) from error
    return content


@contextmanager
def _predictions_folder(final: Path) -> Iterator[Path]:
    """A new folder beside `final` that takes its place when all went well."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=final.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        old = final.with_name(f".old-{final.name}")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.replace(final, old)
        os.replace(temporary, final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep(labels: NDArray[np.uint8], case: Case, folder: Path) -> None:
    from segweave.data.formats import write_label
    from segweave.data.formats.nifti import HEADER_ATTRIBUTE
    from segweave.evaluation import nearest_zoom

    if labels.shape[-2:] != case.size:
        # Scored at the network's size; kept at the case's, to be looked at.
        labels = nearest_zoom(labels, case.size)
    name = urllib.parse.quote(case.id, safe=" ")
    if HEADER_ATTRIBUTE in case.attributes and case.source_grid is not None:
        ending = ".nii.gz"
    else:
        ending = ".png" if case.stack == "single" and labels.ndim == 3 else ".npz"
    write_label(labels, case, folder / f"{name}{ending}")
