"""The files behind an evaluation of files: label maps, references and images by case; and its page,
with the cases that are best, median and worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.errors import InputError
from segweave.evaluation import Evaluation
from segweave.evaluation.label_pairs import case_file, whole_name
from segweave.evaluation.summary import case_values
from segweave.evaluation.tables import counted
from segweave.formats import find_images, read_case, read_label, read_label_case
from segweave.report.page import Page, Section, Table, write_page
from segweave.report.run_report import pictures, scores_section, target_of, values_by_case

_DOING = "drawing scored files"
_LISTED = 500


class ScoredFiles:
    """The cases of an evaluation of files.

    `sources` are those of its manifest: the folders of predictions, references and, where they were
    given, images.
    """

    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources
        text = sources.get("mask_threshold")
        self._threshold = None if text is None else int(text)

    @property
    def seen(self) -> bool:
        """Whether there are images, and not the references alone."""
        return "images" in self._sources

    def case(self, id: str) -> Case:
        """The case with its true label map; without images its image is the label map. Raises
        InputError where a file is gone or does not fit.
        """
        reference = case_file(self._sources["references"], id)
        if not self.seen:
            return read_label_case(reference, id=id, geometry="pixdim", threshold=self._threshold)
        case = read_case(
            image_file(self._sources["images"], id), id=id, geometry="pixdim", with_label=False
        )
        return replace(case, label=self._label(reference, case))

    def prediction(self, case: Case) -> NDArray[np.uint8]:
        """The label map that was scored."""
        return self._label(case_file(self._sources["predictions"], case.id), case)

    def _label(self, file: Path, case: Case) -> NDArray[np.uint8]:
        return read_label(file, case, geometry="pixdim", threshold=self._threshold)


def image_file(folder: str | Path, id: str) -> Path:
    """The image of a case in a folder: `ID`, or `ID_0000` as in nnU-Net. Raises InputError."""
    for file in find_images(folder):
        if whole_name(file) in (id, f"{id}_0000"):
            return file
    raise InputError(_DOING, file=folder, expected=f"an image of {id}", found="none")


def write_scores(evaluation: Evaluation, path: str | Path) -> Path:
    """Write an evaluation of files as a page: its table, a dot for each case, pictures of the best,
    the median and the worst case, the Dice of every case. Returns the path.

    Label maps are drawn over the images where these were given; a picture that can't be drawn is a
    line with the reason. Raises MissingExtraError without matplotlib and jinja2.
    """
    manifest = evaluation.manifest
    facts: list[tuple[str, str]] = [
        (name, manifest.sources[name])
        for name in ("predictions", "references", "images")
        if name in manifest.sources
    ]
    facts.append(("cases", f"{manifest.cases} from {counted(manifest.groups, 'group')}"))
    files = ScoredFiles(manifest.sources)
    target = target_of(manifest.kind, manifest.classes)
    dice = values_by_case(evaluation.rows)
    page = Page(
        f"Scores of {Path(manifest.sources['predictions']).name}",
        [scores_section([evaluation]), pictures(dice, files, target), _cases(evaluation, dice)],
        warning="Research software, not a medical device.",
        facts=facts,
    )
    return write_page(page, path)


def _cases(evaluation: Evaluation, dice: dict[str, float]) -> Section:
    """The table of all cases, the worst first."""
    classes = evaluation.manifest.classes
    values = case_values(evaluation.rows, "dice")
    groups = {row.case: row.group for row in evaluation.rows}
    shown = classes if len(classes) > 1 else []
    order = sorted(dice, key=lambda case: (dice[case], case))
    rows = [
        (
            case,
            groups[case],
            f"{dice[case]:.4f}",
            *(f"{values[case, c]:.4f}" if (case, c) in values else "–" for c in shown),
        )
        for case in order[:_LISTED]
    ]
    more = [f"The {_LISTED} worst of {len(order)} cases."] if len(order) > _LISTED else []
    columns: Sequence[str] = ("case", "group", "Dice", *(f"Dice {name}" for name in shown))
    return Section("Dice of each case, the lowest first", more, [Table(columns, rows)])
