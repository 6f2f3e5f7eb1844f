"""What a ranking may list: cases of a store, or images of a folder. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segweave.data.case import Case
from segweave.data.store import Store, is_store
from segweave.errors import InputError, UsageError
from segweave.formats import Geometry, case_name, find_images, read_case
from segweave.formats.files import label_ending
from segweave.runs.run_folder import Run
from segweave.workflow.variants import contents_of_training

_DOING = "ranking cases"


@dataclass(frozen=True)
class Candidate:
    """A case that may be ranked: `file` is its image file, None in a store."""

    id: str
    group: str
    file: Path | None = None


@dataclass(frozen=True)
class Candidates:
    """The cases that are ranked.

    Attributes:
        source: the store or the folder.
        cases: the cases.
        labelled: how many were left out because they have a label.
        known: how many were left out because the runs learned from them or are tested on them.
        geometry: how NIfTI headers are read that contradict themselves.
    """

    source: Path
    cases: tuple[Candidate, ...]
    labelled: int
    known: int
    geometry: Geometry = "check"

    def case(self, candidate: Candidate) -> Case:
        """The image of a candidate, without its label."""
        if candidate.file is not None:
            return read_case(candidate.file, geometry=self.geometry, with_label=False)
        return replace(Store(self.source).case(candidate.id), label=None, instances=None)


def candidates(
    source: str | Path, runs: Sequence[Run], *, labelled: bool, geometry: Geometry = "check"
) -> Candidates:
    """The cases of a store or the images of a folder that may be ranked.

    Args:
        source: a store, an image file, or a folder of image files.
        runs: the runs; cases of a store that one of them learned from or is tested on are left out.
        labelled: whether cases with a label are ranked too.
        geometry: what is right where a NIfTI header contradicts itself.

    Raises UsageError where nothing is left to rank, InputError where nothing can be read.
    """
    path = Path(source)
    if is_store(path):
        found, with_label, known = _of_store(Store(path), runs, labelled)
    else:
        found, with_label, known = _of_folder(path, labelled)
    if not found:
        reasons = [f"{with_label} that have a label"] * bool(with_label)
        reasons += [f"{known} that the runs know"] * bool(known)
        raise UsageError(
            _DOING,
            file=path,
            expected="at least one case without a label",
            found=" and ".join(reasons) or "none",
            remedy="rank those with labels too (--labelled)" if with_label else None,
        )
    return Candidates(path, tuple(found), with_label, known, geometry)


def _of_store(
    store: Store, runs: Sequence[Run], labelled: bool
) -> tuple[list[Candidate], int, int]:
    groups: set[str] = set()
    contents: set[str] = set()
    ids: set[str] = set()
    for run in runs:
        data = run.training_data
        if data["name"] == store.name:
            groups |= {*data["groups"], *data["validation_groups"]}
        contents |= set(contents_of_training(run))
        if run.environment["data"]["checksum"] == store.checksum:
            ids |= {id for part in run.recipe.choose_parts(store).values() for id in part}
    found, with_label, known = [], 0, 0
    for id in store.ids:
        entry = store.entry(id)
        if entry.group in groups or entry.content in contents or id in ids:
            known += 1
        elif entry.labelled and not labelled:
            with_label += 1
        else:
            found.append(Candidate(id, entry.group))
    return found, with_label, known


def _of_folder(folder: Path, labelled: bool) -> tuple[list[Candidate], int, int]:
    files = find_images(folder)
    found, with_label = [], 0
    seen: dict[str, Path] = {}
    named: dict[Path, set[str]] = {}
    for file in files:
        name = case_name(file)
        if name in seen:
            raise InputError(
                _DOING,
                file=file,
                expected="images of different names, which name the cases",
                found=f"{name} twice, the other is {seen[name]}",
                remedy="rank the folders one after the other",
            )
        seen[name] = file
        if file.parent not in named:
            named[file.parent] = _with_labels(file.parent)
        if not labelled and has_label(file, named[file.parent]):
            with_label += 1
        else:
            found.append(Candidate(name, name, file))
    return found, with_label, 0


def has_label(file: Path, named: Collection[str]) -> bool:
    """Whether an image file has a label: a file beside it (NAME_gt.nii.gz), whose images are
    `named` in lower case, or an array in it.
    """
    if case_name(file).lower() in named:
        return True
    if file.is_dir() or file.suffix.lower() not in (".h5", ".hdf5", ".npz"):
        return False
    try:
        return read_case(file).label is not None
    except InputError:
        return False  # It is reported where it is ranked.


def _with_labels(folder: Path) -> set[str]:
    """Names of the images in a folder whose label is beside them, in lower case."""
    stems = [case_name(file) for file in folder.iterdir()]
    endings = [label_ending(stem) for stem in stems]
    return {
        stem[: len(stem) - len(ending)].lower()
        for stem, ending in zip(stems, endings, strict=True)
        if ending
    }
