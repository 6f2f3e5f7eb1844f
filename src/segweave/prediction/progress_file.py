"""What a prediction of files has done so far, so that it goes on after an interruption."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from segweave.storage import write_text

NAME = ".predicting.jsonl"


class ProgressFile:
    """A hidden file in the output folder: one line with the settings, then one per finished image.

    A line that a killed process wrote in half is left out. Only who holds the folder's lock may use
    it.

    Args:
        folder: the output folder.
        settings: what the label maps depend on, as JSON takes it.
        restart: whether to start anew whatever is there.

    Attributes:
        resumes: whether the folder holds an interrupted prediction with the same settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, restart: bool = False) -> None:
        self.path = folder / NAME
        self._folder = folder
        self._entries: dict[str, dict[str, Any]] = {}
        lines = [] if restart else self._lines()
        self.resumes = bool(lines) and lines[0] == json.loads(json.dumps(settings))
        if self.resumes:
            self._entries = {line["file"]: line for line in lines[1:] if "file" in line}
        self._settings = settings

    def start(self) -> None:
        """Write the file, or write it anew without the half line of a killed process."""
        whole = [self._settings, *self._entries.values()]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in whole))

    def entry(self, image: Path, labels: Path) -> dict[str, Any] | None:
        """What was noted of an image, where it is the same file still and its label map is there;
        else None.
        """
        noted = self._entries.get(str(image))
        if noted is None or noted["image"] != _state(image) or not labels.is_file():
            return None
        return noted

    def add(self, image: Path, entry: dict[str, Any]) -> None:
        """Note that the label map of an image is there."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "image": _state(image)}) + "\n")

    def remove(self) -> None:
        """Remove the file, when every image was tried."""
        self.path.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, Any]]:
        lines = []
        with suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with suppress(ValueError):
                    content = json.loads(line)
                    if isinstance(content, dict):
                        lines.append(content)
        return lines


def _state(image: Path) -> list[int]:
    """Size and time of a file; of a folder (a DICOM series), those of its files together."""
    files = sorted(image.iterdir()) if image.is_dir() else [image]
    states = [file.stat() for file in files]
    return [sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)]
