"""ACDC, short-axis cardiac cine MRI at end diastole and end systole, from three layouts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.splits.folds import usual_folds
from segweave.datasets._acdc_facts import PHASES, phases_in_order, read_facts
from segweave.datasets._volumes import join_slices, read_labelled
from segweave.datasets.base import Item, LeftOut, Plan, alone, choose_layout, collected, not_there
from segweave.datasets.published_splits import load_split
from segweave.errors import InputError, SegweaveError
from segweave.formats import read_case
from segweave.registry import DatasetCard
from segweave.words import few

CARD = DatasetCard(
    name="acdc",
    title="ACDC, Automated Cardiac Diagnosis Challenge",
    entry="plan",
    paper="Bernard, Lalande, Zotti, Cervenansky et al., Deep Learning Techniques for Automatic "
    "MRI Cardiac Multi-structures Segmentation and Diagnosis: Is the Problem Solved?, IEEE TMI "
    "37(11), 2018, doi 10.1109/TMI.2018.2837502",
    licence="CC BY-NC-SA 4.0",
    stack="space",
    kind="exclusive",
    classes=("background", "right ventricle", "myocardium", "left ventricle"),
    expected={"groups": 100, "cases": 200, "slices": 1902},
    terms="Non-commercial use; the paper must be cited.",
    # Measured on the 100 training patients of the release.
    ranges={"slices": (6, 18), "size": (154, 512), "step": (5, 10), "pixel": (0.70, 1.92)},
    examples=(
        ("segweave prepare acdc ACDC/database stores/acdc", "the release, as it was downloaded"),
        (
            "segweave prepare acdc ACDC/database/training stores/acdc-100",
            "the 100 training patients alone",
        ),
        ("segweave prepare acdc ACDC stores/acdc --strict", "refuse where anything is missing"),
    ),
)

Layout = Literal["auto", "raw", "h5", "npz"]
_VOLUME = re.compile(r"(patient\d{3})_frame(\d{2})\.h5")
_NPZ_SLICE = re.compile(r"case_(\d{3})_slice(ED|ES)_(\d+)\.npz")
_NPZ_VOLUME = re.compile(r"case_(\d{3})_volume_(ED|ES)\.npz")
_TRAINING = {f"patient{number:03d}" for number in range(1, 101)}
_TESTING = {f"patient{number:03d}" for number in range(101, 151)}


def plan(source: Path, *, layout: Layout = "auto") -> Plan:
    """Find ACDC in one of its layouts.

    `raw` is the official release, `patientXXX/patientXXX_frameYY.nii.gz` with `_gt` and Info.cfg,
    here or below `training` and `testing`; its affines have unit steps, so millimetres are taken
    from pixdim.
    `h5` is one `patientXXX_frameYY.h5` per volume with `image` and `label`, here or below
    `ACDC_training_volumes`. `npz` is `train` and `valid` with one npz per slice, `test` with one
    npz per volume. Case ids are `patientXXX_ED` and `patientXXX_ES`; the group is the patient.

    Splits: `70-10-20` of the 100 training patients, as the papers' code deals them; five folds of
    them; and, where patients 101 to 150 are there, `official`: 100 to train, these 50 to test (it
    has no validation cases: `--set data.validation=null`).

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.

    Raises InputError where no layout fits, UsageError where several do.
    """
    name, folder = choose_layout(
        "ACDC",
        source,
        layout,
        {"raw": _raw_folder, "h5": _h5_folder, "npz": _npz_folder},
        "patientXXX folders, patientXXX_frameYY.h5 volumes, or train, valid and test folders with "
        "case_XXX npz files",
    )
    planned = {"raw": _plan_raw, "h5": _plan_h5, "npz": _plan_npz}[name](folder)
    missing, warnings = planned.missing, planned.warnings
    here = {item.id.partition("_")[0] for item in planned.items}
    wanted = _TRAINING if here & _TRAINING else set()
    absent = sorted((wanted | (_TESTING if here & _TESTING else set())) - here)
    if absent:
        missing.insert(0, f"{len(absent)} patients are not there: {few(absent)}")
    return replace(planned, missing=missing, warnings=warnings)


def _splits(groups: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    split = load_split("acdc")
    training = {id: group for id, group in groups.items() if group not in _TESTING}
    testing = [id for id, group in groups.items() if group in _TESTING]
    official = {"official": {"train": [*training], "test": testing}} if testing else {}
    if not training:
        return official
    # The release orders its patients by diagnosis, twenty of each.
    diagnosis = {
        group: f"{(int(group.removeprefix('patient')) - 1) // 20}" for group in training.values()
    }
    # The folds leave the official test patients out, so that they stay unseen.
    folds = usual_folds(training, strata=diagnosis)
    return {split.name: split.cases(training), **official, **folds}


def _target() -> TargetSpec:
    return TargetSpec(kind="exclusive", names=CARD.classes)


def _plan_of(
    layout: str,
    items: list[Item],
    missing: list[str],
    warnings: list[str],
    *,
    errors: Sequence[SegweaveError] = (),
    left_out: Sequence[LeftOut] = (),
) -> Plan:
    return Plan(
        layout=layout,
        target=_target(),
        items=sorted(items, key=lambda item: item.id),
        splits=_splits,
        missing=missing,
        warnings=warnings,
        errors=list(errors),
        left_out=list(left_out),
        provenance={
            "paper": CARD.paper,
            "licence": CARD.licence,
            "terms": CARD.terms,
            "split": load_split("acdc").source,
        },
    )


def _first(folders: list[Path], pattern: str) -> Path | None:
    return next((f for f in folders if f.is_dir() and any(f.glob(pattern))), None)


# The official release


def _raw_folder(source: Path) -> Path | None:
    pattern = "patient[0-9][0-9][0-9]/"
    for folder in (source, source / "database"):
        parts = [folder, folder / "training", folder / "testing"]
        if _first(parts, pattern) is not None:
            return folder
    return None


def _patients(folder: Path) -> list[Path]:
    """The folders of the patients, here or below training and testing."""
    found = [
        path
        for part in (folder, folder / "training", folder / "testing")
        for path in part.glob("patient[0-9][0-9][0-9]")
        if path.is_dir()
    ]
    twice = [name for name, count in Counter(p.name for p in found).items() if count > 1]
    if twice:
        raise InputError(
            "looking for ACDC",
            file=folder,
            expected="each patient once",
            found=f"{twice[0]} in two folders",
            remedy="give the folder of one copy",
            kind="same-id",
        )
    return sorted(found, key=lambda path: path.name)


def _plan_raw(folder: Path) -> Plan:
    items: list[Item] = []
    missing: list[str] = []
    warnings: list[str] = []
    left_out: list[LeftOut] = []
    errors: list[SegweaveError] = []
    for patient in _patients(folder):
        facts = collected(errors, partial(read_facts, patient, warnings), phases_in_order(patient))
        for phase in PHASES:
            if phase not in facts:
                missing.append(f"{patient.name} has no frame for {phase}")
                continue
            stem = f"{patient.name}_frame{int(facts[phase]):02d}"
            image, label = _nifti(patient, stem), _nifti(patient, f"{stem}_gt")
            if image is None or label is None:
                lacks = f"{stem}.nii.gz" if image is None else f"{stem}_gt.nii.gz"
                message = f"{patient.name} {phase}: no {lacks}, left out"
                there = [path for path in (image, label) if path is not None]
                if there:
                    left_out += alone(message, there, lacks=lacks)
                else:
                    left_out.append(not_there(message, patient / lacks))
                continue
            read = partial(_read_raw, image, label, patient.name, phase, facts)
            items.append(Item(f"{patient.name}_{phase}", (image, label), read, group=patient.name))
    return _plan_of("raw", items, missing, warnings, errors=errors, left_out=left_out)


def _read_raw(image: Path, label: Path, patient: str, phase: str, facts: dict[str, Any]) -> Case:
    case = read_case(
        image,
        label=label,
        id=f"{patient}_{phase}",
        group=patient,
        geometry="pixdim",
        stack="space",
    )
    known: dict[str, Any] = {
        "phase": phase,
        "frame": int(facts[phase]),
        **{key: facts[key] for key in ("diagnosis", "height_cm", "weight_kg") if key in facts},
    }
    return replace(case, attributes={**case.attributes, **known})


def _nifti(folder: Path, stem: str) -> Path | None:
    names = (f"{stem}.nii.gz", f"{stem}.nii")
    return next((folder / name for name in names if (folder / name).is_file()), None)


# One HDF5 file a volume


def _h5_folder(source: Path) -> Path | None:
    folders = [source, source / "ACDC_training_volumes"]
    return _first(folders, "patient[0-9][0-9][0-9]_frame[0-9][0-9].h5")


def _plan_h5(folder: Path) -> Plan:
    frames: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.iterdir()):
        if match := _VOLUME.fullmatch(path.name):
            frames.setdefault(match[1], []).append((int(match[2]), path))
    items: list[Item] = []
    missing: list[str] = []
    errors: list[SegweaveError] = []
    lossy = 0
    for patient, volumes in frames.items():
        named = [_h5_phase(path) for _, path in volumes]
        # Without a name: ED is the earlier of the two in every patient of the release.
        phases = [phase for phase in named if phase] if all(named) else [*PHASES[: len(volumes)]]
        if len(volumes) > 2 or len(set(phases)) != len(volumes):
            errors.append(
                InputError(
                    "looking for ACDC's h5 volumes",
                    file=volumes[-1][1],
                    expected=f"one ED and one ES volume of {patient}",
                    found="a second of one: " + few([path.name for _, path in volumes]),
                    kind="same-id",
                )
            )
            volumes, phases = volumes[:2], [*PHASES[: len(volumes)]]
        for phase in sorted(set(PHASES) - set(phases)):
            missing.append(f"{patient} has no {phase} volume")
        for (frame, path), phase in zip(volumes, phases, strict=True):
            read = partial(_read_h5, path, patient, phase, frame)
            items.append(Item(f"{patient}_{phase}", (path,), read, group=patient))
            lossy += _h5_attribute(path, "lossless") is False
    warnings = []
    if lossy:
        warnings.append(
            f"{lossy} of {len(items)} volumes say that their image was re-encoded with loss"
        )
    return _plan_of("h5", items, missing, warnings, errors=errors)


def _h5_attribute(path: Path, name: str) -> Any:
    """An attribute of the file, or None; damaged files are for the reader to report."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get(name)
    except OSError:
        return None
    return value.item() if isinstance(value, np.generic) else value


def _h5_phase(path: Path) -> str | None:
    phase = _h5_attribute(path, "phase")
    return phase if phase in PHASES else None


def _read_h5(path: Path, patient: str, phase: str, frame: int) -> Case:
    case = read_labelled(path, id=f"{patient}_{phase}", group=patient)
    attributes = {**case.attributes, "phase": phase, "frame": frame}
    if "group" in attributes:
        attributes["diagnosis"] = attributes.pop("group")
    return replace(case, attributes=attributes)


# The npz files of MT-UNet's and SA-LSTM's programs


def _npz_folder(source: Path) -> Path | None:
    parts = [source / part for part in ("train", "valid", "test")]
    return source if _first(parts, "case_[0-9][0-9][0-9]_*.npz") is not None else None


def _plan_npz(folder: Path) -> Plan:
    slices: dict[tuple[str, str, str], dict[int, Path]] = {}
    volumes: dict[tuple[str, str, str], Path] = {}
    for part in ("train", "valid", "test"):
        for path in sorted((folder / part).glob("case_*.npz")):
            if match := _NPZ_SLICE.fullmatch(path.name):
                key = (f"patient{match[1]}", match[2], part)
                slices.setdefault(key, {})[int(match[3])] = path
            elif match := _NPZ_VOLUME.fullmatch(path.name):
                volumes[f"patient{match[1]}", match[2], part] = path
    items: list[Item] = []
    missing: list[str] = []
    homes: dict[str, str] = {}
    errors: list[SegweaveError] = []
    for patient, phase, part in sorted({*slices, *volumes}):
        if homes.setdefault(f"{patient}_{phase}", part) != part:
            files = [path for (p, f, _), path in volumes.items() if (p, f) == (patient, phase)]
            for (p, f, _), some in slices.items():
                files += list(some.values())[:1] if (p, f) == (patient, phase) else []
            errors.append(
                InputError(
                    "looking for ACDC's npz files",
                    file=next((path for path in files if path.parent.name == part), folder),
                    expected=f"{patient} {phase} in one of train, valid and test",
                    found=f"it in {homes[f'{patient}_{phase}']} and also in {part}",
                    kind="same-id",
                )
            )
            continue
        if volume := volumes.get((patient, phase, part)):
            read = partial(_read_npz_volume, volume, patient, phase)
            items.append(Item(f"{patient}_{phase}", (volume,), read, group=patient))
            continue
        numbered = slices[patient, phase, part]
        absent = sorted(set(range(max(numbered) + 1)) - set(numbered))
        if absent:
            missing.append(f"{patient} {phase}: no slice {few([str(n) for n in absent])}")
        paths = tuple(numbered[number] for number in sorted(numbered))
        read = partial(_read_npz_slices, numbered, patient, phase)
        items.append(Item(f"{patient}_{phase}", paths, read, group=patient))
    warnings = ["npz files hold no spacing: distances will be in pixels"]
    warnings += _other_parts(homes)
    return _plan_of("npz", items, missing, warnings, errors=errors)


def _other_parts(homes: Mapping[str, str]) -> list[str]:
    split = load_split("acdc")
    published = {group: part for part, groups in split.parts.items() for group in groups}
    other = sorted(
        id for id, part in homes.items() if published.get(id.partition("_")[0], part) != part
    )
    text = f"{few(other)} are in another part than in the split {split.name}, which is used"
    return [text] if other else []


def _read_npz_volume(path: Path, patient: str, phase: str) -> Case:
    case = read_labelled(path, id=f"{patient}_{phase}", group=patient)
    return replace(case, attributes={**case.attributes, "phase": phase})


def _read_npz_slices(numbered: Mapping[int, Path], patient: str, phase: str) -> Case:
    read = {number: read_case(path) for number, path in numbered.items()}
    case = join_slices(read, numbered, f"{patient}_{phase}", patient)
    return replace(case, attributes={"phase": phase})
