"""Looks at a source again and again, and segments each new series that fits a rule once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from segweave.archive.errors import UnreachableError, library
from segweave.archive.ledger import FILE, Entry, Ledger
from segweave.archive.results import (
    ENDINGS,
    ResultFormat,
    file_name,
    model_digest,
    names_of,
    write_result,
)
from segweave.archive.rule import Rule
from segweave.archive.sources import FolderSource, Series, Source
from segweave.errors import SegweaveError, one_line
from segweave.prediction import Session
from segweave.serve.messages import public_message, where
from segweave.storage import locked, remove_leftovers, scratch_folder

LOCK = ".watching.lock"
_SPOOL = "results"
_LONGEST_PAUSE = 3600.0
_GONE = "the process ended while it worked on this series"
Say = Callable[[str], None]


@dataclass(frozen=True)
class WatchSettings:
    """How a source is watched.

    Attributes:
        format: what results are.
        settle: a series is complete when it has not changed for so many seconds.
        every: seconds between two looks.
        tries: how often a series is tried before it is given up.
        retry: seconds before a series that failed is tried again; doubled after each try.
        once: end after one round: what is there now, once it is complete.
    """

    format: ResultFormat = "dicom-seg"
    settle: float = 30.0
    every: float = 10.0
    tries: int = 3
    retry: float = 60.0
    once: bool = False


@dataclass
class WatchReport:
    """How many series were stored, how many were given up, and how many tries failed."""

    stored: int = 0
    given_up: int = 0
    failed_tries: int = 0


@dataclass
class Watcher:
    """The work of `watch` on an open ledger."""

    session: Session
    source: Source
    rule: Rule
    ledger: Ledger
    state: Path
    settings: WatchSettings
    say: Say
    stopping: threading.Event = field(default_factory=threading.Event)
    report: WatchReport = field(default_factory=WatchReport)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.model = model_digest(self.session, self.settings.format)
        self._decided: dict[str, tuple[str, bool]] = {}
        self._silent = self._was_right = False

    def run(self) -> WatchReport:
        """Look until `stopping` is set, or with `once` until nothing is left to do now."""
        tried: set[str] = set()
        while not self.stopping.is_set():
            try:
                ready, unsettled = self._look()
                self._answered()
                for entry, series in ready:
                    if self.stopping.is_set():
                        return self.report
                    if not (self.settings.once and series.uid in tried):
                        tried.add(series.uid)
                        self._do(entry, series)
            except SegweaveError as error:
                # A source that was right once is waited for, whatever it answers now.
                later = isinstance(error, UnreachableError) or self._was_right
                if self.settings.once or not later:
                    raise
                self._unreachable(error)
                unsettled = 0.0
            if self.settings.once and not unsettled:
                break
            pause = min(unsettled, self.settings.every) if unsettled else self.settings.every
            self.stopping.wait(max(0.05, pause))
        return self.report

    def _look(self) -> tuple[list[tuple[Entry, Series]], float]:
        """What is to be done now, oldest first; and in how many seconds a series will have settled
        that has not yet, 0 where all have.
        """
        now, unsettled = self.clock(), 0.0
        ready: list[tuple[Entry, Series]] = []
        for series in self.source.look():
            if not self._wanted(series):
                continue
            entry = self.ledger.see(series, self.model, now)
            if entry.state in ("stored", "failed"):
                continue
            left = entry.since + self.settings.settle - now
            if left > 0:
                unsettled = max(unsettled, left)
            elif entry.again <= now or self.settings.once:
                ready.append((entry, series))
        return sorted(ready, key=lambda one: one[0].since), unsettled

    def _wanted(self, series: Series) -> bool:
        if not self.rule.may_fit(series.modality):
            return False
        before = self._decided.get(series.uid)
        if before is not None and before[0] == series.signature:
            return before[1]
        slices = series.slices
        if slices == 1 < self.rule.minimum_slices:
            frames = self.source.values(series, ["NumberOfFrames"]).get("NumberOfFrames") or ["1"]
            slices = int(frames[0]) if frames[0].isdecimal() else 1
        fits = self.rule.fits(slices, self.source.values(series, self.rule.keywords))
        self._decided[series.uid] = (series.signature, fits)
        return fits

    def _do(self, entry: Entry, series: Series) -> None:
        """Segment one series and store its result; every way out of it is in the ledger."""
        made = self._spooled(entry)
        if entry.state == "claimed" and made is None and entry.attempts >= self.settings.tries:
            self._failed(entry, _GONE, entry.attempts)
            return
        self.ledger.claim(entry, self.clock())
        try:
            self._segment(entry, series, made)
        except UnreachableError as error:
            self.ledger.put_back(entry, one_line(error), self.clock())
            raise
        except (KeyboardInterrupt, SystemExit):
            self.ledger.put_back(entry, "interrupted", self.clock())
            raise
        except Exception as error:
            text = public_message(error, self.state).text.replace("\n ", ";").replace("\n", "; ")
            if not isinstance(error, SegweaveError):
                text = f"unexpected {where(error)}"
            self._failed(entry, text, entry.attempts + 1)

    def _segment(self, entry: Entry, series: Series, made: Path | None) -> None:
        start = time.monotonic()
        object = entry.object
        if made is None:
            with scratch_folder(self.state / "fetched") as folder:
                self.source.fetch(series, folder)
                names = names_of(folder, series.uid, self.model, self.settings.format)
                object = names.object
                if self.source.holds(series, object, names.file):
                    # Another ledger knew of it, or a crash came after it was stored.
                    self.ledger.stored(entry, object, self.source.name, self.clock())
                    self._tell(series, "its result is there already")
                    return
                made = self.state / _SPOOL / names.file
                write_result(self.session, folder, made, names, self.settings.format)
            # First the file, then the entry: without an entry it is made again, and is the same.
            self.ledger.made(entry, object)
        seconds = time.monotonic() - start
        place = self.source.store(made)
        assert object is not None
        self.ledger.stored(entry, object, place, self.clock())
        made.unlink(missing_ok=True)
        self.report.stored += 1
        self._tell(series, f"segmented in {seconds:.1f} s, stored: {place}")

    def _spooled(self, entry: Entry) -> Path | None:
        """The result that an earlier try made and could not store."""
        if entry.object is None:
            return None
        file = self.state / _SPOOL / file_name(entry.uid, entry.object, self.settings.format)
        return file if file.is_file() else None

    def _failed(self, entry: Entry, text: str, attempts: int) -> None:
        now, final = self.clock(), attempts >= self.settings.tries
        pause = min(self.settings.retry * 2 ** (attempts - 1), _LONGEST_PAUSE)
        self.ledger.failed(entry, text, None if final else now + pause, now)
        self.report.failed_tries += 1
        self.report.given_up += final
        later = "in the next round" if self.settings.once else f"in {pause:.0f} s"
        end = "given up" if final else f"tried again {later}"
        self.say(
            f"series {entry.uid}: failed ({attempts} of {self.settings.tries} tries, {end}): {text}"
        )

    def _tell(self, series: Series, text: str) -> None:
        slices = f"{series.slices} slice{'s' if series.slices != 1 else ''}"
        about = ", ".join(filter(None, [series.modality, slices]))
        self.say(f"series {series.uid} ({about}): {text}")

    def _unreachable(self, error: SegweaveError) -> None:
        if not self._silent:
            self.say(f"{self.source.name} does not answer, waiting: {one_line(error)}")
        self._silent = True

    def _answered(self) -> None:
        if self._silent:
            self.say(f"{self.source.name} answers again")
        self._silent, self._was_right = False, True


def watch(
    session: Session,
    source: Source,
    state: str | Path,
    *,
    rule: Rule | None = None,
    settings: WatchSettings | None = None,
    retry_failed: bool = False,
    say: Say = lambda _: None,
) -> WatchReport:
    """Watch a source until the process is interrupted; a first Ctrl-C ends it after the current
    series, a second one at once.

    Args:
        session: what segments.
        source: a folder or an archive.
        state: the folder of the ledger and of results that wait to be stored; for one watch.
        rule: which series are segmented; every series of images unless given.
        settings: see `WatchSettings`.
        retry_failed: try again what was given up.
        say: is called with a line for each series and when the source does not answer.

    Raises UsageError where another process has the folder, InputError for a source that is none,
    with `once` UnreachableError where an archive does not answer.
    """
    folder = Path(state)
    settings = settings or WatchSettings()
    session.check_boxes(None)
    if settings.format == "dicom-seg":
        library("watching", "highdicom")
    with ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        remedy = "choose another folder with --state"
        stack.enter_context(locked(folder / LOCK, "watching", remedy=remedy))
        remove_leftovers(folder)
        if isinstance(source, FolderSource):
            remedy = "choose another folder with --out"
            stack.enter_context(locked(source.out / LOCK, "watching", remedy=remedy))
            remove_leftovers(source.out)
        ledger = Ledger(folder / FILE)
        stack.callback(ledger.close)
        _clean_spool(folder / _SPOOL, ledger.every())
        if retry_failed:
            ledger.forgive(time.time())
        watcher = Watcher(session, source, rule or Rule(), ledger, folder, settings, say)
        with _stopped_by_signals(watcher.stopping):
            return watcher.run()


def _clean_spool(spool: Path, entries: Sequence[Entry]) -> None:
    """Remove the results that nobody waits for: of series that changed, and stored ones."""
    spool.mkdir(exist_ok=True)
    waiting = {
        file_name(entry.uid, entry.object, format)
        for entry in entries
        if entry.object is not None and entry.state != "stored"
        for format in ENDINGS
    }
    for file in spool.iterdir():
        if file.name not in waiting:
            file.unlink(missing_ok=True)


@contextmanager
def _stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set the event; a second one has its usual effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: object) -> None:
        stopping.set()
        signal.signal(number, before[signal.Signals(number)])
        with suppress(OSError):
            os.write(2, b"ending after the current series; once more ends it now\n")

    for one in before:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
