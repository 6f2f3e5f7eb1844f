"""Writes a store as an nnU-Net data set, so that nnU-Net trains on the same cases and splits."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, spacing_of
from segweave.data.specs import TargetSpec
from segweave.data.splits import only_split
from segweave.data.store import Store
from segweave.errors import InputError, UsageError, nearest
from segweave.storage import atomic_write, write_json, write_text
from segweave.words import text_cell

_DOING = "writing an nnU-Net data set"
_LEARNT = ("train", "valid", "")
"""Parts that nnU-Net trains on; the last is that of a store without splits."""
_FITS = {"b": np.uint8, "float16": np.float32}


def write_nnunet(
    store: Store,
    out: str | Path,
    *,
    number: int = 1,
    name: str | None = None,
    split: str | None = None,
    channels: Sequence[str] | None = None,
) -> Path:
    """Write every case of `store` below `out` as DatasetNNN_NAME; returns that folder.

    Cases that `split` (needed where the store has several) trains and validates on go to imagesTr
    and labelsTr, those of its other parts to imagesTs and labelsTs, those of no part nowhere
    (`in_no_part` names them); without a split all go to imagesTr. Train and valid become the one
    fold of splits_final.json, which nnU-Net reads from its folder of preprocessed data. Volumes
    become NIfTI, one file per channel, lossless, with the case's affine (without one: spacing, or
    1 mm, along the axes). Single images and frames become PNG where they are 8-bit grey or RGB.
    `channels` names the channels for dataset.json: nnU-Net chooses its normalisation by them
    ("CT"). A table, cases.csv, gives the id in the store, the group, the part and, of a video's
    frames, the slice of each of nnU-Net's cases, for `evaluate` and for reading it all back; where
    the store does not know groups, it names none, but puts the frames of a video together.
    Raises UsageError for an existing folder, for overlapping classes and for images as targets.
    """
    target = store.target
    if target.has_channels:
        raise UsageError(
            _DOING,
            expected="classes that exclude each other",
            found="overlapping ones" if target.task == "labels" else "images as targets",
            remedy="make a store with one label map of ids first",
        )
    if not 1 <= number <= 999:
        raise UsageError(_DOING, expected="a number from 1 to 999", found=str(number))
    parts = _parts(store, split)
    title = re.sub(r"[^A-Za-z0-9]+", "", name or store.name) or "store"
    folder = Path(out) / f"Dataset{number:03d}_{title}"
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(_DOING, file=folder, expected="a new folder", found="one with files in it")
    pictures = _as_pictures(store)
    names = _names(store)
    rows: list[tuple[str, str, str, str, str]] = []
    count = 0
    for id in store.ids:
        case = store.case(id)
        if case.label is None or (parts and id not in parts):
            continue
        count = case.image.shape[1]
        part = "Tr" if parts.get(id, "") in _LEARNT else "Ts"
        for stem, index in _pieces(case, names[id], pictures):
            _write_case(folder, part, stem, case, index, target, pictures)
            known = store.grouped or case.group != id or stem != names[id]
            place_in = "" if index is None or case.slices == 1 else str(index)
            rows.append((stem, id, case.group if known else "", parts.get(id, ""), place_in))
    _write_about(folder, store, rows, parts, count, pictures, channels, split)
    return folder


def in_no_part(store: Store, split: str | None = None) -> list[str]:
    """The cases that `write_nnunet` leaves out, because `split` has them in none of its parts."""
    parts = _parts(store, split)
    return [id for id in store.ids if id not in parts] if parts else []


def _parts(store: Store, split: str | None) -> dict[str, str]:
    """Case id → part; nothing where the store has no split."""
    if not store.splits:
        return {}
    chosen = split or only_split(store.splits)
    if chosen is None:
        raise UsageError(
            _DOING, expected="the name of a split", found=f"several: {', '.join(store.splits)}"
        )
    if chosen not in store.splits:
        raise UsageError(_DOING, found=f"split {chosen!r}", remedy=nearest(chosen, store.splits))
    return {id: part for part, ids in store.splits[chosen].items() for id in ids}


def _as_pictures(store: Store) -> bool:
    for id in store.ids:
        case = store.case(id)
        if (
            case.stack == "space"
            or case.image.dtype != np.uint8
            or case.image.shape[1] not in (1, 3)
        ):
            return False
    return True


def _names(store: Store) -> dict[str, str]:
    """Case id → a name of letters, digits, - and _, one for each."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for id in store.ids:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", id).strip("-") or "case"
        stem, more = plain, 1
        while stem in taken:
            more += 1
            stem = f"{plain}-{more}"
        taken.add(stem)
        names[id] = stem
    return names


def _pieces(case: Case, stem: str, pictures: bool) -> list[tuple[str, int | None]]:
    """What a case becomes: itself, or one picture a slice."""
    if not pictures:
        return [(stem, None)]
    if case.slices == 1:
        return [(stem, 0)]
    return [(f"{stem}_frame{k:04d}", k) for k in range(case.slices)]


def _write_case(
    folder: Path,
    part: str,
    stem: str,
    case: Case,
    index: int | None,
    target: TargetSpec,
    pictures: bool,
) -> None:
    assert case.label is not None
    labels = np.asarray(case.label)
    if target.ignored is not None:
        # nnU-Net wants the ignored value right behind the last class.
        last = len(target.names) if target.kind == "exclusive" else 2
        labels = np.where(labels == target.ignored, np.uint8(last), labels)
    if pictures and index is not None:
        from PIL import Image

        image = np.moveaxis(np.asarray(case.image[index]), 0, -1)
        for values, path in (
            (image[..., 0] if image.shape[-1] == 1 else image, f"images{part}/{stem}_0000.png"),
            (labels[index], f"labels{part}/{stem}.png"),
        ):
            with atomic_write(folder / path) as temporary:
                Image.fromarray(np.ascontiguousarray(values)).save(temporary, format="PNG")
        return
    for channel in range(case.image.shape[1]):
        file = folder / f"images{part}" / f"{stem}_{channel:04d}.nii.gz"
        _write_nifti(file, np.asarray(case.image[:, channel]), case)
    _write_nifti(folder / f"labels{part}" / f"{stem}.nii.gz", labels, case)


def _write_nifti(path: Path, values: NDArray[Any], case: Case) -> None:
    """Write (slices, rows, columns), on the axes of the case's own file where they are known."""
    import nibabel

    kind = _FITS.get(values.dtype.kind, _FITS.get(str(values.dtype)))
    values = values if kind is None else values.astype(kind)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    if case.source_grid is not None and case.affine is not None:
        grid = case.source_grid
        turned = grid.to_file(values)
        for column, (axis, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
            turn[column, axis] = -1.0 if flip else 1.0
            turn[column, 3] = grid.shape[axis] - 1 if flip else 0.0
        affine = case.affine @ turn
    else:
        turned = values.transpose(2, 1, 0)
        turn[:3, :3] = np.eye(3)[::-1]
        steps = np.diag([*(case.spacing or (1.0, 1.0, 1.0)), 1.0])
        # Rows run to the back and columns to the left, as on a screen.
        plain = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]) @ steps
        affine = (plain if case.affine is None else case.affine) @ turn
    header = nibabel.Nifti1Header()
    header.set_data_dtype(turned.dtype)
    header.set_data_shape(turned.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    header["pixdim"][1:4] = spacing_of(affine)
    header.set_xyzt_units("mm")
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    raw = bytes(header.binaryblock) + bytes(4) + turned.tobytes(order="F")
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(raw, 6, mtime=0))


def _write_about(
    folder: Path,
    store: Store,
    rows: Sequence[tuple[str, str, str, str, str]],
    parts: Mapping[str, str],
    count: int,
    pictures: bool,
    channels: Sequence[str] | None,
    split: str | None,
) -> None:
    if not rows:
        raise InputError(_DOING, expected="labelled cases", found="none")
    usual = ("R", "G", "B") if count == 3 and pictures else [f"channel {k}" for k in range(count)]
    named = list(channels or usual)
    if len(named) != count:
        raise UsageError(
            _DOING, expected=f"names for {count} channels", found=", ".join(named) or "none"
        )
    target = store.target
    names = target.names if len(target.names) > 1 else ("background", *target.names)
    labels = {name: i for i, name in enumerate(names)}
    labels[next(iter(labels))] = 0
    if "background" not in labels:
        labels = {"background": 0, **{name: i for name, i in labels.items() if i}}
    if target.ignored is not None:
        labels["ignore"] = len(names)
    training = [row for row in rows if row[3] in _LEARNT]
    about = {
        "channel_names": {str(k): name for k, name in enumerate(named)},
        "labels": labels,
        "numTraining": len(training),
        "file_ending": ".png" if pictures else ".nii.gz",
        "name": store.name,
        "description": f"written from the store {store.name}, checksum {store.checksum}",
    }
    write_json(folder / "dataset.json", about)
    if any(part == "valid" for part in parts.values()):
        fold = {
            "train": [row[0] for row in rows if row[3] == "train"],
            "val": [row[0] for row in rows if row[3] == "valid"],
        }
        write_json(folder / "splits_final.json", [fold])
    columns = [("case", "id", "group", "part", "slice"), *rows]
    lines = [",".join(map(_quoted, row)) for row in columns]
    write_text(folder / "cases.csv", "\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    text = text_cell(text)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n\r') else text
