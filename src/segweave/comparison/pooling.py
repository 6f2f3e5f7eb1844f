"""Scores over all runs of an arm, seeds and folds, in one table: every case of a cross-validation
once. One arm is enough; nothing is tested.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segweave.comparison.joining import arm_name, labels_of
from segweave.comparison.rendering import latex_table
from segweave.errors import InputError, UsageError, nearest
from segweave.evaluation.folder import read_evaluation
from segweave.evaluation.rows import Evaluation
from segweave.evaluation.summary import summarise
from segweave.evaluation.tables import Table, counted, quantity_of, summary_table
from segweave.runs.run_folder import RECIPE, RunLayout
from segweave.storage import atomic_write
from segweave.words import few, text_cells

_DOING = "summarising runs"


@dataclass(frozen=True)
class Pooled:
    """The scores of all runs.

    Attributes:
        table: one row per arm, over all its cases, each of them once (the mean over its seeds).
        runs: one row per run: arm, fold, seed, cases, the primary metric.
        evaluations: what was read, rows labelled by arm.
    """

    table: Table
    runs: Table
    evaluations: tuple[Evaluation, ...]


def pool(folders: Sequence[str | Path], *, evaluation: str = "clean") -> Pooled:
    """Put the scores of runs together.

    Args:
        folders: runs, folders with runs below them (what a grid wrote), or evaluation folders.
        evaluation: name of the evaluation in each run: `clean`, `published`, `clean-validation`.

    Raises InputError where a run has no such evaluation, UsageError for evaluations under different
    protocols or classes, and for two recipes under one name.
    """
    found = [one for folder in folders for one in _evaluations(Path(folder), evaluation)]
    paths = list(dict.fromkeys(path.resolve() for path in found))
    if not paths:
        raise UsageError(_DOING, expected="runs or evaluations", found="none")
    read = [read_evaluation(path) for path in paths]
    labels = labels_of(read)
    labelled = tuple(
        replace(e, rows=tuple(replace(row, arm=labels[arm_name(row, e)]) for row in e.rows))
        for e in read
    )
    table = summary_table(labelled, heading="All cases")
    notes = [*table.notes, *(note for label in _arms(labelled) for note in _notes(labelled, label))]
    return Pooled(replace(table, notes=tuple(notes)), _runs(labelled), labelled)


def write_pooled(pooled: Pooled, path: str | Path) -> Path:
    """Write both tables as .md or .tex, or one row per run as .csv, by the name's ending. Raises
    UsageError for any other.
    """
    file = Path(path)
    tables = (pooled.table, pooled.runs)
    endings = (".md", ".tex", ".csv")
    if file.suffix not in endings:
        raise UsageError(
            "writing a summary",
            file=file,
            expected="a name ending in .md, .tex or .csv",
            found=file.suffix or "no ending",
            remedy=nearest(file.suffix, endings) if file.suffix else None,
        )
    if file.suffix == ".csv":
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(
            map(text_cells, [pooled.runs.header, *pooled.runs.rows])
        )
        text = stream.getvalue()
    elif file.suffix == ".tex":
        text = "\n".join(latex_table(table) for table in tables)
    else:
        text = "\n".join(table.markdown() for table in tables)
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def _evaluations(folder: Path, name: str) -> list[Path]:
    """The evaluation folders of a run, of all runs below a folder, or the folder itself."""
    if (folder / "manifest.json").is_file():
        return [folder]
    if RunLayout(folder).started:
        runs = [RunLayout(folder)]
    else:
        recipes = sorted(folder.rglob(RECIPE))
        runs = [RunLayout(recipe.parent) for recipe in recipes]
    if not runs:
        raise InputError(
            _DOING,
            file=folder,
            expected="a run, a folder of runs, or an evaluation",
            found="none of them" if folder.exists() else "no such folder",
        )
    lacking = [run for run in runs if not (run.evaluation(name) / "manifest.json").is_file()]
    if lacking:
        there = sorted(p.parent.name for p in lacking[0].evaluations.glob("*/manifest.json"))
        raise InputError(
            _DOING,
            file=lacking[0].folder,
            expected=f"the evaluation {name} of each of {counted(len(runs), 'run')}",
            found=f"none in {few([run.folder.name for run in lacking])}",
            remedy=f"take another with --evaluation: {', '.join(there)}"
            if there
            else f"segweave evaluate {lacking[0].folder}",
        )
    return [run.evaluation(name) for run in runs]


def _arms(evaluations: Sequence[Evaluation]) -> list[str]:
    return list(dict.fromkeys(row.arm for e in evaluations for row in e.rows))


def _notes(evaluations: Sequence[Evaluation], arm: str) -> list[str]:
    """How the runs of an arm cover its cases."""
    folds_of: dict[str, set[int | None]] = {}
    runs: set[tuple[int | None, int | None]] = set()
    for evaluation in evaluations:
        for row in evaluation.rows:
            if row.arm == arm:
                folds_of.setdefault(row.case, set()).add(row.fold)
                runs.add((row.seed, row.fold))
    folds = sorted({fold for _, fold in runs if fold is not None})
    seeds = sorted({seed for seed, _ in runs if seed is not None})
    if len(folds) < 2:
        return []
    twice = [case for case, of_case in folds_of.items() if len(of_case) > 1]
    notes = []
    if twice:
        notes.append(
            f"{arm}: {counted(len(twice), 'case')} scored in several folds, with the mean over "
            f"them: {few(sorted(twice))}."
        )
    else:
        cases = counted(len(folds_of), "case")
        notes.append(f"{arm}: {len(folds)} folds; each of their {cases} was scored in one of them.")
    gaps = [f"fold {f}, seed {s}" for f in folds for s in seeds if (s, f) not in runs]
    if gaps:
        notes.append(f"{arm} has no run of: {few(gaps)}.")
    missing = sorted(set(range(folds[-1] + 1)) - set(folds))
    if missing:
        notes.append(f"{arm} lacks fold {few(missing)}: their cases are not in the table.")
    return notes


def _runs(evaluations: Sequence[Evaluation]) -> Table:
    """One row per run."""
    rows = []
    for evaluation in evaluations:
        runs = dict.fromkeys((row.arm, row.fold, row.seed) for row in evaluation.rows)
        for arm, fold, seed in runs:
            part = tuple(r for r in evaluation.rows if (r.arm, r.fold, r.seed) == (arm, fold, seed))
            (summary,) = summarise([replace(evaluation, rows=part)])
            value = summary.macro.overlaps.get(summary.primary)
            rows.append(
                (
                    (arm, -1 if fold is None else fold, -1 if seed is None else seed),
                    (
                        arm,
                        "–" if fold is None else str(fold),
                        "–" if seed is None else str(seed),
                        str(summary.cases),
                        str(summary.groups),
                        "–" if value is None else f"{value.mean:.4f}",
                    ),
                )
            )
    manifest = evaluations[0].manifest
    quantity = quantity_of(manifest.primary, manifest.metrics)
    header = ("arm", "fold", "seed", "cases", "groups", quantity)
    return Table("Each run", header, tuple(row for _, row in sorted(rows, key=lambda r: r[0])))
