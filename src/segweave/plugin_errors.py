"""Says that an exception comes from a user's plug-in, and from which line of it."""

from __future__ import annotations

import traceback
from pathlib import Path

from segweave.card_files import loading
from segweave.errors import InputError
from segweave.registry import REGISTRIES


def plugin_error(error: BaseException) -> InputError | None:
    """What a plug-in's code raised, as an error that names it, its file and line; None where no
    line of a plug-in took part.
    """
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        names = [name for registry in REGISTRIES for name in registry.names_in(frame.filename)]
        if not names and frame.filename not in loading:
            continue
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        known = InputError(
            f"plug-in {', '.join(names) or Path(frame.filename).name} raised {reason}",
            file=frame.filename,
            found=f"line {frame.lineno}, in {frame.name}: {frame.line}",
            remedy="correct the plug-in; `segweave --debug ...` shows every call",
        )
        known.__cause__ = error
        return known
    return None
