"""Finds out what a source is: which data set, which cases, which files belong to none."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segweave.checking.kinds import problem_of
from segweave.checking.report import Problem
from segweave.data.specs import TargetSpec
from segweave.datasets.base import Item, Plan, invalid_names
from segweave.errors import InputError, SegweaveError, UsageError, nearest
from segweave.formats import case_name, find_images, read_array, read_case
from segweave.formats.files import files_of, folders_below, label_ending
from segweave.formats.table import suffix_of
from segweave.registry import build, datasets

_MASK_FOLDERS = ("masks", "mask", "labels", "label", "gt", "ground truth", "annotations")
_IMAGE_FOLDERS = ("images", "image", "img", "imgs", "original")
_PROSE = {".txt", ".md", ".cfg", ".json", ".csv", ".pdf", ".xml", ".html", ".log", ".yaml", ".yml",
          ".xlsx", ".py", ".m", ".ds_store", ".rst", ".tsv", ".jsonl"}  # fmt: skip
_LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "ehthumbs.db")


def _folders(source: Path, options: Mapping[str, Any]) -> list[Path]:
    """The folders that a plan reads: the source (or the folder of a table) and those that options
    name. A folder within another counts with it.
    """
    named = [Path(value) for value in options.values() if _is_folder(value)]
    folders = [path if path.is_dir() else path.parent for path in (source, *named)]
    absolute = [path.absolute() for path in folders]
    return [
        folder
        for folder, here in zip(folders, absolute, strict=True)
        if not any(here != other and here.is_relative_to(other) for other in absolute)
    ]


def _is_folder(value: Any) -> bool:
    return isinstance(value, str | Path) and Path(value).is_dir()


@dataclass
class Survey:
    """A source read as the data set `name`: its plan and what went wrong while planning.
    `labelled` is False for bare images; `folders` are those that the plan reads.
    """

    name: str
    plan: Plan
    problems: list[Problem] = field(default_factory=list)
    labelled: bool = True
    folders: list[Path] = field(default_factory=list)


def survey(source: Path, name: str | None, options: Mapping[str, Any]) -> Survey:
    """Plan the cases of `source` as the data set `name`, or as the one that it looks like.

    Raises InputError where nothing can be read, UsageError for a wrong name or option and where
    several data sets look alike.
    """
    if not source.exists():
        raise InputError("checking a data set", file=source, expected="a folder", found="nothing")
    masks = _mask_folder(source)
    if name == "folder" and masks and "masks" not in options:
        return _planned(masks[0], name, {"masks": masks[1], **options})
    if name is not None:
        return _planned(source, name, dict(options))
    candidates = _candidates(source, options)
    if len(candidates) > 1:
        names = [candidate.name for candidate in candidates] + ["folder"] * bool(masks)
        raise UsageError(
            "checking a data set",
            file=source,
            expected="a layout that only one data set has",
            found=f"one that {', '.join(names)} share",
            remedy=f"choose one: --as {' or --as '.join(names)}",
        )
    if candidates and not (masks and _like_any(candidates[0], source)):
        return candidates[0]
    if masks:
        photos = _planned(masks[0], "folder", {"masks": masks[1], **options})
        photos.problems += [
            Problem(
                "note",
                "note",
                found=f"{datasets.card(one.name).title}, has this layout too",
                remedy=f"if it is that: --as {one.name}",
            )
            for one in candidates
        ]
        return photos
    if options:
        known = {
            option
            for name in datasets.cards()
            for option in inspect.signature(datasets.entry(name)).parameters
        }
        unknown = [option for option in options if option not in known]
        raise UsageError(
            "checking a data set",
            file=source,
            expected="a layout of a data set that takes these options",
            found=", ".join(unknown or options),
            remedy=nearest(unknown[0], known) if unknown else "choose the data set: --as NAME",
        )
    return _bare(source)


def _like_any(one: Survey, source: Path) -> bool:
    """Whether only a layout that any images and masks have speaks for this set."""
    card = datasets.card(one.name)
    complete = len(one.plan.items) == card.expected.get("cases", -1)
    called = _letters(one.name) in _letters(source.absolute().name)
    return one.plan.layout in card.generic_layouts and not complete and not called


def _candidates(source: Path, options: Mapping[str, Any]) -> list[Survey]:
    """Every data set whose layout the source has, those of the expected size first."""
    found: list[Survey] = []
    for name, card in datasets.cards().items():
        # What takes images of any kind is recognised where it is a table alone.
        if card.generic and not (card.source == "table" and source.suffix.lower() == ".csv"):
            continue
        try:
            parameters = inspect.signature(datasets.entry(name)).parameters
            if any(option not in parameters for option in options):
                continue
            found.append(_planned(source, name, dict(options)))
        except (SegweaveError, OSError):
            continue
    complete = [
        one
        for one in found
        if len(one.plan.items) == datasets.card(one.name).expected.get("cases", -1)
    ]
    if len(complete) == 1:
        return complete
    # Where several fit, the name of the folder decides, if it holds the name of one.
    folder_name = _letters(source.absolute().name)
    called = [one for one in found if _letters(one.name) in folder_name]
    return called if len(called) == 1 else found


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _planned(source: Path, name: str, options: dict[str, Any]) -> Survey:
    """The plan of one data set, and the faults that it lists."""
    card = datasets.card(name)
    doing = f"checking {card.title}"
    plan: Plan = build(doing, datasets.entry(name), card.options, {"source": source, **options})
    left_out = [fault for one in plan.left_out for fault in one.faults]
    problems = [_problem(fault) for fault in (*plan.errors, *invalid_names(plan.items), *left_out)]
    if not plan.items and all(problem.kind == "missing" for problem in problems):
        raise InputError(doing, file=source, found="no labelled case")
    return Survey(name, plan, problems, folders=_folders(source, options))


def _problem(error: SegweaveError) -> Problem:
    case = case_name(error.file) if error.file is not None else ""
    return problem_of(error, default="layout", case=case, file=error.file)


def readable(file: Path) -> bool:
    """Whether a file can be read, or has no ending that would be read."""
    if not suffix_of(file):
        return True
    try:
        read_array(file)
    except SegweaveError:
        return False
    return True


def plain_name(path: Path) -> str:
    """A file's name without its ending and without what marks it as a mask."""
    name = case_name(path)
    return name.removesuffix(label_ending(name))


def _mask_folder(source: Path) -> tuple[Path, Path] | None:
    """A folder of images beside a folder of masks."""
    if not source.is_dir():
        return None
    below = {path.name.lower(): path for path in sorted(source.iterdir()) if path.is_dir()}
    images = next((below[name] for name in _IMAGE_FOLDERS if name in below), None)
    masks = next((below[name] for name in _MASK_FOLDERS if name in below), None)
    return (images, masks) if images and masks else None


def _bare(source: Path) -> Survey:
    """Images without labels."""
    items = [
        Item(case_name(path), tuple(files_of(path)), partial(read_case, path))
        for path in find_images(source)
    ]
    target = TargetSpec(kind="exclusive", names=tuple(f"class {i}" for i in range(256)))
    plan = Plan(layout="images", target=target, items=items, splits=lambda groups: {})
    return Survey("images", plan, labelled=False, folders=_folders(source, {}))


def unused(found: Survey) -> list[Path]:
    """Files of the source that belong to no case and are not texts."""
    used = {path.absolute() for item in found.plan.items for path in item.files}
    # A table may be anywhere: only folders that it names are searched.
    homes = {path.parent for path in used}
    folders = homes if found.name == "table" else _below(found.folders)
    used |= {path.absolute() for one in found.plan.left_out for path in one.partners}
    used |= {path.resolve() for path in used}
    return [
        path
        for folder in sorted(folders)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
        if path.suffix.lower() not in _PROSE and path.absolute() not in used
        if path.name.lower() not in _LEFT_BY_SYSTEMS
    ]


def _below(roots: list[Path]) -> set[Path]:
    """The folders and all below them that are neither hidden nor stores."""
    return {home for root in roots for home in folders_below(root, "checking a data set")}
