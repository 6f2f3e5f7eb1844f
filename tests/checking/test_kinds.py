"""The kind of a problem is set where the error is raised, never guessed from its words."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import pytest

import segweave
from segweave.checking import CheckReport, check
from segweave.checking.report import REMEDIES
from segweave.errors import ErrorKind, SegweaveError
from tests.checking.faults import FAULTS
from tests.datasets.layouts import MAKERS

SOURCE = Path(segweave.__file__).parent
READ_BY_CHECK = (
    *(SOURCE / "formats").glob("*.py"),
    *(SOURCE / "datasets").glob("*.py"),
    SOURCE / "data" / "case.py",
    SOURCE / "data" / "validate_case.py",
)
NOT_REACHED = ("export_nnunet.py",)


def test_every_kind_has_a_remedy() -> None:
    assert set(get_args(ErrorKind)) == set(REMEDIES)


@pytest.mark.parametrize("path", READ_BY_CHECK, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_error_that_check_can_meet_carries_its_kind(path: Path) -> None:
    if path.name in NOT_REACHED:
        return
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "InputError"
    ]
    without = [n.lineno for n in calls if "kind" not in {k.arg for k in n.keywords}]
    assert not without, f"{path.name}: no kind= in lines {without}"


def _sorted_problems(report: CheckReport) -> set[tuple[str, str, str, Path | None]]:
    return {(p.kind, p.severity, p.case, p.file) for p in report.problems}


@pytest.mark.parametrize("name", ["acdc raw", "synapse transunet", "isic2018 release", "table"])
def test_other_words_in_every_message_change_no_kind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MAKERS[name](tmp_path / "source")
    for number, fault in enumerate(FAULTS.values()):
        fault(source, source.parts[number], source.parts[-1 - number % 4])
    before = _sorted_problems(check(source.source, name.partition(" ")[0], **source.options))
    plain = SegweaveError.__init__

    def reworded(self: SegweaveError, doing: str, **parts: Any) -> None:
        for part in ("expected", "found", "remedy"):
            if parts.get(part) is not None:
                parts[part] = f"other words {hash(parts[part])}"
        plain(self, "doing something", **parts)

    monkeypatch.setattr(SegweaveError, "__init__", reworded)
    after = _sorted_problems(check(source.source, name.partition(" ")[0], **source.options))
    assert len({kind for kind, *_ in before}) >= 6
    assert after == before
