"""Every data set in every layout × every fault: what `check` says of a broken copy."""

from __future__ import annotations

import json
import resource
import typing
from pathlib import Path

import pytest

from segweave.checking import CheckReport, check
from segweave.cli import main
from segweave.datasets import prepare
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.registry import build, datasets
from tests.checking.faults import FAULTS, OF_IMAGES, Expected
from tests.datasets.layouts import MAKERS, Made

LEAST = {
    "truncated", "renamed", "wrong label values", "other shapes", "rotated affine", "huge header",
    "missing mask", "two cases with one id", "an empty file",
}  # fmt: skip


def _layouts(name: str, empty: Path) -> list[str]:
    """The layouts that a data set says it reads, but those that its name can't have."""
    hints = typing.get_type_hints(datasets.entry(name))
    found = []
    for layout in typing.get_args(hints.get("layout", None)):
        try:
            build("planning", datasets.entry(name), datasets.card(name).options,
                  {"source": empty, "layout": layout})  # fmt: skip
        except UsageError:
            continue
        except InputError:
            found.append(layout)
    return [layout for layout in found if layout != "auto"]


@pytest.mark.parametrize("name", sorted(datasets.cards()))
def test_every_layout_of_every_set_is_broken_below(name: str, tmp_path: Path) -> None:
    layouts = _layouts(name, tmp_path)
    wanted = {f"{name} {layout}" for layout in layouts} or {name}
    lost = wanted - set(MAKERS)
    assert not lost, (
        f"{sorted(lost)} is not checked for faults: add to MAKERS in tests/datasets/layouts.py "
        "what makes 25 tiny cases of it"
    )


def _checked(name: str, made: Made) -> CheckReport:
    return check(made.source, name.partition(" ")[0], **made.options)


def _fault(report: CheckReport, expected: Expected) -> str:
    """What is wrong with the problems that name a fault, or ""."""
    said = [p for p in report.problems if p.file in expected.files]
    if not expected.kinds:
        return "" if not said else f"nothing to be said, but {said}"
    right = [p for p in said if p.kind in expected.kinds]
    if not right:
        return f"{expected.kinds} of {[f.name for f in expected.files]}, said: {said}"
    worded = [p for p in right if expected.words in f"{p.found} {p.expected}"]
    return "" if worded else f"{expected.words!r}, said: {right}"


@pytest.mark.parametrize("name", MAKERS)
def test_every_fault_of_every_set_is_listed(name: str, tmp_path: Path) -> None:
    made = MAKERS[name](tmp_path / "source")
    clean = _checked(name, made)
    assert clean.failed == 0
    assert not [p for p in clean.problems if p.file is not None], clean.problems
    assert {p.kind for p in clean.errors} <= {"missing"}
    expected = {}
    apply = OF_IMAGES if made.labels == "none" else tuple(FAULTS)
    for number, fault in enumerate(apply):
        expectations = FAULTS[fault](made, made.parts[number], made.parts[-1 - number % 4])
        if expectations is not None:
            expected[fault] = expectations
    where_due = {"rotated affine"} if not made.parts[0].image.name.endswith(".nii.gz") else set()
    where_due |= {"wrong label values"} if made.labels == "any" else set()
    where_due |= LEAST - set(OF_IMAGES) if made.labels == "none" else set()
    assert set(expected) >= LEAST - where_due
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = _checked(name, made)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "in KiB"
    lost = {
        fault: wrong
        for fault, expectations in expected.items()
        for one in expectations
        if (wrong := _fault(report, one))
    }
    assert not lost, "\n".join(f"{fault}: {wrong}" for fault, wrong in lost.items())
    assert not report.ok
    for problem in report.problems:
        said = f"{problem.found} {problem.expected} {problem.what_to_do}"
        assert problem.what_to_do
        assert "Traceback" not in said
    json.dumps(report.to_json())
    # What is wrong is never converted in silence.
    with pytest.raises(SegweaveError) as caught:
        prepare(name.partition(" ")[0], made.source, tmp_path / "store", **made.options)
    assert caught.value.found


COMMANDS = ("acdc raw", "synapse transunet", "cvc-clinicdb release", "isic2018 release", "table")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_on_a_broken_copy(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MAKERS[name](tmp_path / "source")
    for number, make in enumerate(FAULTS.values()):
        make(made, made.parts[number], made.parts[-1 - number % 4])
    called = name.partition(" ")[0]
    runs = (
        (["check", str(made.source), "--as", called, "-q"], 0),
        (["check", str(made.source), "--as", called, "-q", "--strict"], 2),
        (["check", str(made.source), "--as", called, "--json"], 0),
        (["prepare", called, str(made.source), str(tmp_path / "store"), "-q"], 2),
    )
    for arguments, code in runs:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        said = capsys.readouterr()
        assert left.value.code == code, (arguments, said)
        assert "Traceback" not in said.out + said.err
        if "--json" in arguments:
            assert json.loads(said.out)["ok"] is False
        elif arguments[0] == "check":
            assert "to fix" in said.out
        else:
            assert "what to do" in said.err or "found" in said.err
