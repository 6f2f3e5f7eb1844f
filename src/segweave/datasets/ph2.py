"""PH2, 200 dermoscopic images of melanocytic lesions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from segweave.datasets._groups import read_rows
from segweave.datasets._pairs import PairFolders, find_pairs, pair_folders, subfolder
from segweave.datasets._pictures import common_splits, provenance_of, single_item, target_of
from segweave.datasets.base import Plan, choose_layout
from segweave.registry import DatasetCard

CARD = DatasetCard(
    name="ph2",
    title="PH2, lesions in dermoscopic images",
    entry="plan",
    paper="Mendonça, Ferreira, Marques, Marçal, Rozeira, PH2 - A dermoscopic image database for "
    "research and benchmarking, EMBC 2013, doi 10.1109/EMBC.2013.6610779",
    licence="research and education",
    stack="single",
    kind="binary",
    classes=("background", "lesion"),
    expected={"cases": 200},
    terms="The paper must be cited.",
)

_DIAGNOSES = ("Common Nevus", "Atypical Nevus", "Melanoma")


def plan(source: Path, *, layout: Literal["auto", "release", "pairs"] = "auto") -> Plan:
    """Find PH2: `release` (folders IMDxxx with IMDxxx_Dermoscopic_Image and IMDxxx_lesion, here or
    below `PH2 Dataset images`) or `pairs` (images and masks).

    Diagnoses are taken from PH2_dataset.txt, or a CSV table cases.csv (name, diagnosis), where one
    is beside the images. Every image is its own group. Splits: `test-only`, `seed-0` and `fold-0`
    to `fold-4`, with equal shares of each diagnosis.

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.

    Raises InputError where no layout fits, UsageError where several do.
    """
    finders = {
        "release": _release,
        "pairs": lambda folder: pair_folders(
            [folder],
            ("images", "image"),
            ("masks", "mask"),
            image=r"(IMD\d+)(?:_\w+)?",
            mask=r"(IMD\d+)(?:_\w+)?",
        ),
    }
    name, where = choose_layout(
        "PH2", source, layout, finders, "folders IMDxxx, or images and masks"
    )
    pairs, left_out, errors = find_pairs(where)
    diagnoses = _diagnoses(source)
    ids = [pair.id for pair in pairs]
    unknown = [id for id in ids if id not in diagnoses]
    warnings = [f"the diagnosis of {len(unknown)} images is not known"] if unknown else []
    home = {id: id for id in ids}
    splits = {"test-only": {"train": [], "valid": [], "test": ids}}
    splits |= common_splits(home, strata=diagnoses)
    return Plan(
        layout=name,
        target=target_of(CARD),
        items=[
            single_item(
                pair,
                attributes={"diagnosis": diagnoses[pair.id]} if pair.id in diagnoses else None,
            )
            for pair in pairs
        ],
        splits=lambda there: splits,
        warnings=warnings,
        grouped=False,
        errors=errors,
        left_out=left_out,
        options=f"diagnoses {sorted(diagnoses.items())}",
        provenance=provenance_of(CARD),
    )


def _release(source: Path) -> list[PairFolders]:
    for root in (source, subfolder(source, "PH2 Dataset images"), subfolder(source, "PH2Dataset")):
        for folder in (root, subfolder(root, "PH2 Dataset images") if root else None):
            if folder is not None and any(folder.glob("IMD[0-9]*/")):
                return _folders(folder)
    return []


def _folders(root: Path) -> list[PairFolders]:
    found = []
    for folder in sorted(p for p in root.glob("IMD[0-9]*") if p.is_dir()):
        id = re.escape(folder.name)
        images = folder / f"{folder.name}_Dermoscopic_Image"
        masks = folder / f"{folder.name}_lesion"
        # A folder that is not there is an empty one: what it should hold is listed as missing.
        found.append(PairFolders(images, masks, f"({id})", f"({id})(?:_lesion)?"))
    return found


def _diagnoses(source: Path) -> dict[str, str]:
    """Case → diagnosis, of the release's table (cells between ||, the clinical diagnosis third) or
    of a CSV table.
    """
    found: dict[str, str] = {}
    for folder in (source, source.parent, *(p for p in source.glob("PH2*") if p.is_dir())):
        table, plain = folder / "PH2_dataset.txt", folder / "cases.csv"
        if table.is_file():
            for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
                cells = [cell.strip() for cell in line.split("||")]
                row = cells[1:4]
                if len(row) == 3 and re.fullmatch(r"IMD\d+", row[0]) and row[2] in ("0", "1", "2"):
                    found.setdefault(row[0], _DIAGNOSES[int(row[2])])
        elif plain.is_file():
            for row_of in read_rows(plain, "reading the diagnoses of PH2"):
                if row_of.get("name") and row_of.get("diagnosis"):
                    found.setdefault(row_of["name"], row_of["diagnosis"])
    return found
