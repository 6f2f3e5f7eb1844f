"""The versions that the Makefile installs run on the oldest Python that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent


def test_every_version_takes_the_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = re.fullmatch(r">=(\d+\.\d+)", project["requires-python"])
    assert oldest is not None
    checked, wrong = 0, []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        match = re.match(r"([\w.-]+)==(\S+)", line)
        if match is None:
            continue
        try:
            about = metadata(match[1])
        except PackageNotFoundError:
            continue
        needs = about.get("Requires-Python") or ""
        if about["Version"] == match[2]:
            checked += 1
            if f"{oldest[1]}.0" not in SpecifierSet(needs):
                wrong.append(f"{match[1]} {match[2]} needs {needs}")
    assert checked > 50
    assert wrong == []
