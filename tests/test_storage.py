"""A crash, a full disk or Ctrl-C leaves either the old content or the new one; JSON, locks and
checksums have one behaviour each.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segweave.errors import InputError, SegweaveError, UsageError
from segweave.storage import (
    atomic_folder,
    atomic_write,
    canonical_json,
    disk_errors,
    locked,
    read_json,
    read_json_value,
    remove_leftovers,
    sha256_of,
    sha256_of_bytes,
    sha256_of_text,
    write_json,
    write_text,
)


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


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")
    with atomic_folder(target) as temporary:
        (temporary / "new").write_text("new")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder_and_no_litter(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")

    def half() -> None:
        with atomic_folder(target) as temporary:
            (temporary / "new").write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_failed_rename_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")
    rename = os.replace

    def fails_for_new(source: str | Path, destination: str | Path) -> None:
        if Path(source).name.startswith(".writing-"):
            raise OSError(errno.EIO, "broken")
        rename(source, destination)

    monkeypatch.setattr("segweave.storage.exchange", lambda *paths: False)
    monkeypatch.setattr(os, "replace", fails_for_new)
    with pytest.raises(OSError, match="broken"), atomic_folder(target):
        pass
    assert names(target) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_only_one_holds_a_lock(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lock"
    with locked(file, "working"):
        assert file.exists()
        refused = pytest.raises(UsageError, match="another process is writing")
        with refused, locked(file, "working too", remedy="wait"):
            pass
        assert file.exists()
    assert not file.exists()
    with locked(file, "working again"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="signals are a POSIX matter")
def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    code = (
        "import sys, time\n"
        "from segweave.storage import locked\n"
        "with locked(sys.argv[1], 'working'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UsageError), locked(file, "working"):
        pass
    process.kill()
    process.communicate()
    assert file.exists()
    with locked(file, "working"):
        pass
    assert not file.exists()


def test_json_comes_back(tmp_path: Path) -> None:
    content = {"format": 1, "name": "é", "numbers": [1, 2.5, None]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", "reading", formats=(1, 2)) == content
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert read_json(tmp_path / "a.json", "reading") == content
    write_json(tmp_path / "list.json", [1, 2])
    assert read_json_value(tmp_path / "list.json", "reading") == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        (b"{", "Expecting"),
        (b"\xff{}", "decode"),
        (b"[]", "JSON list"),
        (b"[" * 100_000, "recursion"),
        (b"{}", "no format number"),
        (b'{"format": true}', "format True"),
        (b'{"format": "1"}', "format '1'"),
        (b'{"format": 0}', "format 0"),
        (b'{"format": 2}', "update segweave"),
    ],
)
def test_json_that_is_not_as_expected(tmp_path: Path, text: bytes | None, words: str) -> None:
    file = tmp_path / "a.json"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(InputError, match=words) as caught:
        read_json(file, "reading a thing", formats=(1,), expected="a thing", remedy="make it")
    assert caught.value.file == file
    assert str(caught.value.expected).startswith("a thing")


def test_json_of_another_checksum_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    assert read_json(file, "reading", sha256=sha256_of(file)) == {"a": 1}
    with pytest.raises(InputError, match="checksum has changed"):
        read_json(file, "reading", sha256=sha256_of_text("other"))


def test_equal_values_have_equal_canonical_text() -> None:
    assert canonical_json({"b": 1, "a": (2, 3)}) == canonical_json({"a": [2, 3], "b": 1})


def test_checksums_are_those_of_sha256(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\r\n")
    expected = hashlib.sha256("é\r\n".encode()).hexdigest()
    assert sha256_of(tmp_path / "a") == expected == sha256_of_text("é\r\n")
    assert sha256_of_bytes(b"ab", memoryview(b"c")) == sha256_of_bytes(b"abc")
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "2").write_bytes(b"two")
    (folder / "1").write_bytes(b"one")
    parts = "".join(hashlib.sha256(part).hexdigest() for part in (b"one", b"two"))
    assert sha256_of(folder) == hashlib.sha256(parts.encode()).hexdigest()


def test_errors_of_the_disk_say_what_was_done(tmp_path: Path) -> None:
    failed = pytest.raises(SegweaveError, match=r"writing it: No space[\s\S]*free some space")
    with failed as caught, disk_errors("writing it", tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.file == tmp_path


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with locked(tmp_path / "lock", "working", wait=True):
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert max(most) == 1
    assert len(most) == 200


def test_names_that_are_no_text_come_back_from_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.nii")
    write_json(tmp_path / "a.json", {"file": name, "umlaut": "ä"})
    assert read_json(tmp_path / "a.json", "reading") == {"file": name, "umlaut": "ä"}
    assert "ä" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_is_read_from_ordinary_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="no ordinary file"):
            read_json(file, "reading a card")


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".writing-abc").mkdir(parents=True)
    (tmp_path / "sub" / ".writing-abc" / "half").write_text("x")
    (tmp_path / ".writing-def.png").write_text("x")
    (tmp_path / "sub" / "whole").write_text("x")
    remove_leftovers(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "sub",
        "sub/whole",
    ]
