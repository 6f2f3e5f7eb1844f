"""What a run is scored on, and what was: test cases once, the label maps kept."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.errors import InputError, UsageError
from segweave.files import atomic_write

if TYPE_CHECKING:
    from segweave.data.store import CaseStore
    from segweave.training import Run

_LEDGER = "tested.json"


def store_of(run: Run, store: CaseStore | str | Path | None) -> CaseStore:
    """The store that a run was trained on, known by its checksum."""
    from segweave.data.store import Store

    place = store if store is not None else run.recipe.data.store
    if place is None:
        raise UsageError(
            "evaluating a run", file=run.folder, expected="its store", found="none named in it"
        )
    opened = Store(place) if isinstance(place, str | Path) else place
    checksum = run.environment["data"]["checksum"]
    if opened.checksum != checksum:
        raise InputError(
            "evaluating a run",
            file=run.folder,
            expected=f"the store that it was trained on (checksum {checksum[:12]})",
            found=f"the store {opened.name} with checksum {opened.checksum[:12]}",
            remedy="give the store as it was; for other data, predict files and score those",
        )
    return opened


def check_scored_once(run: Run, name: str, force: bool) -> None:
    """Raise UsageError where the run's test cases were scored under `name` already."""
    done = _ledger(run).get(name)
    if done is not None and not force:
        raise UsageError(
            "scoring test cases a second time",
            file=run.folder,
            expected="test cases that this run was not scored on yet",
            found=f"scores of {done['when']} in {done['folder']}",
            remedy="read those; a choice made after looking at test scores makes them worthless, "
            "so choose on part validation; after a repaired fault, force it",
        )


def note_scored(run: Run, name: str, folder: Path) -> None:
    """Write down that they were scored now."""
    ledger = _ledger(run)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    times = ledger.get(name, {}).get("times", 0) + 1
    ledger[name] = {"when": when, "folder": str(folder), "times": times}
    with atomic_write(run.folder / "evaluation" / _LEDGER) as temporary:
        temporary.write_text(json.dumps(ledger, indent=2) + "\n", encoding="utf-8")


def _ledger(run: Run) -> dict[str, Any]:
    path = run.folder / "evaluation" / _LEDGER
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("reading what was scored already", file=path, found=str(error)) from error
    return content


@contextmanager
def predictions_folder(final: Path) -> Iterator[Path]:
    """A new folder beside `final` that takes its place when all went well."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=final.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        old = final.with_name(f".old-{final.name}")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.replace(final, old)
        os.replace(temporary, final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def keep(labels: NDArray[np.uint8], case: Case, folder: Path) -> None:
    """Write the label map of a case that was scored, at the case's own size."""
    from segweave.data.formats import write_label
    from segweave.data.formats.nifti import HEADER_ATTRIBUTE
    from segweave.evaluation import nearest_zoom

    if labels.shape[-2:] != case.size:
        # Scored at the network's size; kept at the case's, to be looked at.
        labels = nearest_zoom(labels, case.size)
    name = urllib.parse.quote(case.id, safe=" ")
    if HEADER_ATTRIBUTE in case.attributes and case.source_grid is not None:
        ending = ".nii.gz"
    else:
        ending = ".png" if case.stack == "single" and labels.ndim == 3 else ".npz"
    write_label(labels, case, folder / f"{name}{ending}")
