"""Runs the real command in this process and looks at what a person would see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from segweave.cli import main
from segweave.cli.run import Settings
from tests.small import make_run, make_store


@dataclass(frozen=True)
class Outcome:
    """What a call of the command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def refused(self, *words: str, code: int = 2) -> None:
        """It ended with `code`, one message, no traceback, and the message has `words`."""
        assert self.code == code, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err
        assert self.err.count("error:") == 1, self.err
        for word in words:
            assert word in self.err, f"{word!r} is not in\n{self.err}"


Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw phantoms, their store and a tiny run."""
    folder = tmp_path_factory.mktemp("made")
    make_store(folder)
    make_run(folder)
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Call the command with arguments; returns an Outcome."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code: object = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
        seen = capsys.readouterr()
        return Outcome(code if isinstance(code, int) else 0, seen.out, seen.err)

    yield run
    Settings.debug = False
