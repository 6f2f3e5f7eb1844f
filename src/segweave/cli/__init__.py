"""The command `segweave`: one file per command, which parses, calls one function and prints."""

from segweave.cli.guard import main

__all__ = ["main"]
