"""Scores any folder of label maps against a folder of references, matched by name."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from segweave.data.case import Case, Stack
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, nearest
from segweave.evaluation.case_table import Entry, read_entries
from segweave.evaluation.folder import References, check_free, new_manifest, write_evaluation
from segweave.evaluation.label_pairs import Pairs, case_of, find_labels, pair, whole_name
from segweave.evaluation.protocols import Protocol, get_protocol, score_rows
from segweave.evaluation.rows import Evaluation, Row
from segweave.evaluation.score_cases import Problems, problem_list
from segweave.evaluation.scores import check_metrics, unique_ids
from segweave.formats import Geometry, read_label, read_label_case, suffix_of
from segweave.formats.files import LABEL_ENDINGS
from segweave.formats.label_ids import check_named, target_of_ids, target_of_names
from segweave.runtime.progress import Progress
from segweave.words import few

_DOING = "scoring label maps"


def evaluate_folders(
    predictions: str | Path,
    references: str | Path,
    out: str | Path,
    *,
    protocol: str | Protocol = "clean",
    metrics: Sequence[str] = (),
    cases_csv: str | Path | None = None,
    group: str | None = None,
    images: str | Path | None = None,
    classes: Sequence[str] = (),
    target: TargetSpec | None = None,
    arm: str = "",
    seed: int | None = None,
    fold: int | None = None,
    stack: Stack | None = None,
    geometry: Geometry = "check",
    mask_threshold: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every label map of a folder (NIfTI, PNG, npz, h5 ...) against the one of the same name
    in another, and write an evaluation folder. Names that are equal belong together first; then
    names are compared without `_gt`, `_mask`, `_segmentation` and similar endings. What is passed
    over is noted in the evaluation.

    Args:
        predictions: a folder of label maps, or one file.
        references: a folder of true label maps, or one file.
        out: the evaluation folder.
        protocol: a protocol or its name.
        metrics: names of metrics to compute beside the protocol's, a plug-in's too.
        cases_csv: a CSV file with the column `case` and any of group, part, stack, arm, seed, fold,
            id, slice. It selects the cases: all of every part that has a file in either folder. A
            file without a group is a group. `id` is the name under which the scores of a file are
            kept; `slice` is the index of the slice of that case that the file holds, as
            `export-nnunet` writes the frames of a video.
        group: a regular expression that finds the group in the name of a case, where the CSV file
            states none: its first bracket that takes part, or the whole match.
        images: the folder of the images, for pictures; it is noted in the evaluation.
        classes: names of the classes: `background` and the names from id 1 on, or these alone.
        target: the classes, instead of their names; None takes those of the protocol, else the ids
            in the references.
        arm: the arm, where the CSV file has none.
        seed: the seed, where the CSV file has none.
        fold: the fold, where the CSV file has none.
        stack: what the slices of a file are, where the CSV file does not state it: "space" (a
            volume, scored in 3D), "time" (frames of a video, scored one by one) or "single"; None
            takes what the file states, else "space".
        geometry: which half of a NIfTI header holds where it contradicts itself.
        mask_threshold: in grey masks (JPEG), of predictions and of references, what is above this
            is foreground.
        force: write over an evaluation.
        progress: called with (done, total, case).

    Raises InputError that lists all files that are missing, double, left over or do not fit, and
    UsageError for a metric that is unknown or reads more than label maps; nothing is written then.
    """
    rules = get_protocol(protocol)
    check_metrics([name for name in metrics if name not in rules.definitions], probabilities=False)
    check_free(out, force=force)
    if stack is not None and stack not in get_args(Stack):
        raise UsageError(_DOING, found=f"stack={stack!r}", remedy=nearest(stack, get_args(Stack)))
    if images is not None and not Path(images).exists():
        raise InputError(_DOING, file=images, expected="the images", found="nothing there")
    rows_of_table = read_entries(cases_csv) if cases_csv is not None else {}
    stems = {_stem(name) for name in rows_of_table}
    pairs = pair(
        find_labels(predictions),
        find_labels(references),
        stems | {case_of(Path(stem)) for stem in stems},
    )
    entries = _by_case(rows_of_table, pairs, cases_csv)
    names = _matched(pairs, entries if cases_csv is not None else None, predictions, references)
    entries = {name: entries.get(name, Entry()) for name in names}
    entries = _grouped(entries, group)
    if target is None and classes:
        target = target_of_names(classes)
    if target is None:
        target = rules.target or _target_of(pairs.references, names, geometry, mask_threshold)
    if mask_threshold is not None and not target.one_class:
        raise UsageError(
            _DOING,
            expected="one class, where a threshold makes the masks",
            found=", ".join(target.foreground.values()),
            remedy="name one class, or leave the threshold out",
        )
    rows: list[Row] = []
    truths = References()
    wrong = Problems(f"scoring {predictions} against {references}")
    highest = 0
    for count, name in enumerate(names, start=1):
        entry = entries[name]
        file = pairs.references[name]
        try:
            case = read_label_case(
                file,
                id=name,
                group=entry.group or entry.id,
                geometry=geometry,
                stack=entry.stack or stack,
                scaled=target.white_is_one,
                threshold=mask_threshold,
            )
            assert case.label is not None
            highest = max(highest, _highest(case))
            file = pairs.predictions[name]
            if rules.needs.any_size:
                prediction = read_label_case(
                    file, geometry=geometry, scaled=target.one_class, threshold=mask_threshold
                ).label
            else:
                prediction = read_label(
                    file,
                    case,
                    geometry=geometry,
                    scaled=target.one_class,
                    threshold=mask_threshold,
                )
            assert prediction is not None
            scored = score_rows(
                case,
                prediction,
                target=target,
                protocol=rules,
                metrics=metrics,
                arm=arm if entry.arm is None else entry.arm,
                seed=seed if entry.seed is None else entry.seed,
                fold=fold if entry.fold is None else entry.fold,
            )
            rows += [_assigned(row, entry, case) for row in scored]
            truths.add(entry.id or name, case.label, entry.slice or 0)
        except UsageError:
            raise
        except SegweaveError as error:
            wrong.add(file.name, error)
        if progress is not None:
            progress(count, len(names), name)
    wrong.check()
    check_named(classes, highest, f"{_DOING}: naming the classes of the references")
    passed = [os.path.basename(file) for file in pairs.passed_over]
    manifest = new_manifest(
        rules,
        target,
        metrics,
        references=truths.checksums(),
        grouped=all(entries[name].group for name in names),
        remarks=[f"Passed over as images without a label map: {few(passed)}."] if passed else [],
        sources={
            "predictions": os.path.abspath(predictions),
            "references": os.path.abspath(references),
            **({} if images is None else {"images": os.path.abspath(images)}),
            **({} if mask_threshold is None else {"mask_threshold": str(mask_threshold)}),
        },
    )
    return write_evaluation(out, rows, manifest, force=force)


def _highest(case: Case) -> int:
    """The highest id of a label map, or its number of overlapping classes."""
    label = np.asarray(case.label)
    return label.shape[1] if label.ndim == 4 else int(label.max(initial=0))


def _assigned(row: Row, entry: Entry, case: Case) -> Row:
    """The row with the case and the slice that the table gives to its file."""
    if entry.slice is None:
        return replace(row, case=entry.id or row.case)
    if case.slices != 1 or row.score.slice is None:
        raise InputError(
            "scoring a slice of a case",
            expected="a file of one image, where the table gives it a slice",
            found=f"{case.slices} slices, scored as {case.stack}",
            remedy="leave the column slice empty for files of whole cases; frames have stack time",
        )
    score = replace(row.score, slice=entry.slice)
    return replace(row, case=entry.id or row.case, score=score)


def _stem(name: str) -> str:
    """A name in the table without the ending of a file."""
    return whole_name(Path(name)) if suffix_of(name) else name


def _by_case(rows: Mapping[str, Entry], pairs: Pairs, table: str | Path | None) -> dict[str, Entry]:
    """Case → its row; names in the table may be those of files, with or without their endings."""
    entries: dict[str, Entry] = {}
    problems = []
    for name, entry in rows.items():
        stem = _stem(name)
        short = case_of(Path(stem))
        case = pairs.names.get(stem) or pairs.names.get(short) or short
        if case in entries:
            problems.append(f"{name} comes twice, as the case {case}")
        entries[case] = entry
    if problems:
        raise problem_list(f"reading the table of cases {table}", problems)
    return entries


def _matched(
    pairs: Pairs,
    entries: Mapping[str, Entry] | None,
    predictions: str | Path,
    references: str | Path,
) -> list[str]:
    """The cases to score. Raises InputError that lists all that have one file only."""
    ours, theirs = pairs.predictions, pairs.references
    names = sorted(theirs if entries is None else _wanted(entries, {*ours, *theirs}))
    problems = [f"{name}: no reference in {references}" for name in names if name not in theirs]
    problems += [f"{name}: no prediction in {predictions}" for name in names if name not in ours]
    problems += [
        f"{name}: a prediction without {'a row in the table' if entries else 'a reference'}"
        for name in sorted(set(ours) - set(names))
    ]
    if problems:
        raise problem_list(
            "matching predictions with references",
            problems,
            remedy="names must be equal except for the ending and " + ", ".join(LABEL_ENDINGS),
        )
    return names


def _wanted(entries: Mapping[str, Entry], cases: Collection[str]) -> list[str]:
    """The cases of the table, except those of parts without any file: a table of all parts can be
    used for the test cases alone.
    """
    here = {entry.part for name, entry in entries.items() if name in cases}
    return [name for name, entry in entries.items() if entry.part in here] or list(entries)


def _grouped(entries: Mapping[str, Entry], pattern: str | None) -> dict[str, Entry]:
    """The rows with the group that `pattern` finds in the case's name, where they have none."""
    from segweave.datasets._groups import groups_by

    if pattern is None:
        return dict(entries)
    ids = {name: entry.id or name for name, entry in entries.items() if not entry.group}
    groups = groups_by(list(ids.values()), pattern, "finding the groups of the cases")
    return {
        name: replace(entry, group=groups[ids[name]]) if name in ids else entry
        for name, entry in entries.items()
    }


def _target_of(
    files: Mapping[str, Path], names: list[str], geometry: Geometry, threshold: int | None
) -> TargetSpec:
    """The classes, by the ids in the references."""
    ids_of: dict[Path, set[int]] = {}
    overlapping = 0
    problems = Problems("reading the references")
    for name in names:
        try:
            case = read_label_case(
                files[name], geometry=geometry, scaled=False, threshold=threshold
            )
        except SegweaveError as error:
            problems.add(files[name].name, error)
            continue
        assert case.label is not None
        ids_of[files[name]] = {int(id) for id in unique_ids(case.label)}
        overlapping = max(overlapping, case.label.shape[1] if case.label.ndim == 4 else 0)
    problems.check()
    if overlapping:
        return TargetSpec(
            kind="overlapping", names=tuple(f"class {k}" for k in range(1, overlapping + 1))
        )
    if not any(max(ids, default=0) for ids in ids_of.values()):
        raise InputError(
            "finding the classes in the references",
            expected="at least one label id above 0",
            found="background alone",
            remedy="name the classes",
        )
    target, _, errors = target_of_ids(ids_of, "finding the classes in the references")
    if errors:
        raise errors[0]
    return target
