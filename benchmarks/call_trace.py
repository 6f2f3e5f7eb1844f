"""How many files of the package a command enters: a file is entered where one of its functions is
called (what runs while a module is imported does not count). Few files mean that a reader can
follow the command.

    python benchmarks/call_trace.py [--files]

Makes a tiny store and a tiny run in a temporary folder, then runs `segweave evaluate RUN` and
`segweave predict RUN IMAGE` in this process. `--files` lists the files instead of counting them.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import nibabel
import numpy as np

import segweave
from segweave.cli import main
from segweave.datasets import prepare
from segweave.phantoms.cardiac import write_cardiac

SOURCE = Path(segweave.__file__).parent
SETS = ("training.epochs=1", "network.options.width=2", "input.size=[32,32]")
GOALS = {"evaluate": 45, "predict": 35}


class Trace:
    """A profile function that collects the files whose functions are called."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._importing = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call; modules in the middle of their import are counted in and out."""
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(SOURCE)):
            return
        if code.co_name == "<module>":
            self._importing += 1 if event == "call" else -1
            return
        # Bodies of classes are not optimised; templates are not Python files.
        function = code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.endswith(".py")
        if event == "call" and function and not self._importing:
            self.files.add(str(Path(code.co_filename).relative_to(SOURCE)))


def traced(*arguments: str) -> set[str]:
    """The files that a command enters."""
    trace = Trace()
    code: object = 0
    with contextlib.redirect_stdout(io.StringIO()):
        sys.setprofile(trace)
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
        finally:
            sys.setprofile(None)
    if code not in (0, None):
        raise SystemExit(f"segweave {' '.join(arguments)} ended with {code}")
    return trace.files


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """The commands by name, with all that they read made in `folder`."""
    write_cardiac(folder / "raw", 4, size=(40, 36), slices=3)
    prepare("acdc", folder / "raw", folder / "store")
    segweave.train("demo", folder / "store", folder / "run", sets=SETS, device="cpu")
    scan = folder / "scan.nii.gz"
    values = np.random.default_rng(0).normal(100, 20, (36, 40, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 8.0, 1.0])), scan)
    run, labels = str(folder / "run"), str(folder / "labels")
    return {
        "evaluate": ("evaluate", run, "--device", "cpu", "-q"),
        "predict": ("predict", run, str(scan), "--out", labels, "--device", "cpu", "-q"),
    }


def package_of(file: str) -> str:
    """The package of a file, or the file itself at the top."""
    return file.split("/")[0]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        entered = {name: traced(*words) for name, words in commands(Path(place)).items()}
    packages = sorted({package_of(file) for files in entered.values() for file in files})
    print(f"| package | {' | '.join(entered)} |")
    print(f"| --- | {' | '.join('---:' for _ in entered)} |")
    if "--files" in sys.argv:
        for file in sorted(set().union(*entered.values())):
            print(f"| {file} | {' | '.join('x' * (file in f) for f in entered.values())} |")
    else:
        counts = {name: Counter(map(package_of, files)) for name, files in entered.items()}
        for package in packages:
            print(f"| {package} | {' | '.join(str(c[package]) for c in counts.values())} |")
    print(f"| files | {' | '.join(str(len(files)) for files in entered.values())} |")
    print(f"| goal | {' | '.join(f'≤ {GOALS[name]}' for name in entered)} |")
