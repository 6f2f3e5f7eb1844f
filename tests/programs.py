"""Programs that are not Python, beside which tests hold what was written."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def optional(name: str) -> str | None:
    """The path of a program, on the PATH or beside Python; None where there is none, but under CI
    the test fails.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed")
    return found


def program(name: str) -> str:
    """The same; the test is skipped where there is none."""
    return optional(name) or pytest.skip(f"{name} is not installed")
