"""metrics.csv: one row per optimiser step, appended during training, cut back where it resumes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from segweave.errors import SegweaveError
from segweave.runs.run_folder import read_rows
from segweave.storage import write_text

COLUMNS = ("step", "epoch", "loss", "rate", "seconds", "samples_per_second", "loader_share")


class MetricsFile:
    """Appends rows; columns that were not there before (validation scores) are added to all rows.

    Opening it cuts away every row after `step` and a last line that was only half written.

    Args:
        path: the file.
        step: the last optimiser step that is kept.

    Raises SegweaveError where the disk is full; the file is then as it was before the row.
    """

    def __init__(self, path: str | Path, step: int = 0) -> None:
        self.path = Path(path)
        rows = [row for row in read_rows(self.path) if row["step"] <= step]
        self.columns = list(COLUMNS)
        for row in rows:
            self.columns += [name for name in row if name not in self.columns]
        self._rewrite(rows)

    def append(self, row: Mapping[str, float]) -> None:
        """Write one row; a name that has no column yet gets one."""
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            self._rewrite([*read_rows(self.path), dict(row)])
            return
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_line([_text(row.get(name)) for name in self.columns]))
        except OSError as error:
            with self.path.open("r+b") as file:
                file.truncate(size)
            raise SegweaveError(
                f"writing the training's numbers: {error.strerror}",
                file=self.path,
                remedy="free some space and start the same training again; it goes on from its "
                "last checkpoint",
            ) from error

    def _rewrite(self, rows: Sequence[Mapping[str, float]]) -> None:
        lines = [_line(self.columns)]
        lines += [_line([_text(row.get(name)) for name in self.columns]) for row in rows]
        write_text(self.path, "".join(lines))


def _line(fields: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(fields)
    return out.getvalue()


def _text(value: float | None) -> str:
    return "" if value is None else repr(int(value) if float(value).is_integer() else float(value))
