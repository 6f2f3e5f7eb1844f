"""Images with corrected masks, collected in a folder that `segweave prepare` reads."""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.formats import label_name, suffix_of, suitable_format, write_label
from segweave.formats.dicom_file import is_dicom
from segweave.formats.nifti import write_nifti
from segweave.serve.limits import RefusedError
from segweave.storage import (
    atomic_write,
    can_write,
    locked,
    read_json,
    sha256_of,
    write_json,
    write_text,
)

TABLE, CLASSES, IMAGES, MASKS, LOCK = "cases.csv", "classes.json", "images", "masks", ".collecting"
COLUMNS = ("image", "mask", "case", "group")
_DOING = "adding to the data set"
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Collected:
    """What was added: the name of the case, whether it replaced an earlier one, the number of cases
    that the folder holds now, and the command that makes a store of it.
    """

    case: str
    replaced: bool
    cases: int
    command: str


class Collection:
    """The folder of an operator: images/, masks/, cases.csv (for `prepare table`) and classes.json.

    A case is named by the checksum of its image, so that an image that is added again replaces its
    mask. Image files are copied as they are; of DICOM only pixels and geometry are written.
    """

    def __init__(self, folder: str | Path) -> None:
        """Make the folder. Raises UsageError where it can't be written."""
        self.folder = Path(folder)
        if (self.folder.exists() and not self.folder.is_dir()) or not can_write(self.folder):
            raise UsageError(
                "starting the service",
                file=self.folder,
                expected="a folder that can be written (--collect)",
                found="a file" if self.folder.is_file() else "one that can't",
            )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(
        self,
        image: Path,
        case: Case,
        labels: NDArray[np.uint8],
        target: TargetSpec,
        group: str = "",
    ) -> Collected:
        """Add an image with its mask.

        Args:
            image: the file of the image, or the folder of its DICOM series.
            case: the image.
            labels: the mask, (slices, height, width).
            target: the classes; those of all masks of the folder are the same.
            group: a pseudonym of the patient, so that their images are never split; the case where
                it is empty.

        Raises RefusedError: 409 for overlapping classes, which `prepare` does not read, and for
        other classes than those of the folder; 422 for a group of other characters.
        """
        if group and not _GROUP.fullmatch(group):
            raise RefusedError(
                422,
                _DOING,
                expected="a group of at most 64 letters, digits and . _ -",
                found="something else",
            )
        if target.kind == "overlapping":
            raise RefusedError(
                409,
                _DOING,
                expected="classes that exclude each other",
                found="overlapping ones, which `segweave prepare` does not read",
                remedy="download the corrected mask instead",
            )
        with locked(self.folder / LOCK, _DOING, wait=True):
            self._check_classes(target)
            name = sha256_of(image)[:16]
            row = self._write(name, image, case, labels, target)
            rows = {one["case"]: one for one in self._rows()}
            replaced = name in rows
            rows[name] = row | {"case": name, "group": group or name}
            self._write_table(list(rows.values()))
        names = ",".join(target.foreground.values())
        command = f"segweave prepare table FOLDER/{TABLE} STORE --classes '{names}'"
        return Collected(name, replaced, len(rows), command)

    def _check_classes(self, target: TargetSpec) -> None:
        file = self.folder / CLASSES
        if not file.exists():
            write_json(file, {"format": 1, "names": list(target.foreground.values())})
            return
        held: list[str] = read_json(file, _DOING, formats=(1,))["names"]
        if held != list(target.foreground.values()):
            raise RefusedError(
                409,
                _DOING,
                expected="the classes of the masks that are there: " + ", ".join(held),
                found="a model of other classes",
                remedy="ask the operator for another folder (--collect)",
            )

    def _write(
        self, name: str, image: Path, case: Case, labels: NDArray[np.uint8], target: TargetSpec
    ) -> dict[str, str]:
        """Write image and mask; returns their paths in the table."""
        plain = image.is_file() and not is_dicom(image)
        if plain:
            picture = f"{IMAGES}/{name}{suffix_of(image)}"
            mask = label_name(f"{name}{suffix_of(image)}", slices=case.slices)
        else:
            ending = ".nii.gz" if suitable_format(case) == "nifti" else ".npz"
            picture, mask = f"{IMAGES}/{name}{ending}", f"{name}{ending}"
        with atomic_write(self.folder / picture) as temporary:
            if plain:
                shutil.copyfile(image, temporary)
            elif picture.endswith(".npz"):
                _write_array(temporary, case)
            else:
                values = case.image[:, 0] if case.image.shape[1] == 1 else case.image
                write_nifti(values.astype(np.float32), case, temporary)
        write_label(labels, case, self.folder / MASKS / mask, target=target)
        return {"image": picture, "mask": f"{MASKS}/{mask}"}

    def _rows(self) -> list[dict[str, str]]:
        file = self.folder / TABLE
        if not file.exists():
            return []
        return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))

    def _write_table(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / TABLE, text.getvalue())


def _write_array(file: Path, case: Case) -> None:
    arrays: dict[str, Any] = {"image": case.image}
    if case.spacing is not None:
        arrays["spacing_zyx_mm"] = np.asarray(case.spacing)
    with file.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
