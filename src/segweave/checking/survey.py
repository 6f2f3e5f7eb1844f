"""Finds out what a source is: which data set, which cases, which files belong to none."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from segweave.checking.kinds import problem_of
from segweave.checking.report import Problem
from segweave.data.specs import TargetSpec
from segweave.datasets.base import Item, Plan, odd_names
from segweave.datasets.folder import MASK_ENDINGS
from segweave.errors import InputError, MissingExtraError, SegweaveError, UsageError, nearest
from segweave.formats import case_name, find_images, read_array, read_case
from segweave.formats.files import is_store
from segweave.formats.table import suffix_of
from segweave.registry import build, datasets

GENERIC = ("table", "folder")
_ANY_NAMES = {"kvasir-seg": "release"}
"""Data set → its layout that any folders of images and masks have, whatever their names."""
_TRIES = 40
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "gt", "ground truth", "annotations")
_IMAGE_FOLDERS = ("images", "image", "img", "imgs", "original")
_PROSE = {".txt", ".md", ".cfg", ".json", ".csv", ".pdf", ".xml", ".html", ".log", ".yaml", ".yml",
          ".xlsx", ".py", ".m", ".ds_store", ".rst", ".tsv", ".jsonl"}  # fmt: skip
_LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "ehthumbs.db")


class Roots:
    """The folders that a plan reads. Where a file has to be hidden from it, they are mirrored by
    folders of links.
    """

    def __init__(self, *real: Path) -> None:
        own = [path if path.is_dir() else path.parent for path in real]
        # A folder within another is mirrored with it.
        self.folders = [
            path
            for path in own
            if not any(_inside(path, other) not in (None, Path()) for other in own)
        ]
        self._mirrors: list[Path] = []

    def shown(self, value: Any) -> Any:
        """What the plan gets for a path of the source; other values stay as they are."""
        for folder, mirror in zip(self.folders, self._mirrors, strict=False):
            inside = _inside(value, folder)
            if inside is not None:
                return mirror / inside
        return value

    def real(self, path: Path) -> Path:
        """The file of the source that a path of the plan stands for."""
        for folder, mirror in zip(self.folders, self._mirrors, strict=False):
            inside = _inside(path, mirror)
            if inside is not None:
                return folder / inside
        return path

    def text(self, message: str) -> str:
        """A message with the source's own paths."""
        for folder, mirror in zip(self.folders, self._mirrors, strict=False):
            message = message.replace(str(mirror), str(folder))
        return message

    def told(self, problem: Problem) -> Problem:
        """A problem with the source's own paths."""
        return replace(
            problem,
            found=self.text(problem.found),
            expected=self.text(problem.expected),
            remedy=self.text(problem.remedy),
            file=problem.file and self.real(problem.file),
        )

    def file(self, path: Path | None) -> Path | None:
        """The source's file that an error names, or None where it names none that can be hidden."""
        if path is None or path.is_dir() or not os.path.lexists(path):
            return None
        real = self.real(path)
        return real if any(_inside(real, folder) for folder in self.folders) else None

    def hide(self, culprit: Path, mirror: Path) -> None:
        """Hide a file; one that can't be read with all files of its case."""
        if not self._mirrors:
            self._mirrors = [mirror / str(k) / folder.name for k, folder in enumerate(self.folders)]
            for folder, own in zip(self.folders, self._mirrors, strict=True):
                _link(folder, own)
        self.shown(culprit).unlink()
        if not suffix_of(culprit) or readable(culprit):
            return
        stem = plain_name(culprit)
        for own in self._mirrors:
            for path in own.rglob("*"):
                if path.is_symlink() and suffix_of(path) and plain_name(path) == stem:
                    path.unlink()


def _is_folder(value: Any) -> bool:
    return isinstance(value, str | Path) and Path(value).is_dir()


def _inside(value: Any, folder: Path) -> Path | None:
    """A path relative to the folder it lies in (or is), or None."""
    if not isinstance(value, str | Path):
        return None
    try:
        return Path(value).absolute().relative_to(folder.absolute())
    except ValueError:
        return None


def _link(source: Path, mirror: Path) -> None:
    """The folders of `source` with a link to each file."""
    for place, _, names in os.walk(source):
        own = mirror / Path(place).relative_to(source)
        own.mkdir(parents=True)
        for name in names:
            (own / name).symlink_to((Path(place) / name).absolute())


@dataclass
class Survey:
    """A source read as the data set `name`: its plan and what went wrong while planning.
    `labelled` is False for bare images; `roots` are the folders that the plan reads.
    """

    name: str
    plan: Plan
    problems: list[Problem] = field(default_factory=list)
    labelled: bool = True
    roots: Roots = field(default_factory=lambda: Roots())


def survey(source: Path, name: str | None, options: Mapping[str, Any], mirror: Path) -> Survey:
    """Plan the cases of `source` as the data set `name`, or as the one that it looks like.
    `mirror` is an empty folder, which must stay as long as cases are read.

    Raises InputError where nothing can be read, UsageError for a wrong name or option and where
    several data sets look alike.
    """
    if not source.exists():
        raise InputError("checking a data set", file=source, expected="a folder", found="nothing")
    masks = _mask_folder(source)
    if name == "folder" and masks and "masks" not in options:
        return _planned(masks[0], name, {"masks": masks[1], **options}, mirror)
    if name is not None:
        return _planned(source, name, dict(options), mirror)
    candidates = _candidates(source, options, mirror)
    if len(candidates) > 1:
        names = [candidate.name for candidate in candidates] + ["folder"] * bool(masks)
        raise UsageError(
            "checking a data set",
            file=source,
            expected="a layout that only one data set has",
            found=f"one that {', '.join(names)} share",
            remedy=f"say which it is: --as {' or --as '.join(names)}",
        )
    if candidates and not (masks and _like_any(candidates[0], source)):
        return candidates[0]
    if masks:
        own = _planned(masks[0], "folder", {"masks": masks[1], **options}, mirror)
        own.problems += [
            Problem(
                "note",
                "note",
                found=f"{datasets.card(one.name).title}, has this layout too",
                remedy=f"if it is that: --as {one.name}",
            )
            for one in candidates
        ]
        return own
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
            remedy=nearest(unknown[0], known) if unknown else "say which data set it is: --as NAME",
        )
    return _bare(source)


def _like_any(one: Survey, source: Path) -> bool:
    """Whether nothing but its layout, which any images and masks have, says that it is this set."""
    complete = len(one.plan.items) == datasets.card(one.name).expected.get("cases", -1)
    called = _letters(one.name) in _letters(source.absolute().name)
    return _ANY_NAMES.get(one.name) == one.plan.layout and not complete and not called


def _candidates(source: Path, options: Mapping[str, Any], mirror: Path) -> list[Survey]:
    """Every data set whose layout the source has, those of the expected size first."""
    found: list[Survey] = []
    for name in datasets.cards():
        if name in GENERIC and not (name == "table" and source.suffix.lower() == ".csv"):
            continue
        try:
            parameters = inspect.signature(datasets.entry(name)).parameters
            if any(option not in parameters for option in options):
                continue
            found.append(_planned(source, name, dict(options), mirror))
        except (SegweaveError, OSError):
            continue
    complete = [
        one
        for one in found
        if len(one.plan.items) == datasets.card(one.name).expected.get("cases", -1)
    ]
    if len(complete) == 1:
        return complete
    # What several share is told apart by the name of the folder, if that says it.
    place = _letters(source.absolute().name)
    called = [one for one in found if _letters(one.name) in place]
    return called if len(called) == 1 else found


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _planned(source: Path, name: str, options: dict[str, Any], mirror: Path) -> Survey:
    """The plan of one data set. A file that stops it is noted and hidden, and it is tried again, so
    that one fault does not cover the others.
    """
    card = datasets.card(name)
    make = partial(build, f"checking {card.title}", datasets.entry(name), card.options)
    roots = Roots(source, *(Path(v) for v in options.values() if _is_folder(v)))
    problems: list[Problem] = []
    for _ in range(_TRIES):
        try:
            moved = {key: roots.shown(value) for key, value in options.items()}
            plan: Plan = make({"source": roots.shown(source), **moved})
            break
        except (UsageError, MissingExtraError):
            raise
        except SegweaveError as error:
            culprit = roots.file(error.file)
            if culprit is None:
                raise
            problems.append(_problem(error, culprit, roots))
            roots.hide(culprit, mirror / name)
    else:
        raise InputError(
            "checking a data set",
            file=source,
            expected="fewer faults",
            found=f"more than {_TRIES} files that stop the search",
            remedy=f"mend these first; the last: {problems[-1].file}",
        )
    left_out = [fault for one in plan.left_out for fault in one.faults]
    for fault in [*plan.errors, *odd_names(plan.items), *left_out]:
        problems.append(
            _problem(fault, None if fault.file is None else roots.real(fault.file), roots)
        )
    if not plan.items and all(problem.kind == "missing" for problem in problems):
        raise InputError(f"checking {card.title}", file=source, found="no labelled case")
    return Survey(name, plan, problems, roots=roots)


def _problem(error: SegweaveError, file: Path | None, roots: Roots) -> Problem:
    case = case_name(file) if file is not None else ""
    return roots.told(problem_of(error, default="layout", case=case, file=file))


def readable(file: Path) -> bool:
    """Whether a file can be read, or is none that would be."""
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
    ending = next((e for e in MASK_ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] or name


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
        Item(case_name(path), (path,), partial(read_case, path)) for path in find_images(source)
    ]
    target = TargetSpec(kind="exclusive", names=tuple(f"class {i}" for i in range(256)))
    plan = Plan(layout="images", target=target, items=items, splits=lambda groups: {})
    return Survey("images", plan, labelled=False, roots=Roots(source))


def unused(found: Survey) -> list[Path]:
    """Files of the source that belong to no case and are no prose."""
    used = {found.roots.real(path).absolute() for item in found.plan.items for path in item.files}
    # A table may lie anywhere: only folders that it names are looked at.
    homes = {path.parent for path in used}
    places = homes if found.name == "table" else _below(found.roots.folders)
    used |= {
        found.roots.real(path).absolute() for one in found.plan.left_out for path in one.partners
    }
    used |= {path.resolve() for path in used}
    return [
        path
        for place in sorted(places)
        for path in sorted(place.iterdir())
        if path.is_file() and not path.name.startswith(".")
        if path.suffix.lower() not in _PROSE and path.absolute() not in used
        if path.name.lower() not in _LEFT_BY_SYSTEMS
    ]


def _below(roots: list[Path]) -> set[Path]:
    """The folders and all below them that are neither hidden nor stores."""
    found = set()
    for root in roots:
        for place, folders, _ in os.walk(root):
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not is_store(Path(place) / name)
            ]
            found.add(Path(place))
    return found
