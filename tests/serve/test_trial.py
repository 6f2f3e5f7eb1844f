"""`segweave try`: a service with images in it, and its page in the browser."""

from __future__ import annotations

import os
import signal
import threading
import time
import webbrowser
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from segweave.cli import main
from tests.small import write_volume


def test_images_are_segmented_and_the_page_is_opened(
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_volume(tmp_path / "scans" / "a~1, left.nii", (20, 24, 2))
    (tmp_path / "scans" / "broken.nii").write_bytes(b"x" * 400)
    seen: list[dict[str, object]] = []

    def look(page: str) -> None:
        address, _, listed = page.partition("/#jobs=")
        try:
            for part in listed.split(","):
                id, first, name = part.split("~", 2)
                assert (id, unquote(name)) == (first, "a~1, left.nii")
                until = time.monotonic() + 30
                while time.monotonic() < until:
                    job = httpx.get(f"{address}/jobs/{id}").json()
                    if job["state"] == "done":
                        break
                    time.sleep(0.05)
                seen.append(job)
                assert "segweave" in httpx.get(address).text
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def browse(page: str) -> bool:
        threading.Thread(target=look, args=(page,)).start()
        return True

    monkeypatch.setattr(webbrowser, "open", browse)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:
            main(["try", str(tmp_path / "scans"), "--run", str(folders[0]), "--device", "cpu"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    assert [job["state"] for job in seen] == ["done"]
    assert "uncertainty" in seen[0]["results"]
    printed = capfd.readouterr()
    assert "broken.nii, grey: reading an image" in printed.err
    assert "page:" in printed.out


def test_without_an_image_it_ends_at_once(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.nii").write_bytes(b"x" * 400)
    for image in (tmp_path / "absent.nii", tmp_path / "broken.nii"):
        with pytest.raises(SystemExit) as end:
            main(["try", str(image), "--run", str(folders[0]), "--no-browser", "--device", "cpu"])
        assert end.value.code == 2
