"""Image files that were made to do harm: each is refused with an error of ours, soon and with
little memory, or read rightly. Nothing but the file itself is read, and nothing is started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.errors import InputError
from segweave.formats import read_case
from tests.attacks.image_files import RAW, VALUES, mha, nrrd, read_files, refused_files

LARGEST_MIB = 300
LONGEST_SECONDS = 20
"""Ten times what a refusal may take; the machine may be busy."""
_READ_ALL = """
import json, resource, sys, time
import h5py, nibabel, pydicom, SimpleITK, PIL.TiffImagePlugin
from segweave.errors import SegweaveError
from segweave.formats import read_case
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
results, start = [], peak()
for path in json.load(sys.stdin):
    before = time.monotonic()
    try:
        read_case(path)
        outcome = "read"
    except SegweaveError as error:
        outcome = "refused" if path in str(error) else f"the file is not named: {error}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    results.append([outcome, time.monotonic() - before, peak() - start])
    print(json.dumps(results[-1]), flush=True)
"""


def read_in_another_process(paths: list[Path], **environment: str) -> list[Any]:
    """(outcome, seconds, MiB above the start) of each file."""
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment or None,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(paths), f"stopped at {paths[len(results)]}: {done.stderr[-2000:]}"
    return results


def test_what_does_harm_is_refused_soon_and_with_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "gswin32c", "gswin64c"):
        (programs / name).write_text(f"#!/bin/sh\necho $@ > {started}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    files = tmp_path / "files"
    files.mkdir()
    paths = []
    for name, make in refused_files().items():
        paths.append(files / name)
        make(paths[-1])
    wrong = []
    results = read_in_another_process(paths)
    for path, (outcome, seconds, _) in zip(paths, results, strict=True):
        if outcome != "refused" or seconds > LONGEST_SECONDS:
            wrong.append(f"{path.name}: {outcome} after {seconds:.1f} s")
    assert not wrong, "\n".join(wrong)
    peaks = [(peak, path.name) for path, (_, _, peak) in zip(paths, results, strict=True)]
    assert peaks[-1][0] < LARGEST_MIB, next(one for one in peaks if one[0] >= LARGEST_MIB)
    assert not started.exists(), started.read_text()


@pytest.mark.parametrize("name", read_files())
def test_what_is_unusual_and_right_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    read_files()[name](path)
    case = read_case(path)
    wanted = VALUES if case.slices == 2 else VALUES[:1]
    assert sorted(case.image.ravel().tolist()) == sorted(wanted.ravel().tolist())
    json.dumps(case.attributes, allow_nan=False)


_BLANK = st.text(" \t", max_size=3)
_CASE = st.sampled_from([str, str.lower, str.upper, str.title])


@given(
    before=_BLANK, between=_BLANK, sign=st.sampled_from([":", "=", " ", ":=", "=:"]), case=_CASE,
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\r", "\0\n", "\v\n", "\f\n"]),
    last=st.sampled_from(["ElementDataFile = LOCAL", "ElementDataFile=LOCAL"]),
    other=st.sampled_from(["outside.raw", "LIST", "outside%d.raw 1 2 1", "absolute"]),
)  # fmt: skip
@settings(max_examples=150)
def test_no_header_of_an_mha_file_leads_to_another_file(
    tmp_path_factory: pytest.TempPathFactory,
    before: str, between: str, sign: str, case: Any, end: str, last: str, other: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("mha")
    outside = folder / "outside.raw"
    outside.write_bytes(bytes(len(RAW)))
    target = str(outside) if other == "absolute" else other
    line = f"{before}{case('ElementDataFile')}{between}{sign}{between}{target}{end}"
    path = folder / "a.mha"
    path.write_bytes(mha("Comment = x", last=line + last))
    with pytest.raises(InputError):
        read_case(path)


@given(
    before=_BLANK, between=_BLANK, case=_CASE, word=st.sampled_from(["data file", "datafile"]),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\r", "\v"]),
    other=st.sampled_from(["outside.raw", "LIST", "outside%d.raw 1 2 1", "absolute"]),
)  # fmt: skip
@settings(max_examples=150)
def test_no_header_of_an_nrrd_file_leads_to_another_file(
    tmp_path_factory: pytest.TempPathFactory,
    before: str, between: str, case: Any, word: str, end: str, other: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("nrrd")
    outside = folder / "outside.raw"
    outside.write_bytes(bytes(len(RAW)))
    target = str(outside) if other == "absolute" else other
    line = f"{before}{case(word)}{between}: {target}"
    path = folder / "a.nrrd"
    path.write_bytes(nrrd(line, end=end) if end != "\n\r" else nrrd(f"comment{end}{line}"))
    try:
        case_read = read_case(path)
    except InputError:
        return
    np.testing.assert_array_equal(np.sort(case_read.image.ravel()), np.sort(VALUES.ravel()))
