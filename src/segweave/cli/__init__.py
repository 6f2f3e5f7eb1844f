"""The command `segweave`: one file a command; each parses, calls one function and prints."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on `arguments` (default: the process's own) and leave with its exit code.

    0: done; 2: wrong use or input; 1: a failure; 130: interrupted.
    """
    import io
    import sys

    from segweave.cli.guard import guarded

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is no text is shown with its odd bytes spelt out.
        sys.stdout.reconfigure(errors="backslashreplace")

    @guarded
    def run() -> None:
        from segweave.cli.app import app

        app(list(arguments) if arguments is not None else None, prog_name="segweave")

    run()
