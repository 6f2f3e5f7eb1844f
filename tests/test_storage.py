"""A crash, a full disk or Ctrl-C leaves either the old file or the new one."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segweave.errors import SegweaveError
from segweave.storage import atomic_write


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_writes_a_new_file_and_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "a.txt"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
    assert target.read_text() == "half"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_failure_leaves_the_old_file_and_no_litter(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def half() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_temporary_name_keeps_every_suffix(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "scan.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_full_or_closed_disk_is_one_clear_error(tmp_path: Path, number: int) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    untouched = pytest.raises(SegweaveError, match="what was there before is untouched")
    with untouched as caught, atomic_write(target):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 1
    assert caught.value.file == target
    assert target.read_text() == "old"


def test_other_operating_system_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.EIO, "odd")


@pytest.mark.skipif(os.name != "posix", reason="file-size limits are a POSIX matter")
def test_a_real_write_that_hits_a_limit_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = (
        "import sys\n"
        "from segweave.storage import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t:\n"
        "    t.write_bytes(bytes(1 << 20))\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert done.returncode != 0
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]
