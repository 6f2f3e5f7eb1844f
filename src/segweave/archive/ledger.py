"""What `watch` has done with each series, in SQLite: each is segmented once, also after a crash.

A series is `waiting` until it has not changed for a while, then `claimed`, then `stored` or, after
some tries, `failed`. A claim that a crash left is taken up again. No name of a patient is in it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segweave.archive.sources import Series
from segweave.errors import SegweaveError
from segweave.storage import open_table

State = Literal["waiting", "claimed", "stored", "failed"]
FILE = "ledger.sqlite"
FORMAT = 1
_TABLE = """
create table if not exists series (
    uid text not null,
    model text not null,
    study text not null,
    modality text not null,
    slices integer not null,
    signature text not null,
    since real not null,
    state text not null default 'waiting',
    attempts integer not null default 0,
    again real not null default 0,
    changed real not null,
    object text,
    place text,
    message text,
    grew integer not null default 0,
    primary key (uid, model)
)
"""
_NAMES = (
    "uid", "model", "study", "modality", "slices", "signature", "since", "state", "attempts",
    "again", "changed", "object", "place", "message", "grew",
)  # fmt: skip
_SELECT = f"select {', '.join(_NAMES)} from series "


@dataclass(frozen=True)
class Entry:
    """A series in the ledger.

    Attributes:
        uid, study, modality, slices, signature: those of the series when it was last seen.
        model: the digest of the model.
        since: when it was first seen as it is now, seconds since 1970.
        state: `waiting`, `claimed`, `stored` or `failed`.
        attempts: how often it was begun.
        again: when it may be tried again.
        changed: when the state changed.
        object: the SOP instance UID of the result, once it was made.
        place: where the result is.
        message: why the last try failed, without names of patients.
        grew: whether the series changed after its result was stored.
    """

    uid: str
    model: str
    study: str
    modality: str
    slices: int
    signature: str
    since: float
    state: State
    attempts: int
    again: float
    changed: float
    object: str | None
    place: str | None
    message: str | None
    grew: bool


class Ledger:
    """The ledger in a file. Every method is one transaction that a crash leaves whole."""

    def __init__(self, file: Path) -> None:
        """Open or make it. Raises InputError where the file is something else."""
        self._connection = open_table(
            file,
            _TABLE,
            FORMAT,
            "opening the ledger of a watch",
            pragmas=("synchronous=full",),
            expected="a ledger",
            remedy="choose another folder with --state",
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def every(self) -> list[Entry]:
        """All series, in the order in which they were first seen."""
        return self._entries("order by rowid", ())

    def get(self, uid: str, model: str) -> Entry | None:
        """The entry of a series and a model, or None."""
        return next(iter(self._entries("where uid = ? and model = ?", (uid, model))), None)

    def see(self, series: Series, model: str, now: float) -> Entry:
        """Note that a series is there. One that changed before its result was stored is new."""
        before = self.get(series.uid, model)
        since = now if series.since is None else min(now, series.since)
        about = (series.study, series.modality, series.slices, series.signature)
        if before is None:
            self._do(
                "insert into series (study, modality, slices, signature, uid, model, since, "
                "changed) values (?, ?, ?, ?, ?, ?, ?, ?)",
                (*about, series.uid, model, since, now),
            )
        elif before.signature == series.signature:
            return before
        elif before.state == "stored":
            self._do(
                "update series set signature = ?, slices = ?, grew = 1 where uid = ? and model = ?",
                (series.signature, series.slices, series.uid, model),
            )
        else:
            self._do(
                "update series set study = ?, modality = ?, slices = ?, signature = ?, since = ?, "
                "changed = ?, state = 'waiting', attempts = 0, again = 0, object = null, "
                "message = null where uid = ? and model = ?",
                (*about, since, now, series.uid, model),
            )
        entry = self.get(series.uid, model)
        assert entry is not None
        return entry

    def claim(self, entry: Entry, now: float) -> None:
        """Begin a series; a try counts before it is made, so that a crash counts too."""
        self._set(entry, "state = 'claimed', attempts = attempts + 1, changed = ?", now)

    def made(self, entry: Entry, object: str) -> None:
        """The result is made and waits to be stored."""
        self._set(entry, "object = ?", object)

    def stored(self, entry: Entry, object: str, place: str, now: float) -> None:
        """The result is where it belongs: the series is done."""
        self._set(
            entry,
            "state = 'stored', object = ?, place = ?, message = null, changed = ?",
            object,
            place,
            now,
        )

    def put_back(self, entry: Entry, message: str | None, now: float) -> None:
        """It could not be done now for a reason outside of it: that is not a try."""
        self._set(
            entry,
            "state = 'waiting', attempts = attempts - 1, message = ?, changed = ?",
            message,
            now,
        )

    def failed(self, entry: Entry, message: str, again: float | None, now: float) -> None:
        """A try failed; it is made again at the time `again`, or never."""
        state = "failed" if again is None else "waiting"
        self._set(
            entry, "state = ?, message = ?, again = ?, changed = ?", state, message, again or 0, now
        )

    def forgive(self, now: float) -> int:
        """Let what failed be tried again as if it were new; returns how many."""
        query = "update series set state = 'waiting', attempts = 0, again = 0, changed = ? "
        return self._connection.execute(query + "where state = 'failed'", (now,)).rowcount

    def _set(self, entry: Entry, changes: str, *values: Any) -> None:
        self._do(
            f"update series set {changes} where uid = ? and model = ?",
            (*values, entry.uid, entry.model),
        )

    def _do(self, query: str, values: tuple[Any, ...]) -> None:
        try:
            self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise SegweaveError(
                "writing the ledger of a watch",
                found=str(error),
                remedy="free some space, or allow to write into the folder --state",
            ) from error

    def _entries(self, rest: str, values: tuple[Any, ...]) -> list[Entry]:
        rows = self._connection.execute(_SELECT + rest, values).fetchall()
        return [
            Entry(**dict(zip(_NAMES, row, strict=True)) | {"grew": bool(row[-1])}) for row in rows
        ]
