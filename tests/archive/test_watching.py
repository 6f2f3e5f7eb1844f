"""Every series is segmented once, whatever happens between two looks."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from segweave.archive import Rule, UnreachableError
from segweave.archive.ledger import FILE, Ledger
from segweave.archive.sources import Series
from segweave.archive.watching import Watcher, WatchSettings
from segweave.errors import InputError
from segweave.prediction import Session, load

from .conftest import write_sample

FIRST = Series("1.2.3", "1.2", "CT", 4, "a")


@pytest.fixture(scope="module")
def session(model: Path) -> Session:
    return load(model, device="cpu").session()


@dataclass
class Fake:
    """A source in memory, whose images are those of a sample."""

    sample: Path
    there: list[Series]
    name: str = "fake"
    faults: list[BaseException] = field(default_factory=list)
    down: list[BaseException] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    fetched: int = 0

    def look(self) -> list[Series]:
        return list(self.there)

    def values(self, series: Series, keywords: Any) -> dict[str, list[str]]:
        return {"SeriesDescription": ["axial"], "NumberOfFrames": ["7"]}

    def fetch(self, series: Series, folder: Path) -> None:
        self.fetched += 1
        if self.faults:
            raise self.faults.pop(0)
        for file in self.sample.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    def holds(self, series: Series, object: str, name: str) -> bool:
        return name in self.stored

    def store(self, file: Path) -> str:
        if self.down:
            raise self.down.pop(0)
        self.stored.append(file.name)
        return "there"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watcher(session: Session, tmp_path: Path):
    """A watcher of one series, and what it said."""
    sample = write_sample(tmp_path / "sample").folder
    ledger = Ledger(tmp_path / FILE)
    (tmp_path / "results").mkdir()
    lines: list[str] = []
    one = Watcher(
        session,
        Fake(sample, [FIRST]),
        Rule(),
        ledger,
        tmp_path,
        WatchSettings("nifti", settle=0, once=True, tries=3, retry=60),
        lines.append,
        clock=Clock(),
    )
    one.lines = lines
    yield one
    ledger.close()


def entry_of(watcher: Watcher):
    return watcher.ledger.every()[0]


def test_a_series_is_taken_when_it_has_settled_and_only_once(watcher: Watcher) -> None:
    watcher.settings = replace(watcher.settings, settle=30)
    for seconds, signature in ((0, "a"), (20, "b"), (29, "b")):
        watcher.clock.now = 1000.0 + seconds
        watcher.source.there = [replace(FIRST, signature=signature)]
        ready, unsettled = watcher._look()
        assert not ready
        assert unsettled > 0
    watcher.clock.now = 1050.0
    assert watcher.run().stored == 1
    watcher.run()
    assert watcher.source.fetched == len(watcher.source.stored) == 1
    assert entry_of(watcher).state == "stored"
    watcher.source.there = [replace(FIRST, signature="c", slices=9)]
    watcher.run()
    assert watcher.source.fetched == 1
    assert entry_of(watcher).grew


def test_what_does_not_fit_is_not_in_the_ledger(watcher: Watcher) -> None:
    watcher.source.there = [replace(FIRST, modality="SEG"), replace(FIRST, uid="1.2.9", slices=1)]
    watcher.rule = Rule(minimum_slices=8)
    watcher.run()
    assert watcher.ledger.every() == []
    watcher.rule = Rule(minimum_slices=7, description="AX*")
    watcher._decided.clear()
    assert watcher.run().stored == 1, "the frames of a multi-frame object count"


def test_a_failure_is_tried_again_with_a_limit(watcher: Watcher) -> None:
    def broken() -> InputError:
        return InputError("reading", file="/x/Canary.dcm", found="damaged", remedy="copy it")

    watcher.source.faults = [broken(), ValueError("Canary^Jane"), broken()]
    watcher.settings = replace(watcher.settings, once=False)
    for attempt, pause in ((1, 60), (2, 120), (3, 0)):
        ready, _ = watcher._look()
        watcher._do(*ready[0])
        entry = entry_of(watcher)
        assert (entry.attempts, entry.state) == (attempt, "waiting" if pause else "failed")
        assert watcher._look()[0] == []
        watcher.clock.now += pause
    assert "Canary" not in "".join(watcher.lines) + str(entry)
    assert "unexpected ValueError at" in watcher.lines[1]
    assert watcher.report.given_up == 1
    assert watcher.ledger.forgive(0.0) == 1
    ready, _ = watcher._look()
    watcher._do(*ready[0])
    assert entry_of(watcher).state == "stored"


def test_an_archive_that_is_down_is_no_fault_of_the_series(watcher: Watcher) -> None:
    watcher.source.down = [UnreachableError("storing", found="refused")] * 5
    for _ in range(5):
        with pytest.raises(UnreachableError):
            watcher.run()
        assert (entry_of(watcher).state, entry_of(watcher).attempts) == ("waiting", 0)
    assert watcher.run().stored == 1
    assert watcher.source.fetched == 1, "what was made waits to be stored"
    assert list((watcher.state / "results").iterdir()) == []


def test_it_waits_and_reports_it_once(watcher: Watcher) -> None:
    down, wrong = UnreachableError("looking", found="refused"), InputError("looking", found="404")
    answers = [down, down, None, wrong, down]
    look = watcher.source.look

    def unreliable() -> list[Series]:
        if answers:
            answer = answers.pop(0)
            if answer is None:
                return look()
            raise answer
        watcher.stopping.set()
        return look()

    watcher.source.look = unreliable
    watcher.settings = replace(watcher.settings, once=False, every=0.01)
    watcher.run()
    said = [line.split()[1] for line in watcher.lines if line.startswith("fake")]
    assert said == ["does", "answers", "does", "answers"]
    answers.append(wrong)
    watcher.stopping.clear()
    watcher._was_right = False
    with pytest.raises(InputError):
        watcher.run()


def test_a_crash_while_it_works_counts_as_a_try(watcher: Watcher) -> None:
    for _ in range(3):
        ready, _ = watcher._look()
        watcher.ledger.claim(ready[0][0], 0.0)
    assert watcher.run().given_up == 1
    assert watcher.source.fetched == 0
    assert "process ended" in entry_of(watcher).message


def test_a_crash_after_storing_is_seen(watcher: Watcher) -> None:
    watcher.run()
    watcher.ledger._do("update series set state = 'claimed', object = null", ())
    watcher.run()
    assert entry_of(watcher).state == "stored"
    assert len(watcher.source.stored) == 1
    assert "there already" in watcher.lines[-1]


def test_another_file_is_not_taken_for_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no table " * 100)
    newer = sqlite3.connect(tmp_path / "b")
    newer.execute("pragma user_version=99")
    newer.close()
    for name in "ab":
        with pytest.raises(InputError, match="--state"):
            Ledger(tmp_path / name)
