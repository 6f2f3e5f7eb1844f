"""The parts of an evaluation: rows of scores, and the manifest that describes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segweave.evaluation.scores import Score

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One line of cases.csv.

    Attributes:
        case: id of the case.
        group: patient or video.
        score: the number.
        arm: name of the arm; empty where it is unknown.
        seed: seed of the run; None where it is unknown.
        fold: fold of the run; None where there is none.
    """

    case: str
    group: str
    score: Score
    arm: str = ""
    seed: int | None = None
    fold: int | None = None


class MetricEntry(BaseModel):
    """What the card of a scored metric states, so that a folder is read without its plug-ins.

    Attributes:
        title: one line.
        label: the short name in table headers.
        unit: "", "mm" (px where the spacing is unknown), "ml", "dB" or another unit.
        better: "higher" or "lower".
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    label: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"

    @property
    def is_distance(self) -> bool:
        """Whether the value is a length."""
        return self.unit == "mm"


class Manifest(BaseModel):
    """Describes an evaluation: what was scored, how, and where it came from.

    Attributes:
        format: number of the folder's format.
        protocol: name of the protocol.
        title: its title.
        means: how means are taken.
        definitions: metric → definition under this protocol.
        metrics: metric → what its card states.
        units: metric → the units of its values.
        classes: names of the foreground classes.
        kind: kind of target: "exclusive", "binary" or "overlapping".
        arms: the arms that were scored.
        seeds: their seeds.
        folds: their folds.
        per: what has equal weight in means: "group", "case" or "image".
        columns: metrics that tables print beside Dice.
        cases: number of cases.
        groups: number of groups.
        grouped: False where no groups were given, so that each file is a group.
        parameters: number of weights of the model.
        checkpoint: how the weights were chosen: "last", "best" or "best-on-test".
        training_groups: number of groups that the model was trained on; None where unknown.
        tested: name of an evaluation → how often the run's test cases were scored under this
            protocol, this time included.
        references: case → checksum of its true labels.
        recipe_digest: digest of the resolved recipe, which identifies the arm; None for
            predictions of other tools and for folders of earlier versions.
        recipe: the resolved recipe without what may differ within an arm (seed, fold, arm, paths).
        margin: the difference in Dice too small to matter that was fixed before the training; None
            where none was.
        margin_reason: why it is too small to matter.
        remarks: what is worth knowing of the files that were scored, a sentence each.
        sources: where predictions and references came from.
        versions: versions of what computed the scores.
        rows: number of rows of cases.csv.
        cases_sha256: checksum of cases.csv.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    protocol: str
    title: str
    means: str
    definitions: dict[str, str]
    metrics: dict[str, MetricEntry] = Field(default_factory=dict)
    units: dict[str, list[str]] = Field(default_factory=dict)
    classes: list[str]
    kind: str = "exclusive"
    arms: list[str] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    folds: list[int] = Field(default_factory=list)
    per: Literal["group", "case", "image"] = "case"
    columns: list[str] = Field(default_factory=list)
    cases: int = 0
    groups: int = 0
    grouped: bool = True
    parameters: int | None = None
    checkpoint: str | None = None
    training_groups: int | None = None
    tested: dict[str, int] = Field(default_factory=dict)
    references: dict[str, str] = Field(default_factory=dict)
    recipe_digest: str | None = None
    recipe: dict[str, Any] | None = None
    margin: float | None = None
    margin_reason: str = ""
    remarks: list[str] = Field(default_factory=list)
    sources: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    rows: int = 0
    cases_sha256: str = ""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation folder: its path, manifest and rows."""

    folder: Path
    manifest: Manifest
    rows: tuple[Row, ...]
