"""What an evaluation is made of: rows of scores and the manifest that describes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from segweave.evaluation.protocols import Score

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """A score with what it belongs to: one line of cases.csv. `seed` and `fold` may be unknown."""

    case: str
    group: str
    score: Score
    arm: str = ""
    seed: int | None = None
    fold: int | None = None


class Manifest(BaseModel):
    """What an evaluation says of itself. `sources` names where predictions and references came
    from; `grouped` is False where no groups were known, so that each file is its own. `per` says
    whether cases or images weigh alike in means; `columns` are metrics that tables print beside
    Dice and distances. `training_groups` is how many groups the model was trained on, None where
    nobody said. `tested` counts how often the run's test cases had been scored under this protocol,
    this time included, by the name of the evaluation. `references` has a checksum of each case's
    true labels.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    protocol: str
    title: str
    means: str
    definitions: dict[str, str]
    units: dict[str, list[str]] = Field(default_factory=dict)
    classes: list[str]
    kind: str = "exclusive"
    arms: list[str] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    folds: list[int] = Field(default_factory=list)
    per: Literal["case", "image"] = "case"
    columns: list[str] = Field(default_factory=list)
    cases: int = 0
    groups: int = 0
    grouped: bool = True
    parameters: int | None = None
    checkpoint: str | None = None
    training_groups: int | None = None
    tested: dict[str, int] = Field(default_factory=dict)
    references: dict[str, str] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    rows: int = 0
    cases_sha256: str = ""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation folder that was read or has just been written."""

    folder: Path
    manifest: Manifest
    rows: tuple[Row, ...]


def versions() -> dict[str, str]:
    """Versions of what computes the scores."""
    import platform

    import numpy
    import scipy

    return {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }
