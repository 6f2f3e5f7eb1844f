"""The parts of an evaluation: rows of scores, the manifest that describes them, and what a summary
states of an arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segweave.evaluation.scores import Score

FORMAT = 1
Per = Literal["group", "case", "image"]
"""What has equal weight in a mean."""


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
        kind: kind of target: "exclusive", "binary", "overlapping" or "image".
        arms: the arms that were scored.
        seeds: their seeds.
        folds: their folds.
        per: what has equal weight in means: "group", "case" or "image".
        columns: metrics that tables print beside the primary one.
        primary: the metric that arms are compared by.
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
        margin: the difference in the primary metric too small to matter that was fixed before the
            training; None where none was.
        margin_reason: why it is too small to matter.
        prompt: what the network was shown, taken from the reference: "box", "" for nothing.
        remarks: what is worth knowing of what was scored, a sentence each.
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
    primary: str = "dice"
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
    prompt: str = ""
    remarks: list[str] = Field(default_factory=list)
    sources: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    rows: int = 0
    cases_sha256: str = ""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation folder.

    Attributes:
        folder: where it is.
        manifest: what was scored, and how.
        rows: one value each: case, group and `score` (class, metric, value, unit, status).

    Means and tables are made from one or several of them. Example:

        >>> from segweave import score
        >>> from segweave.evaluation import summarise, summary_table
        >>> scores = score("labels", "truth", "scores", classes=["RV", "myocardium", "LV"])
        >>> summarise([scores])[0].macro.overlaps["dice"].mean
        1.0
        >>> table = summary_table([scores]).markdown()  # as the command prints it
    """

    folder: Path
    manifest: Manifest
    rows: tuple[Row, ...]


class Estimate(BaseModel):
    """A mean with its spread: `sd` over groups, `low` and `high` of the 95 % interval by `method`;
    None where there are fewer than two groups.
    """

    model_config = ConfigDict(extra="forbid")

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    cases: int = 0
    groups: int = 0


class Distance(BaseModel):
    """A distance or size over cases and seeds in one unit.

    Attributes:
        median: over the cases (images, for frames and single images) where it is defined.
        mean: over the same.
        failed: number of scores that are undefined, because the class was not predicted.
        asked: number of scores.
    """

    model_config = ConfigDict(extra="forbid")

    median: float | None
    mean: float | None
    failed: int
    asked: int


class FalseAlarms(BaseModel):
    """Predictions of a class that the reference lacks.

    Attributes:
        raised: number of volumes or images in which some of it was predicted.
        asked: number of volumes or images whose reference lacks the class.
        amount: size of all of it, in `unit`.
        unit: "ml" or "px".
    """

    model_config = ConfigDict(extra="forbid")

    raised: int
    asked: int
    amount: float
    unit: str


class Part(BaseModel):
    """The scores of one class, or of all (macro: the mean over classes; counts are added up).

    Attributes:
        overlaps: metric → mean with its interval, of metrics without a length or size.
        distances: metric → unit → distance or size.
        false_alarms: unit → predictions of classes that the reference lacks.
        by_rule: number of cases (images) whose scores a rule of the protocol set.
    """

    model_config = ConfigDict(extra="forbid")

    overlaps: dict[str, Estimate] = Field(default_factory=dict)
    distances: dict[str, dict[str, Distance]] = Field(default_factory=dict)
    false_alarms: dict[str, FalseAlarms] = Field(default_factory=dict)
    by_rule: int = 0


class Summary(BaseModel):
    """What tables print of one arm: the fields of the manifest, and these.

    Attributes:
        images: number of volumes and images that were scored, of which `volumes` in 3D, and
            `frames` in cases of several images.
        runs: number of (seed, fold).
        seed_sd: sd of the primary metric (macro) over seeds.
        primary: the metric that arms are compared by.
        macro: means over classes.
        classes: class → its scores.
        case_names: the cases that were scored.
        remarks: those of its evaluations.
    """

    model_config = ConfigDict(extra="forbid")

    arm: str
    protocol: str
    title: str
    means: str
    definitions: dict[str, str]
    cases: int
    images: int
    volumes: int = 0
    frames: int = 0
    groups: int
    grouped: bool
    seeds: list[int]
    folds: list[int]
    runs: int
    parameters: int | None = None
    seed_sd: float | None = None
    primary: str = "dice"
    columns: list[str] = Field(default_factory=list)
    metrics: dict[str, MetricEntry] = Field(default_factory=dict)
    macro: Part
    classes: dict[str, Part]
    case_names: list[str] = Field(default_factory=list)
    remarks: list[str] = Field(default_factory=list)
