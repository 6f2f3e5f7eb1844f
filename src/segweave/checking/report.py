"""The result of a check, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from segweave.errors import ErrorKind

FORMAT = 1

Severity = Literal["error", "warning", "note"]

REMEDIES: dict[ErrorKind, str] = {
    "damaged": "copy or download the file again",
    "missing": "complete the data set, or convert what is there",
    "same-id": "remove or rename one of the two",
    "same-content": "keep one of the two: in training and test they would leak",
    "size": "find the label that belongs to the image; where a volume's header is right, --fix "
    "resample puts it onto the image",
    "geometry": "trust the header (--fix resample) or the voxels (--fix copy-header)",
    "header": "say which is right: geometry=pixdim, geometry=affine (the sform) or geometry=qform",
    "labels": "check that it is a label map of this data set; map its ids or name all classes",
    "values": "replace NaN and infinite pixels, for instance with the background's value",
    "layout": "fix what is named, then check again",
    "unsupported": "convert the file or fix what is named, then check again",
    "turned": "if the mask was drawn on the picture as it is shown, turn its pixels and remove the "
    "tag",
    "unusual": "look at the case: is it of this data set?",
    "empty-label": "nothing, where the case truly shows nothing",
    "full-label": "look at the mask: is it one, and of this image?",
    "range": "look at the case; a phantom or a resampled copy differs on purpose",
    "split": "name the case as the release does, or give another split",
    "unused": "rename the file as the layout asks, or leave it",
    "note": "nothing, where it is as it should be",
}
"""What to do about each kind of problem."""

_ORDER = ("error", "warning", "note")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong or unusual.

    Attributes:
        kind: a key of REMEDIES.
        severity: how serious it is.
        found: what was found.
        expected: what was expected instead.
        case: the id of the case.
        file: the file.
        image: the image whose label it is about.
        remedy: what to do, where that is not the usual remedy of the kind.
    """

    kind: ErrorKind
    severity: Severity
    found: str
    expected: str = ""
    case: str = ""
    file: Path | None = None
    image: Path | None = None
    remedy: str = ""

    @property
    def what_to_do(self) -> str:
        """Its own remedy, or that of its kind."""
        return self.remedy or REMEDIES[self.kind]


@dataclass(frozen=True)
class Fact:
    """One line of what was found beside what was expected ("" where nothing is)."""

    what: str
    found: str
    expected: str = ""


@dataclass
class CheckReport:
    """What a check found in `source`, read as the data set `name`.

    `facts` are counts, sizes, spacing and labels; `problems` all that is wrong, the gravest first.
    `cases` is the number of cases that were read, `failed` of those that could not be. `folders`
    are the source and those that options name.
    """

    source: Path
    name: str
    layout: str
    cases: int = 0
    failed: int = 0
    facts: list[Fact] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0
    folders: list[Path] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """The problems that make a conversion wrong or impossible."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def ok(self) -> bool:
        """Whether nothing makes a conversion wrong."""
        return not self.errors

    def kinds(self) -> list[tuple[ErrorKind, Severity, list[Problem]]]:
        """Problems of one kind and severity together, the gravest and most frequent first."""
        counts = Counter((problem.severity, problem.kind) for problem in self.problems)
        keys = sorted(counts, key=lambda key: (_ORDER.index(key[0]), -counts[key], key[1]))
        return [
            (kind, severity, [p for p in self.problems if (p.severity, p.kind) == (severity, kind)])
            for severity, kind in keys
        ]

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        problems = [
            {**asdict(p), "file": _text(p.file), "image": _text(p.image), "remedy": p.what_to_do}
            for p in self.problems
        ]
        return {
            "format": FORMAT,
            "source": str(self.source),
            "name": self.name,
            "layout": self.layout,
            "ok": self.ok,
            "cases": self.cases,
            "failed": self.failed,
            "facts": [asdict(fact) for fact in self.facts],
            "problems": problems,
            "seconds": round(self.seconds, 3),
        }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
