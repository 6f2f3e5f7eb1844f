"""What is sent is in the archive; what is not is said, and nothing is lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from segweave.cli import main

from .conftest import Orthanc, write_sample


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    return end.value.code or 0


@pytest.mark.parametrize("way", ["store", "web"])
def test_a_folder_is_in_the_archive(orthanc: Orthanc, tmp_path: Path, way: str, capfd) -> None:
    sample = write_sample(tmp_path / "in" / "series")
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    to = orthanc.node if way == "store" else orthanc.url
    for _ in range(2):  # again does no harm
        assert run("send", str(tmp_path / "in"), "--to", to, "--called", "ARCHIVE", "-q") == 0
    found = orthanc.find("Series", SeriesInstanceUID=sample.series)
    assert len(found) == 1
    assert len(found[0]["Instances"]) == 4
    assert "Canary" not in "".join(capfd.readouterr())
