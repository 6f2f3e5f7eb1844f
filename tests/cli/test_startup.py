"""Help and lists answer at once: they import neither torch nor anything else that is slow."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# The command line library itself brings pydantic, so that is not among them.
SLOW = {"torch", "numpy", "scipy", "nibabel", "h5py", "lightning", "matplotlib", "PIL", "fastapi"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["networks"],
        ["contexts"],
        ["--version"],
        ["train", "--help"],
        ["serve", "--help"],
        [],
    ],
    ids=lambda a: " ".join(a) or "nothing",
)
def test_no_slow_import(arguments: list[str]) -> None:
    code = (
        "import sys, json\n"
        "from segweave.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    ending, modules = json.loads(done.stdout.splitlines()[-1])
    assert ending in (0, None, 2 if not arguments else 0)
    assert SLOW & set(modules) == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "m", "i", "--out", "o", "--flips", "row"], "did you mean rows"),
        (["predict", "m", "i", "--out", "o", "--geometry", "pixdm"], "did you mean pixdim"),
        (["predict", "m", "i", "--out", "o", "--device", "gpu"], "auto, cpu, cuda"),
        (["predict", "m", "i", "--out", "o", "--format", "nift"], "did you mean nifti"),
        (["evaluate", "run", "--part", "tset"], "did you mean test"),
        (["score", "a", "b", "--out", "o", "--stack", "tiem"], "did you mean time"),
        (["check", "a", "--fix", "resampel"], "did you mean resample"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[-2:]),
)
def test_a_wrong_option_is_answered_before_anything_slow_is_imported(
    arguments: list[str], words: str
) -> None:
    code = (
        "import sys, json\n"
        "from segweave.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    print(json.dumps([end.code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    ending, modules = json.loads(done.stdout)
    assert ending == 2
    assert done.stderr.count("error:") == 1
    assert words in done.stderr
    # The names of formats are in a table beside their readers.
    assert set(modules) & (SLOW if "--format" not in arguments else {"torch"}) == set()


def test_importing_the_package_imports_no_torch() -> None:
    code = "import segweave, sys; print(dir(segweave), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")


def test_the_installed_command_runs_and_has_a_version() -> None:
    from segweave import __version__

    done = subprocess.run(
        [sys.executable, "-c", "from segweave.cli import main; main(['--version'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"segweave {__version__}"
