"""A task of the Medical Segmentation Decathlon (dataset.json, imagesTr, labelsTr)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segweave.data.case import Case
from segweave.datasets._groups import BY_NAME, groups_by, own_group_warning
from segweave.datasets._volumes import (
    exclusive_target,
    read_volume,
    splits_by,
)
from segweave.datasets.base import Item, LeftOut, Plan, not_there
from segweave.errors import InputError, SegweaveError
from segweave.formats import Geometry, case_name
from segweave.registry import DatasetCard
from segweave.storage import read_json
from segweave.words import few

CARD = DatasetCard(
    name="decathlon",
    title="a task of the Medical Segmentation Decathlon (TaskXX_NAME)",
    entry="plan",
    paper="Antonelli, Reinke, Bakas et al., The Medical Segmentation Decathlon, Nature "
    "Communications 13, 4128, 2022, doi 10.1038/s41467-022-30695-9",
    licence="CC BY-SA 4.0",
    stack="space",
    kind="exclusive",
)

_DOING = "preparing a task of the Decathlon"


def plan(
    source: Path,
    *,
    group: str | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    geometry: Geometry = "check",
) -> Plan:
    """Read the cases that dataset.json lists as training; its test cases have no labels.

    A fourth axis of an image holds its channels. No split is published.

    Args:
        source: The folder of the task (TaskXX_NAME).
        group: A regular expression that finds the patient in a case's id.
        fractions: Shares of groups for train, valid and test.
        seed: Decides which groups go where, when they are dealt out by fractions.
        geometry: What decides where a NIfTI header contradicts itself: check (refuse), pixdim,
            affine (the sform) or qform.

    Raises InputError where it is not a task of the Decathlon.
    """
    file = source / "dataset.json"
    if not file.is_file():
        raise InputError(
            _DOING,
            file=source,
            expected="a folder with dataset.json",
            found="none in it",
            kind="layout",
        )
    about = read_json(file, _DOING)
    listed, raw = about.get("training"), about.get("labels")
    if not isinstance(listed, list) or not isinstance(raw, dict) or not listed:
        raise InputError(
            _DOING,
            file=file,
            expected="labels and a list named training, each with image and label",
            found=", ".join(sorted(map(str, about))[:8]),
            remedy="if it is an nnU-Net data set, prepare it as nnunet",
            kind="layout",
        )
    try:
        target = exclusive_target({int(key): str(name) for key, name in raw.items()}, _DOING, file)
    except ValueError as error:
        raise InputError(
            _DOING, file=file, expected="labels by id", found=str(raw)[:100], kind="layout"
        ) from error
    modality = about.get("modality")
    channels = len(modality) if isinstance(modality, dict) and modality else 1
    pairs, left_out, errors = _pairs(source, file, listed)
    missing: list[str] = []
    groups = groups_by(list(pairs), group, _DOING)
    items = [
        Item(
            id,
            (image, label),
            partial(_read, image, label, id, groups[id], channels, geometry),
            group=groups[id],
        )
        for id, (image, label) in pairs.items()
    ]
    wanted = about.get("numTraining")
    if isinstance(wanted, int) and wanted != len(listed):
        missing.append(f"dataset.json declares {wanted} training cases and lists {len(listed)}")
    test = about.get("test")
    warnings = own_group_warning(group is not None, BY_NAME)
    if isinstance(test, list) and test:
        warnings.append(f"{len(test)} test images have no labels and are left out")
    return Plan(
        layout="decathlon",
        target=target,
        items=items,
        splits=splits_by(fractions, seed),
        missing=missing,
        warnings=warnings,
        grouped=group is not None,
        options=f"geometry {geometry}",
        provenance={
            "name": str(about.get("name", source.name)),
            "paper": CARD.paper,
            "licence": str(about.get("licence", CARD.licence)),
            "split": f"seed {seed}, by group",
        },
        errors=errors,
        left_out=left_out,
    )


def _pairs(
    source: Path, file: Path, listed: list[Any]
) -> tuple[dict[str, tuple[Path, Path]], list[LeftOut], list[SegweaveError]]:
    pairs: dict[str, tuple[Path, Path]] = {}
    lost: list[Path] = []
    left_out: list[LeftOut] = []
    errors: list[SegweaveError] = []
    for row in listed:
        paths = [row.get(key) if isinstance(row, dict) else None for key in ("image", "label")]
        if not all(isinstance(path, str) and path for path in paths):
            errors.append(
                InputError(
                    _DOING,
                    file=file,
                    expected="image and label, as paths",
                    found=str(row)[:80],
                    kind="layout",
                )
            )
            continue
        image, label = (source / str(path) for path in paths)
        # Paths of another machine lead nowhere and are missing; the others would read its files.
        outside = [p for p in (image, label) if p.exists() and not _is_inside(p, source)]
        if outside:
            errors.append(
                InputError(
                    _DOING,
                    file=file,
                    expected="files of the data set",
                    found=f"{outside[0]}, outside of its folder",
                    remedy="correct the path in dataset.json",
                    kind="layout",
                )
            )
            continue
        id = case_name(image)
        if id in pairs:
            errors.append(
                InputError(
                    _DOING,
                    file=file,
                    expected="an id for each case",
                    found=f"{id!r} twice",
                    remedy="remove one of them from the list named training",
                    kind="same-id",
                )
            )
            continue
        absent = [path for path in (image, label) if not path.is_file()]
        there = [path for path in (image, label) if path.is_file()]
        lost += absent
        left_out += [
            not_there(f"{_shown(path, source)} is not there, the case is left out", path, *there)
            for path in absent
        ]
        if not absent:
            pairs[id] = (image, label)
    if not pairs and not errors:
        raise InputError(
            _DOING,
            file=file,
            expected="the files that it lists",
            found=f"none of them: {few([_shown(path, source) for path in lost], 3)}",
            remedy="if images are named ID_0000.nii.gz, prepare it as nnunet",
            kind="missing",
        )
    return pairs, left_out, errors


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a path leads into the folder, by its words; a link inside may lead elsewhere."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _shown(path: Path, source: Path) -> str:
    return str(path.relative_to(source) if path.is_relative_to(source) else path)


def _read(image: Path, label: Path, id: str, group: str, channels: int, geometry: Geometry) -> Case:
    case = read_volume(
        [image], label, id=id, group=group, geometry=geometry, channels=True, stack="space"
    )
    if case.image.shape[1] != channels:
        raise InputError(
            "reading the channels of an image",
            file=image,
            expected=f"{channels} channels, as dataset.json declares",
            found=str(case.image.shape[1]),
            kind="layout",
        )
    return case
