"""Scores any folder of label maps against a folder of references, matched by name."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from segweave.data.case import Case, Stack
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, nearest
from segweave.evaluation.folder import check_free, write_evaluation
from segweave.evaluation.protocols import Protocol, get_protocol
from segweave.evaluation.rows import Evaluation, Row
from segweave.evaluation.score_cases import (
    Problems,
    References,
    new_manifest,
    problem_list,
    score_rows,
)
from segweave.evaluation.scores import check_metrics, unique_ids
from segweave.formats import SUFFIXES, Geometry, case_name, read_label, read_label_case, suffix_of
from segweave.formats.files import LABEL_ENDINGS, label_ending
from segweave.formats.label_ids import target_of_ids
from segweave.runtime.progress import Progress

_GROUP_WORDS = ("patient", "subject", "video", "sequence")
_COLUMNS = ("case", "group", "part", "stack", "arm", "seed", "fold", "id", "slice")


@dataclass(frozen=True)
class _Entry:
    """A row of the table of cases. `id` is the case of the file where that has another name,
    `slice` the index of the file's slice in that case.
    """

    group: str | None = None
    part: str = ""
    stack: Stack | None = None
    arm: str | None = None
    seed: int | None = None
    fold: int | None = None
    id: str | None = None
    slice: int | None = None


def evaluate_folders(
    predictions: str | Path,
    references: str | Path,
    out: str | Path,
    *,
    protocol: str | Protocol = "clean",
    metrics: Sequence[str] = (),
    cases_csv: str | Path | None = None,
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
    in another, and write an evaluation folder. Names are compared without their ending and without
    `_gt`, `_mask`, `_segmentation` and similar ones.

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
        target: the classes; None takes those of the protocol, else the ids in the references.
        arm: the arm, where the CSV file has none.
        seed: the seed, where the CSV file has none.
        fold: the fold, where the CSV file has none.
        stack: what the slices of a file are, where the CSV file does not state it: "space" (a
            volume, scored in 3D), "time" (frames of a video, scored one by one) or "single"; None
            takes what the file states, else "space".
        geometry: which half of a NIfTI header holds where it contradicts itself.
        mask_threshold: in grey masks (JPEG), what is above this is foreground.
        force: write over an evaluation.
        progress: called with (done, total, case).

    Raises InputError that lists all files that are missing, double, left over or do not fit, and
    UsageError for a metric that is unknown or reads more than label maps; nothing is written then.
    """
    rules = get_protocol(protocol)
    check_metrics([name for name in metrics if name not in rules.definitions], probabilities=False)
    check_free(out, force=force)
    ours, theirs = _label_files(predictions), _label_files(references)
    if stack is not None and stack not in get_args(Stack):
        raise UsageError(
            "scoring label maps", found=f"stack={stack!r}", remedy=nearest(stack, get_args(Stack))
        )
    entries = _read_entries(cases_csv) if cases_csv is not None else None
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
    if target is None:
        target = rules.target or _target_of(theirs, names, geometry, mask_threshold)
    rows: list[Row] = []
    truths = References()
    wrong = Problems(f"scoring {predictions} against {references}")
    for count, name in enumerate(names, start=1):
        entry = entries[name] if entries is not None else _Entry()
        file = theirs[name]
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
            file = ours[name]
            if rules.needs.any_size:
                prediction = read_label_case(file, geometry=geometry, scaled=target.one_class).label
            else:
                prediction = read_label(file, case, geometry=geometry, scaled=target.one_class)
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
            if case.label is not None:
                truths.add(entry.id or name, case.label, entry.slice or 0)
        except UsageError:
            raise
        except SegweaveError as error:
            wrong.add(file.name, error)
        if progress is not None:
            progress(count, len(names), name)
    wrong.check()
    manifest = new_manifest(
        rules,
        target,
        metrics,
        references=truths.checksums(),
        grouped=entries is not None and all(entries[name].group for name in names),
        sources={
            "predictions": os.path.abspath(predictions),
            "references": os.path.abspath(references),
        },
    )
    return write_evaluation(out, rows, manifest, force=force)


def _assigned(row: Row, entry: _Entry, case: Case) -> Row:
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


def case_of(path: Path) -> str:
    """The name of the case that a label file belongs to."""
    name = case_name(path)
    return name.removesuffix(label_ending(name))


def _label_files(folder: str | Path) -> dict[str, Path]:
    """Case → label file, of one file, or of a folder and its sub-folders. Where some files have an
    ending such as _gt, the others are images and are ignored; so are overlays.
    """
    path = Path(folder)
    doing = "looking for label maps"
    if path.is_file() and suffix_of(path):
        return {case_of(path): path}
    if not path.is_dir():
        raise InputError(
            doing, file=path, expected="a folder of label maps", found="no such folder"
        )
    files = [
        file
        for file in sorted(path.rglob("*"))
        if suffix_of(file)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and not case_name(file).endswith("_overlay")
        and "overlays" not in file.relative_to(path).parts[:-1]
    ]
    marked = [file for file in files if label_ending(case_name(file))]
    by_case: dict[str, list[Path]] = {}
    for file in marked or files:
        by_case.setdefault(case_of(file), []).append(file)
    if not by_case:
        raise InputError(
            doing, file=path, expected="files ending in " + " ".join(SUFFIXES), found="none"
        )
    doubled = [
        f"{case}: {', '.join(str(file.relative_to(path)) for file in several)}"
        for case, several in by_case.items()
        if len(several) > 1
    ]
    if doubled:
        raise problem_list(
            f"{doing} in {path}: several files for one case",
            doubled,
            remedy="keep one file per case",
        )
    return {case: several[0] for case, several in by_case.items()}


def _read_entries(path: str | Path) -> dict[str, _Entry]:
    file = Path(path)
    doing = "reading the table of cases"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{doing}: {error}", file=file, expected="a CSV file") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = [str(name).strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    unknown = [name for name in header if name not in _COLUMNS]
    remedy = nearest(unknown[0], _COLUMNS) if unknown else None
    if ";" in "".join(header) or "\t" in "".join(header):
        remedy = "separate the columns with commas"
    elif unknown and unknown[0].lower() in _GROUP_WORDS:
        remedy = "call that column group"
    if "case" not in header or unknown:
        raise InputError(
            doing,
            file=file,
            expected="the column case and any of " + ", ".join(_COLUMNS[1:]),
            found=", ".join(header) or "an empty file",
            remedy=remedy,
        )
    entries: dict[str, _Entry] = {}
    problems = []
    for cells in reader:
        name = (cells["case"] or "").strip()
        name = case_of(Path(name)) if suffix_of(name) else name
        where = f"line {reader.line_num}"
        if not name or None in cells:
            problems.append(f"{where}: no case" if not name else f"{where}: too many columns")
        elif name in entries:
            problems.append(f"{where}: {name} comes twice")
        else:
            try:
                entries[name] = _entry(cells)
            except ValueError as error:
                problems.append(f"{where}: {error}")
    problems += _met_twice(entries)
    if problems or not entries:
        raise problem_list(f"{doing} {file}", problems or ["it has no rows"])
    return entries


def _met_twice(entries: Mapping[str, _Entry]) -> list[str]:
    """Files to which the table gives the same slice of one case."""
    first: dict[tuple[str, int | None], str] = {}
    problems = []
    for name, entry in entries.items():
        other = first.setdefault((entry.id or name, entry.slice), name)
        if other != name:
            problems.append(f"{other} and {name} are the same part of {entry.id or name}")
    return problems


def _wanted(entries: Mapping[str, _Entry], files: set[str]) -> list[str]:
    """The cases of the table, except those of parts without any file: a table of all parts can be
    used for the test cases alone.
    """
    here = {entry.part for name, entry in entries.items() if name in files}
    return [name for name, entry in entries.items() if entry.part in here] or list(entries)


def _entry(cells: Mapping[str, str | None]) -> _Entry:
    values = {name: (cells.get(name) or "").strip() for name in _COLUMNS}
    stacks: dict[str, Stack] = {name: name for name in get_args(Stack)}
    if values["stack"] and values["stack"] not in stacks:
        raise ValueError(f"stack {values['stack']!r} is not one of {', '.join(stacks)}")
    for name in ("seed", "fold", "slice"):
        if values[name] and not values[name].lstrip("-").isdigit():
            raise ValueError(f"{name} {values[name]!r} is not a whole number")
    return _Entry(
        group=values["group"] or None,
        part=values["part"],
        stack=stacks.get(values["stack"]),
        arm=values["arm"] or None,
        seed=int(values["seed"]) if values["seed"] else None,
        fold=int(values["fold"]) if values["fold"] else None,
        id=values["id"] or None,
        slice=int(values["slice"]) if values["slice"] else None,
    )


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
