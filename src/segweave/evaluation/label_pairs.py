"""Finds label maps in two folders, and which of them belong together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segweave.errors import InputError
from segweave.evaluation.score_cases import problem_list
from segweave.formats import SUFFIXES, case_name, suffix_of
from segweave.formats.files import label_ending, visible
from segweave.formats.table import whole_name as whole_name

_DOING = "looking for label maps"


def case_of(path: Path) -> str:
    """The name of the case that a label file belongs to: without _gt, _mask and the like."""
    return _short(whole_name(path))


def _short(name: str) -> str:
    return name.removesuffix(label_ending(name))


def case_file(folder: str | Path, case: str) -> Path:
    """The label map of a case in a folder. Raises InputError where there is none."""
    found = "none"
    try:
        for name, file in find_labels(folder).files.items():
            if case in (name, _short(name)):
                return file
    except InputError as error:
        found = error.found or found
    raise InputError(_DOING, file=folder, expected=f"a label map of {case}", found=found)


@dataclass
class Folder:
    """The label maps of one folder: name without ending → file; and the `images` beside them, which
    have the name of a label map without its _gt or _mask.
    """

    path: Path
    files: dict[str, Path]
    images: list[Path] = field(default_factory=list)


def find_labels(folder: str | Path) -> Folder:
    """The label maps of a folder and its sub-folders, or one file. Hidden files and overlays are
    left out; so are images beside a label map of the same name with an ending such as _gt. Raises
    InputError where a folder can't be read, holds none, or several of one name.
    """
    path = Path(folder)
    if path.is_file() and suffix_of(path):
        return Folder(path, {whole_name(path): path})
    if not path.is_dir():
        raise InputError(
            _DOING, file=path, expected="a folder of label maps", found="no such folder"
        )
    try:
        files = [file for file in visible(path) if suffix_of(file) and file.is_file()]
    except OSError as error:
        raise InputError(
            _DOING,
            file=error.filename or path,
            expected="a folder that may be read",
            found=str(error.strerror),
            remedy="allow reading it, or take it out of the folder",
        ) from error
    files = [
        file
        for file in files
        if not case_name(file).endswith("_overlay")
        and "overlays" not in file.relative_to(path).parts[:-1]
    ]
    if not files:
        raise InputError(
            _DOING, file=path, expected="files ending in " + " ".join(SUFFIXES), found="none"
        )
    marked = {case_of(file) for file in files if label_ending(whole_name(file))}
    images = [file for file in files if whole_name(file) in marked]
    by_name: dict[str, list[Path]] = {}
    for file in files:
        if file not in images:
            by_name.setdefault(whole_name(file), []).append(file)
    _check_single(path, by_name)
    return Folder(path, {name: several[0] for name, several in by_name.items()}, images)


def _check_single(folder: Path, by_name: Mapping[str, list[Path]]) -> None:
    doubled = [
        f"{name}: {', '.join(str(file.relative_to(folder)) for file in several)}"
        for name, several in by_name.items()
        if len(several) > 1
    ]
    if doubled:
        raise problem_list(
            f"{_DOING} in {folder}: several files for one case",
            doubled,
            remedy="keep one file per case",
        )


@dataclass(frozen=True)
class Pairs:
    """Case → prediction, case → reference, what other names a case goes by (those of its files),
    and the files that were passed over.
    """

    predictions: dict[str, Path]
    references: dict[str, Path]
    names: dict[str, str]
    passed_over: list[Path]


def pair(predictions: Folder, references: Folder, named: Collection[str] = ()) -> Pairs:
    """Which files belong together: first those whose names are equal, then those whose names are
    equal without endings such as _gt and _mask.

    A file without such an ending, in a folder where others have one, is passed over where nothing
    in the other folder has its name, unless a table `named` it: it is an image without a label map.
    Raises InputError where several files of a folder would be one case.
    """
    equal = predictions.files.keys() & references.files.keys()
    rest = [
        _by_case(folder, {n: f for n, f in folder.files.items() if n not in equal})
        for folder in (predictions, references)
    ]
    shorts = [_short(name) for name in equal]
    ids = {
        # Two equal names may differ in the ending alone; then each keeps its own.
        name: name
        if shorts.count(short) > 1 or any(short in r for r in rest) or short in equal
        else short
        for name, short in zip(equal, shorts, strict=True)
    }
    both = [
        {ids[name]: folder.files[name] for name in equal} for folder in (predictions, references)
    ]
    names = {alias: id for name, id in ids.items() for alias in (id, name)}
    passed_over = [*predictions.images, *references.images]
    for folder, own, other, held in zip(
        (predictions, references), rest, reversed(rest), both, strict=True
    ):
        marked = any(label_ending(name) for name in folder.files)
        for case, file in own.items():
            alone = case not in other and not label_ending(whole_name(file))
            if marked and alone and case not in named:
                passed_over.append(file)
                continue
            held[case] = file
            names[case] = names[whole_name(file)] = case
    return Pairs(both[0], both[1], names, sorted(passed_over))


def _by_case(folder: Folder, files: Mapping[str, Path]) -> dict[str, Path]:
    by_case: dict[str, list[Path]] = {}
    for name, file in files.items():
        by_case.setdefault(_short(name), []).append(file)
    _check_single(folder.path, by_case)
    return {case: several[0] for case, several in by_case.items()}
