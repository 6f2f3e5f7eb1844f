"""What killed processes left is removed by the next write beside it, what others write is not; a
folder that is replaced is never missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segweave import temporary
from segweave.storage import atomic_folder, atomic_write, can_write, replace_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of open files")

_WRITES = """
import sys
from segweave.storage import atomic_folder, atomic_write
with (atomic_folder if sys.argv[1] == "folder" else atomic_write)(sys.argv[2]) as path:
    if sys.argv[1] == "h5":
        import h5py
        with h5py.File(path, "w") as store:  # takes and releases another lock
            store["a"] = 1
    else:
        (path / "half" if path.is_dir() else path).write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_swept", set())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder", "h5"])
def test_only_what_nobody_writes_any_more_is_removed(tmp_path: Path, kind: str) -> None:
    (tmp_path / ".writing-by-hand").symlink_to(tmp_path.parent)
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITES, kind, str(tmp_path / "other")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    with atomic_write(tmp_path / "a.txt"):
        pass
    assert len(names(tmp_path)) == 3
    writer.kill()
    writer.communicate()
    temporary._swept.clear()
    with atomic_folder(tmp_path / "b") as path:
        (path / "c").write_text("x")
    assert names(tmp_path) == [".writing-by-hand", "a.txt", "b"]


def test_a_replaced_folder_is_never_missing(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    if not temporary.exchange(old, old):
        pytest.skip("this file system can't exchange two paths")
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "while not Path(sys.argv[1], '..', 'stop').exists():\n"
        "    if not os.path.exists(sys.argv[1]): print('missing', flush=True)\n"
    )
    watcher = subprocess.Popen([sys.executable, "-c", code, str(old)], stdout=subprocess.PIPE)
    time.sleep(0.2)
    for number in range(60):
        new = tmp_path / f"new{number}"
        new.mkdir()
        (new / str(number)).write_text("x")
        replace_folder(new, old)
        assert names(old) == [str(number)]
    (tmp_path / "stop").touch()
    assert watcher.communicate()[0] == b""
    assert names(tmp_path) == ["old", "stop"]


def test_without_an_exchange_folders_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segweave.storage.exchange", lambda *paths: False)
    for number in range(2):
        with atomic_folder(tmp_path / "a") as path:
            (path / str(number)).write_text("x")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["1"]


def test_whether_a_folder_can_be_written_is_tried(tmp_path: Path) -> None:
    assert can_write(tmp_path / "new" / "deep")
    assert names(tmp_path) == []
    assert not can_write("/proc/self/new")
