"""The command `segweave`: one file per command, which parses, calls one function and prints."""

from segweave.cli.app import main

__all__ = ["main"]
