"""The benchmarks still run, in miniature, and tables of kept runs are what their commands print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "benchmarks"
QUICK = {
    "context": ("--quick",),
    "costs": ("--quick",),
    "danie_bsanet": ("--quick",),
    "ensemble": ("--quick",),
    "loading": ("--quick",),
    "memory": ("--quick",),
    "metrics": ("--tiny",),
    "networks": ("--quick",),
    "simulation": ("--tiny",),
    "training": ("--quick",),
    "uncertainty": ("tiny",),
    "volume": ("--quick",),
}
"""Benchmarks that need nothing but themselves; call_trace.py is run below."""
KEPT = sorted(page.stem for page in FOLDER.glob("*.md") if page.with_suffix("").is_dir())


def printed(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_prints_a_table(name: str) -> None:
    assert printed(FOLDER / f"{name}.py", *QUICK[name]).count("\n| ") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_tables_of_kept_runs_are_what_their_command_prints(name: str) -> None:
    assert any(FOLDER.glob(f"{name}/*/clean/cases.csv"))
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in printed(FOLDER / "runs.py", name).splitlines() if line.strip()]
    assert [row for row in rows if row not in page] == []


def compare_commands() -> list[tuple[str, str]]:
    """(page, command) of the comparisons that pages keep as they came out."""
    pages = {page.stem: page.read_text(encoding="utf-8") for page in FOLDER.glob("*.md")}
    return [
        (name, command)
        for name, text in sorted(pages.items())
        if "as it came out" in text.lower()
        for command in re.findall(r"^segweave (compare .+)$", text, re.MULTILINE)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), compare_commands())
def test_comparisons_are_what_their_command_prints(name: str, command: str) -> None:
    words = [
        part
        for word in shlex.split(command)
        for part in (sorted(map(str, ROOT.glob(word))) if "*" in word else [word])
    ]
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in printed("-m", "segweave", *words).splitlines() if line.strip()]
    assert len(rows) > 10
    assert [row for row in rows if row not in page] == []


@pytest.mark.slow
def test_a_command_enters_few_files() -> None:
    """Who wants to know what a command does reads these files."""
    rows = [line.split("|") for line in printed(FOLDER / "call_trace.py").splitlines()]
    counts = {cells[1].strip(): cells[2:4] for cells in rows if len(cells) > 3}
    evaluate, predict = (int(cell) for cell in counts["files"])
    assert evaluate <= 45
    assert predict <= 35
