"""The command `segweave`: one file per command, which parses, calls one function and prints."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from segweave.cli.guard import guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on `arguments` (default: those of the process) and exit with its code.

    0: done; 2: wrong use or input; 1: a failure; 130: interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is not valid text is shown with its invalid bytes escaped.
        sys.stdout.reconfigure(errors="backslashreplace")

    @guarded
    def run() -> None:
        from segweave.cli.app import app

        app(list(arguments) if arguments is not None else None, prog_name="segweave")

    run()
